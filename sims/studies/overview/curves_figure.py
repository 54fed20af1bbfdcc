"""Loss against training tokens."""

from __future__ import annotations

from matplotlib.figure import Figure

from sims.analysis.runs import Runs
from sims.pages.style import colour, dashes, panels, seed_band, stage_legend, styled


@styled
def loss_figure(runs: Runs) -> Figure:
    """Validation loss of every run over tokens, one panel a batch size."""
    curves = runs.values("val_loss")
    stages, sizes = list(runs.runs["stage"].unique()), sorted(runs.runs["batch_size"].unique())
    figure, axes = panels(1, len(sizes), sharey=True)
    for ax, size in zip(axes[0], sizes, strict=True):
        for stage in stages:
            own = curves[(curves["stage"] == stage) & (curves["batch_size"] == size) & (curves["step"] > 0)]
            own = own.assign(million=own["tokens"] / 1e6)
            seed_band(ax, own, "million", color=colour(stage), linestyle=dashes(size, sizes))
        ax.set(xlabel="training tokens (millions)", title=f"B = {size}", yscale="log")
        # Losses span less than a decade: plain numbers at the minor ticks too.
        ax.yaxis.set_major_formatter("{x:g}")
        ax.yaxis.set_minor_formatter("{x:g}")
    axes[0, 0].set_ylabel("validation loss (nats, log scale)")
    stage_legend(axes[0, -1], stages, sizes, loc="upper right")
    return figure
