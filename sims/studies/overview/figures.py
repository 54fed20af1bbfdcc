"""Losses and Fourier concentration over training, its link to activation spectra, and the causal test."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from sims.pages.style import colour, dashes, in_order, many_lines, panels, seed_band, stage_legend, styled


@styled
def loss_figure(curves: pd.DataFrame) -> Figure:
    """Draw the validation loss of every run over tokens, one panel a batch size.

    Args:
        curves: stage, batch_size, seed, step, tokens, value (nats).
    """
    stages, sizes = in_order(curves["stage"]), sorted(curves["batch_size"].unique())
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


@styled
def concentration_figure(rows: pd.DataFrame, label: str) -> Figure:
    """Draw concentration over tokens with its null: one row a band, one column a batch size.

    Args:
        rows: band, stage, batch_size, seed, tokens, value, null, null_high.
        label: of the quantity.
    """
    bands, sizes = list(rows["band"].unique()), sorted(rows["batch_size"].unique())
    stages = in_order(rows["stage"])
    figure, axes = panels(len(bands), len(sizes), height=2.1, sharex="col", sharey="row")
    for i, band in enumerate(bands):
        for j, size in enumerate(sizes):
            ax = axes[i, j]
            here = rows[(rows["band"] == band) & (rows["batch_size"] == size)]
            here = here.assign(million=here["tokens"] / 1e6)
            for stage in stages:
                own = here[here["stage"] == stage]
                seed_band(ax, own, "million", color=colour(stage), linestyle=dashes(size, sizes))
            null = here.groupby("million")[["null", "null_high"]].mean()
            ax.plot(null.index, null["null"], color="0.3", linewidth=0.9, linestyle=":")
            ax.fill_between(null.index, null["null"], null["null_high"], color="0.5", alpha=0.25, linewidth=0)
            ax.set_title(f"{band}, B = {size}")
        axes[i, 0].set_ylabel(label)
    for ax in axes[-1]:
        ax.set_xlabel("training tokens (millions)")
    stage_legend(axes[0, 0], stages, sizes)
    return figure


@styled
def link_figure(means: pd.DataFrame) -> Figure:
    """Draw H_S of every measured moment against the exponents and the head share of the same activations.

    Args:
        means: of `sims.studies.overview.tables.link_means`.
    """
    columns = [c for c in means.columns if c.startswith("alpha ")] + ["top_share"]
    stages = in_order(means["stage"])
    figure, axes = panels(1, len(columns), width=2.9, sharey=True)
    for ax, column in zip(axes[0], columns, strict=True):
        for stage in stages:
            own = means[means["stage"] == stage].sort_values("step", kind="stable")
            color, runs = colour(stage), own.groupby("run_id", sort=False)
            many_lines(
                ax,
                [one[[column, "h_s"]].to_numpy() for _, one in runs],
                color=color,
                linewidth=0.4,
                alpha=0.6,
            )
            # An image: as SVG each point is an element, and the points are runs times measurements.
            dots = {"markersize": 3, "markeredgewidth": 0, "alpha": 0.7, "rasterized": True}
            ax.plot(own[column], own["h_s"], ".", color=color, **dots)
            last = runs.tail(1)
            ax.plot(last[column], last["h_s"], "o", markersize=5, markerfacecolor="none", color=color)
        ax.set_xlabel(
            "share of the 10 largest"
            if column == "top_share"
            else f"α over ranks {column.removeprefix('alpha ')}"
        )
    axes[0, 0].set_ylabel("H_S (task band), mean over bands")
    stage_legend(axes[0, -1], stages, [])
    return figure


@styled
def causal_figure(effects: pd.DataFrame) -> Figure:
    """Draw the change of loss when the key frequency is kept or dropped, with its controls.

    Args:
        effects: of `sims.studies.overview.tables.causal_effects`, one row a run, quantity and site.
    """
    stages = in_order(effects["stage"])
    kinds = [(q, s) for s in ("final", "embed") for q in ("causal_drop", "causal_keep")]
    figure, axes = panels(1, len(kinds), width=2.4)
    for ax, (quantity, site) in zip(axes[0], kinds, strict=True):
        here = effects[(effects["quantity"] == quantity) & (effects["site"] == site)]
        for x, stage in enumerate(stages):
            own = here[here["stage"] == stage]
            spread = np.linspace(-0.12, 0.12, max(len(own), 1))[: len(own)]
            ax.scatter(x - 0.15 + spread, own["value"], s=12, color=colour(stage))
            ax.scatter(x + 0.2 + spread, own["null"], s=12, facecolors="none", edgecolors="0.4")
        ax.axhline(0, color="0.7", linewidth=0.7)
        ax.set_xticks(range(len(stages)), stages, rotation=30)
        ax.set_title(
            f"{quantity.removeprefix('causal_')}, in the {'final state' if site == 'final' else 'embedding'}"
        )
    axes[0, 0].set_ylabel("change of loss (nats)")
    return figure
