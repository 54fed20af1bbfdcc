"""Three panels at the top of a page: loss, activation spectra, and concentration above its null."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sims.pages.figures.spectra import LEAST_SHARE, spectrum_lines
from sims.pages.style import colour, in_order, loss_floor, outside_legend, panels, seed_band, styled
from spectra.plots import rank_axes


@styled
def glance_figure(
    losses: pd.DataFrame, spectra: pd.DataFrame, concentration: pd.DataFrame, floor: float | None = None
) -> Figure:
    """Draw the panels that have something to show, colours by stage.

    Args:
        losses: stage, seed, step, tokens, value (nats).
        spectra: one row a run: stage, shares (an array).
        concentration: stage, seed, step, tokens, value, null, null_high.
        floor: the lowest possible loss, where it is known.
    """
    draw = ((_losses, losses), (_spectra, spectra), (_concentration, concentration))
    there = [(drawing, table) for drawing, table in draw if len(table)]
    stages = in_order(stage for _, table in there for stage in table["stage"])
    figure, axes = panels(1, len(there), width=3.9, height=2.7)
    for ax, (drawing, table) in zip(axes[0], there, strict=True):
        drawing(ax, table, stages)
        if drawing is _losses:
            loss_floor(ax, floor)
    outside_legend(figure, axes[0, 0], stages, [])
    return figure


def _losses(ax: Axes, table: pd.DataFrame, stages: list[str]) -> None:
    own = table[table["step"] > 0]
    unit, name = clock(own)
    for stage in stages:
        seen = own[own["stage"] == stage].assign(clock=lambda t: t["tokens"] / unit)
        seed_band(ax, seen, "clock", color=colour(stage), linestyle="solid")
    ax.set(
        xlabel=f"training {name}",
        ylabel="loss (nats, log scale)",
        title="How fast does it learn?",
        yscale="log",
    )
    ax.yaxis.set_major_formatter("{x:g}")
    ax.yaxis.set_minor_formatter("{x:g}")


def _spectra(ax: Axes, table: pd.DataFrame, stages: list[str]) -> None:
    for stage in stages:
        spectrum_lines(ax, table[table["stage"] == stage], colour(stage), "solid")
    rank_axes(ax)
    ax.set_ylim(bottom=max(LEAST_SHARE, ax.get_ylim()[0]))
    ax.set(ylabel="share of variance", title="How many directions do its activations fill?")


def _concentration(ax: Axes, table: pd.DataFrame, stages: list[str]) -> None:
    unit, name = clock(table)
    table = table.assign(clock=table["tokens"] / unit)
    null = table.groupby("clock")[["null", "null_high"]].mean()
    ax.fill_between(null.index, 0, null["null_high"], color="0.5", alpha=0.22, linewidth=0)
    ax.plot(null.index, null["null"], color="0.3", linewidth=0.9, linestyle=":")
    for stage in stages:
        seed_band(ax, table[table["stage"] == stage], "clock", color=colour(stage), linestyle="solid")
    ax.set(xlabel=f"training {name}", ylabel="H_peak", title="Does it concentrate on one frequency?")
    ax.set_ylim(bottom=0)


def clock(table: pd.DataFrame) -> tuple[float, str]:
    """Return what a tick of the axis of training counts: divisor and words."""
    if len(table) and "step" in table and (table["tokens"] == table["step"]).all():
        return 1, "steps"
    return (1, "tokens") if table["tokens"].max() < 1e5 else (1e6, "tokens (millions)")
