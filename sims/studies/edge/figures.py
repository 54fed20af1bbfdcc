"""Pictures of windows of updates: their gap, what of it noise has too, and where k* lies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from sims.pages.style import (
    DASHES,
    NOISE,
    colour,
    legend_above,
    lines_of,
    many_lines,
    panels,
    plain_log,
    seed_band,
    styled,
)

# Points of a smoothed curve; a window at every snapshot has several hundred.
POINTS = 60
STEP = "training step"
# Of further sizes of a stage: hues of Okabe and Ito's palette.
SIZES = ("#0072B2", "#CC79A7", "#56B4E9", "#D55E00", "#009E73", "#E69F00")


def cell_styles(cells: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Return a colour and a line style for each cell: of the stage at its first size, others at further sizes.

    Args:
        cells: stage of each cell.
    """
    styles, seen = {}, []
    free = [hue for hue in SIZES if hue not in map(colour, cells.values())]
    for cell, stage in cells.items():
        earlier = seen.count(stage)
        own = colour(stage) if earlier == 0 else free.pop(0) if free else colour(stage)
        styles[cell] = {"color": own, "linestyle": DASHES[earlier % len(DASHES)]}
        seen.append(stage)
    return styles


@styled
def glance_figure(
    gaps: pd.DataFrame,
    shares: pd.DataFrame,
    lags: pd.DataFrame,
    styles: Mapping[str, dict[str, Any]],
    nulls: Mapping[str, str],
) -> Figure:
    """Draw the three main pictures: gap against noise, share of windows with an edge, lags at both W.

    Args:
        gaps: cell, seed, step, relative, relative_low, relative_high.
        shares: cell, null, mean, low, high.
        lags: cell, seed, window, lag, low, high; empty where no lag was asked for.
        styles: of the cells.
        nulls: names of the nulls, as they are shown.
    """
    figure, axes = panels(1, 3, width=3.9, height=2.8)
    _relative_gap(axes[0, 0], gaps, styles)
    axes[0, 0].set_title("Is the gap larger than that of noise?")
    _shares(axes[0, 1], shares, styles, nulls)
    axes[0, 1].set_title("How many windows exceed each null?")
    _lags(axes[0, 2], lags, styles)
    axes[0, 2].set_title("Does the gap go before the loss?")
    _cell_legend(figure, axes[0, 0], styles)
    return figure


@styled
def edge_figure(
    shares: pd.DataFrame,
    styles: Mapping[str, dict[str, Any]],
    nulls: Mapping[str, str],
    forms: Mapping[str, str],
) -> Figure:
    """Draw the share of disjoint windows beyond each null, a panel for raw and one for unit updates of each W.

    Args:
        shares: cell, form, window, null, mean, low, high.
        styles, nulls: as in `glance_figure`.
        forms: titles of the forms.
    """
    windows = sorted(shares["window"].unique())
    figure, axes = panels(len(windows), len(forms), height=2.2, sharey=True)
    kinds = [(form, window) for window in windows for form in forms]
    for ax, (form, window) in zip(axes.flat, kinds, strict=True):
        _shares(ax, shares[(shares["form"] == form) & (shares["window"] == window)], styles, nulls)
        ax.set_title(f"{forms[form]}, W = {window}")
    _cell_legend(figure, axes[0, 0], styles)
    return figure


@styled
def mode_figure(counts: pd.DataFrame, noise: pd.DataFrame, styles: Mapping[str, dict[str, Any]]) -> Figure:
    """Draw how often each k* is found in windows, which may overlap, beside momentum noise; a panel a cell.

    Args:
        counts: cell, k, share.
        noise: the same of momentum noise; cells without it have none.
        styles: of the cells.
    """
    figure, axes = panels(1, len(styles), width=2.9, height=2.2, sharey=True)
    for ax, (cell, style) in zip(axes[0], styles.items(), strict=True):
        own, null = counts[counts["cell"] == cell], noise[noise["cell"] == cell]
        ax.bar(null["k"] + 0.2, null["share"], width=0.4, color=NOISE["color"])
        ax.bar(own["k"] - 0.2, own["share"], width=0.4, color=style["color"])
        ax.set(title=cell, xlabel="k*")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[0, 0].set_ylabel("share of windows")
    legend_above(figure, [Patch(color=NOISE["color"], label="momentum noise"), *_patches(styles)])
    return figure


@styled
def phase_figure(
    ratios: pd.DataFrame, updates: pd.DataFrame, changes: pd.DataFrame, styles: Mapping[str, dict[str, Any]]
) -> Figure:
    """Draw σ₂/σ₃ over training with its changes of slope, and below it the lengths of the updates; a column a cell.

    Args:
        ratios: cell, seed, step, value.
        updates: cell, seed, step, norm.
        changes: cell, seed, step, of each significant change of slope.
        styles: of the cells.
    """
    figure, axes = panels(2, len(styles), width=2.9, height=1.9, sharex=True, sharey="row")
    for column, (cell, style) in zip(axes.T, styles.items(), strict=True):
        for ax, table, name in ((column[0], ratios, "value"), (column[1], updates, "norm")):
            own = table[table["cell"] == cell]
            many_lines(ax, lines_of(own, "seed", "step", name), color=style["color"], linewidth=0.6)
            ax.set(xscale="log", yscale="log")
        own = changes[changes["cell"] == cell]
        for step in own["step"]:
            column[0].axvline(step, color="0.45", linestyle="dashed", linewidth=0.7)
        plain_log(column[0], "y")
        plain_log(column[1], "y")
        column[0].set_title(cell)
        column[1].set_xlabel(STEP)
    axes[0, 0].set_ylabel("σ₂/σ₃")
    axes[1, 0].set_ylabel("length of an update")
    return figure


@styled
def lag_figure(curves: pd.DataFrame, cells: Sequence[str]) -> Figure:
    """Draw the correlation of gap and loss at each lag, a panel a cell and stamp.

    Args:
        curves: cell, seed, window, stamp, lag, r.
        cells: in the order of the columns.
    """
    stamps = ("end", "centre")
    figure, axes = panels(len(stamps), len(cells), width=2.9, height=1.8, sharex=True, sharey=True)
    windows = sorted(curves["window"].unique())
    hues = dict(zip(windows, ("#0072B2", "#D55E00"), strict=False))
    for line, stamp in zip(axes, stamps, strict=True):
        for ax, cell in zip(line, cells, strict=True):
            own = curves[(curves["cell"] == cell) & (curves["stamp"] == stamp)]
            for window, color in hues.items():
                part = own[own["window"] == window]
                many_lines(ax, lines_of(part, "seed", "lag", "r"), color=color, linewidth=0.6, alpha=0.6)
                mean = part.groupby("lag")["r"].mean()
                ax.plot(mean.index, mean, color=color, linewidth=1.6, marker="o", markersize=2.5)
            ax.axhline(0, **NOISE)
            ax.axvline(0, color="0.45", linestyle="dashed", linewidth=0.8)
            ax.set_title(f"{cell}: stamped at the {stamp}")
    for ax in axes[-1]:
        ax.set_xlabel("lag (snapshots; right: gap earlier)")
    for line in axes:
        line[0].set_ylabel("correlation r")
    legend_above(figure, [axes[0, 0].plot([], [], color=c, label=f"W = {w}")[0] for w, c in hues.items()])
    return figure


@styled
def sketch_figure(
    curves: pd.DataFrame, styles: Mapping[str, dict[str, Any]], bound: float, decided: int
) -> Figure:
    """Draw the error of σ₂/σ₃ and the share of sketches that keep k*, against the size of the sketch.

    Args:
        curves: window, times (d/W), mean, kept.
        styles: of the cells; other windows are drawn in grey.
        bound: the published error.
        decided: the published d/W.
    """
    figure, axes = panels(1, 2, height=2.6)
    others = {"published": ("black", "s"), "flat": ("0.6", "o"), "two modes": ("0.6", "^")}
    for name, own in curves.groupby("window", sort=False):
        style = styles.get(str(name))
        if style is None:
            color, mark = others[str(name)]
            style = {"color": color, "linestyle": "solid", "marker": mark}
        for ax, column in ((axes[0, 0], "mean"), (axes[0, 1], "kept")):
            ax.plot(own["times"], own[column], markersize=3, label=name, **style)
    axes[0, 0].axhline(bound, color="0.45", linestyle="dashed", linewidth=1.0)
    for ax in axes[0]:
        plain_log(ax, "x")
        ax.axvline(decided, color="0.45", linestyle="dotted", linewidth=1.0)
        ax.set_xlabel("size of the sketch, d / W")
    plain_log(axes[0, 0], "y")
    axes[0, 0].set_ylabel("mean |error| of σ₂/σ₃")
    axes[0, 1].set(ylabel="share of sketches that keep k*", ylim=(0, 1.03))
    axes[0, 0].legend()
    return figure


@styled
def optimiser_figure(
    gaps: pd.DataFrame, styles: Mapping[str, dict[str, Any]], titles: Mapping[str, str]
) -> Figure:
    """Draw quantities of windows over training, a panel each.

    Args:
        gaps: cell, seed, step, and a column for each quantity.
        styles: of the cells that are drawn.
        titles: of the quantities.
    """
    figure, axes = panels(1, len(titles), width=2.9, height=2.4)
    for ax, (name, title) in zip(axes[0], titles.items(), strict=True):
        for cell, style in styles.items():
            own = gaps[gaps["cell"] == cell].assign(value=gaps[name]).dropna(subset=["value"])
            seed_band(ax, _binned(own), "step", **style)
        ax.set(title=title, xlabel=STEP)
    axes[0, 0].axhline(1, **NOISE)
    _cell_legend(figure, axes[0, 0], styles)
    return figure


def _binned(table: pd.DataFrame) -> pd.DataFrame:
    """Return means over neighbouring windows, at most `POINTS` a seed."""
    steps = np.sort(table["step"].unique())
    width = max(1, -(-len(steps) // POINTS))
    place = np.searchsorted(steps, table["step"]) // width
    middle = {i: float(steps[i * width : (i + 1) * width].mean()) for i in range(-(-len(steps) // width))}
    binned = table.assign(step=[middle[i] for i in place]).groupby(["seed", "step"])["value"].mean()
    return binned.reset_index()


def _relative_gap(ax: Axes, gaps: pd.DataFrame, styles: Mapping[str, dict[str, Any]]) -> None:
    known = gaps.dropna(subset=["relative"])
    if len(known):
        ax.axhspan(
            known["relative_low"].min(),
            known["relative_high"].max(),
            color=NOISE["color"],
            alpha=0.25,
            linewidth=0,
        )
        ax.axhline(1, **NOISE)
    for cell, style in styles.items():
        own = known[known["cell"] == cell]
        seed_band(ax, _binned(own.assign(value=own["relative"])) if len(own) else own, "step", **style)
    ax.set(xlabel=STEP, ylabel="gap / that of momentum noise")


def _shares(
    ax: Axes, shares: pd.DataFrame, styles: Mapping[str, dict[str, Any]], nulls: Mapping[str, str]
) -> None:
    wide = 0.6 / max(len(styles), 1)
    for i, (cell, style) in enumerate(styles.items()):
        for x, null in enumerate(nulls):
            own = shares[(shares["cell"] == cell) & (shares["null"] == null)]
            place = x + wide * (i - (len(styles) - 1) / 2)
            ax.vlines([place] * len(own), own["low"], own["high"], color=style["color"], linewidth=1.2)
            ax.plot([place] * len(own), own["mean"], "o", color=style["color"], markersize=4)
    ax.axhline(0.2, color="0.45", linestyle="dashed", linewidth=1.0)
    ax.set_xticks(range(len(nulls)), [name.replace(": ", "\n") for name in nulls.values()])
    ax.set(ylabel="share of windows, p < .01", ylim=(-0.03, 1.03), xlim=(-0.5, len(nulls) - 0.5))


def _lags(ax: Axes, lags: pd.DataFrame, styles: Mapping[str, dict[str, Any]]) -> None:
    if lags.empty:
        ax.text(
            0.5,
            0.5,
            "no lag can be computed\nfrom these runs",
            ha="center",
            va="center",
            transform=ax.transAxes,
        )
        ax.set_axis_off()
        return
    windows = sorted(lags["window"].unique())
    for x, window in enumerate(windows):
        at = 0
        for cell, style in styles.items():
            own = lags[(lags["cell"] == cell) & (lags["window"] == window)]
            for row in own.to_dict("records"):
                place = x - 0.35 + 0.7 * at / max(1, len(lags) // len(windows) - 1)
                ax.vlines(place, row["low"], row["high"], color=style["color"], linewidth=0.9)
                ax.plot(place, row["lag"], "o", color=style["color"], markersize=3)
                at += 1
    ax.axhline(0, **NOISE)
    ax.set_xticks(range(len(windows)), [f"W = {w}" for w in windows])
    ax.set(ylabel="lag (snapshots; up: gap earlier)", xlim=(-0.5, len(windows) - 0.5))


def _patches(styles: Mapping[str, dict[str, Any]]) -> list[Patch]:
    """Return one entry for each colour of the cells."""
    cells: dict[str, list[str]] = {}
    for cell, style in styles.items():
        cells.setdefault(style["color"], []).append(cell)
    return [Patch(color=color, label="; ".join(own)) for color, own in cells.items()]


def _cell_legend(figure: Figure, ax: Axes, styles: Mapping[str, dict[str, Any]]) -> None:
    legend_above(figure, [ax.plot([], [], label=cell, **style)[0] for cell, style in styles.items()])
