"""Batch sizes at equal loss: divergences beside their floors, and tail exponents."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from sims.pages.number import ABSENT
from sims.pages.style import NOISE, colour, in_order, legend_above, noise_level, panels, styled

# So many pairs of batch sizes have their names beside each other.
FEW = 4


@styled
def divergence_figure(table: pd.DataFrame) -> Figure:
    """Draw JS of each pair of batch sizes by stage, with its floors (`batch_divergence`)."""
    stages = in_order(table["stage"])
    figure, axes = panels(1, len(stages), width=2.3, sharey=True)
    for ax, stage in zip(axes[0], stages, strict=True):
        own = table[table["stage"] == stage].reset_index(drop=True)
        ax.vlines(own.index, own["low"], own["high"], color=colour(stage), linewidth=4, alpha=0.35)
        ax.plot(own.index, own["js"], "o", color=colour(stage), markersize=5)
        ax.axhline(own["floor"].iloc[0], color="0.3", linestyle="--", linewidth=0.9)
        for x, level in enumerate(own["sampling_floor"]):
            ax.hlines(level, x - 0.3, x + 0.3, color="0.3", linestyle=":", linewidth=1.2)
        labels = [f"{a}/{b}" for a, b in zip(own["small"], own["large"], strict=True)]
        ax.set_xticks(range(len(own)), labels, rotation=25 if len(own) <= FEW else 90)
        ax.set_xlim(-0.6, len(own) - 0.4)
        ax.set(title=f"{stage}, loss {own['loss'].iloc[0]:.3f}", yscale="log")
    axes[0, 0].set_ylabel("JS at equal loss (nats)")
    ax = axes[0, 0]
    handles = [
        ax.plot([], [], "o", color="0.4", label="batch sizes, equal seed")[0],
        ax.plot([], [], "--", color="0.3", label="seeds, one batch size")[0],
        ax.plot([], [], ":", color="0.3", label="samples of one population")[0],
    ]
    legend_above(figure, handles)
    return figure


@styled
def tail_figure(means: pd.DataFrame, exponents: pd.DataFrame, nulls: Mapping[str, float]) -> Figure:
    """Draw α at equal loss against batch size, one panel a rank window.

    Args:
        means: of `tail_by_batch`.
        exponents: of `matched_exponents`: the runs behind them.
        nulls: by window, α of pure noise of the same shape.
    """
    windows, stages = list(means["window"].unique()), in_order(means["stage"])
    figure, axes = panels(1, len(windows), width=2.9)
    for ax, window in zip(axes[0], windows, strict=True):
        for k, stage in enumerate(stages):
            shift = 1 + 0.03 * (k - (len(stages) - 1) / 2)
            own = means[(means["window"] == window) & (means["stage"] == stage)].sort_values("batch_size")
            seeds = exponents[(exponents["window"] == window) & (exponents["stage"] == stage)]
            ax.plot(
                seeds["batch_size"] * shift, seeds["alpha"], ".", color=colour(stage), markersize=3, alpha=0.7
            )
            error = [own["alpha"] - own["low"], own["high"] - own["alpha"]]
            ax.errorbar(
                own["batch_size"] * shift, own["alpha"], error, color=colour(stage), linewidth=1.1, capsize=2
            )
        noise_level(ax, nulls[window])
        sizes = sorted(means["batch_size"].unique())
        ax.set_xscale("log", base=2)
        ax.set_xticks(sizes, [str(s) for s in sizes])
        ax.set(xlabel="batch size", title=f"ranks {window}")
    axes[0, 0].set_ylabel("α at equal loss")
    handles = [axes[0, 0].plot([], [], color=colour(s), label=s)[0] for s in stages]
    handles.append(axes[0, 0].plot([], [], **NOISE, label="noise")[0])
    legend_above(figure, handles)
    return figure


@styled
def prediction_figure(table: pd.DataFrame, exponents: pd.DataFrame, window: str, fraction: float) -> Figure:
    """Draw ρ over windows × fractions, and below it the runs of one cell.

    Args:
        table: of `early_prediction`.
        exponents: of `early_exponents`.
        window, fraction: the cell that is shown run by run.
    """
    stages = in_order(table["stage"])
    figure, axes = panels(2, len(stages), width=2.5, height=2.4)
    shown = None
    for k, stage in enumerate(stages):
        own = table[table["stage"] == stage]
        grid = own.pivot(index="window", columns="fraction", values="rho")
        stars = own.pivot(index="window", columns="fraction", values="q") <= 0.05
        ax = axes[0, k]
        shown = ax.imshow(grid, vmin=-1, vmax=1, cmap="RdBu_r", aspect="auto")
        for (i, j), value in np.ndenumerate(grid.to_numpy(float)):
            text = ABSENT if np.isnan(value) else f"{value:.1f}{'*' if stars.iloc[i, j] else ''}"
            ax.text(
                j, i, text, ha="center", va="center", fontsize=6.5, color="w" if abs(value) > 0.7 else "k"
            )
        ax.set_xticks(range(grid.shape[1]), [f"{f:.0%}" for f in grid.columns], rotation=60, fontsize=7)
        ax.set_yticks(range(len(grid)), list(grid.index) if k == 0 else [""] * len(grid))
        ax.set_title(
            f"{stage}: smallest p {own['p_min'].min():.2g}\n(ρ of batch size {own['rho_size'].iloc[0]:.1f})"
        )
        _cell(axes[1, k], exponents, stage, window, fraction)
    axes[0, 0].set_ylabel("ranks")
    axes[1, 0].set_ylabel("million tokens to the common loss")
    if shown is not None:
        figure.colorbar(shown, ax=list(axes[0]), label="ρ", shrink=0.8)
    return figure


def _cell(ax, exponents: pd.DataFrame, stage: str, window: str, fraction: float) -> None:
    own = exponents[
        (exponents["stage"] == stage) & (exponents["window"] == window) & (exponents["fraction"] == fraction)
    ]
    own = own.assign(million=own["tokens"] / 1e6)
    ax.plot(own["alpha"], own["million"], ".", color=colour(stage), markersize=3.5, alpha=0.7)
    means = own.groupby("batch_size")[["alpha", "million"]].mean()
    for size, row in means.iterrows():
        ax.plot(row["alpha"], row["million"], "o", color=colour(stage), markersize=6)
        ax.annotate(
            str(size), (row["alpha"], row["million"]), textcoords="offset points", xytext=(6, 5), fontsize=7
        ).set_path_effects([withStroke(linewidth=2, foreground="white")])
    ax.set(xlabel=f"α({window}) at {fraction:.0%}", yscale="log")
    ax.yaxis.set_major_formatter("{x:g}")
    ax.yaxis.set_minor_formatter("{x:g}")
    ax.tick_params(axis="y", which="both", labelsize=6.5)
