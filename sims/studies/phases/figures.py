"""Pictures of the geometry of states over training, with its phases."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from textwrap import fill
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import NullFormatter

from sims.pages.style import NOISE, legend_above, panel_grid, panels, plain_log, seed_band, styled

TOKENS, RANKME = "training tokens", "RankMe"
INK = "#222222"
# Okabe and Ito's palette; what is flat or unknown has none.
PHASES: Mapping[str, tuple[str, str]] = {
    "W": ("#0072B2", "W: warm-up, falls"),
    "E": ("#E69F00", "E: entropy-seeking, rises"),
    "C": ("#009E73", "C: compression-seeking, falls again"),
    "?": ("0.6", "?: not supported"),
}
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#000000", "#999933", "#882255")
RAMP = "viridis"
# Below this ratio a decade has too few marks.
FEW_DECADES = 50.0
# Characters of a title that a panel has room for.
TITLE = 40


def _shade(ax: Axes, phases: pd.DataFrame) -> None:
    for own in phases.to_dict("records"):
        if own["label"] in PHASES:
            ax.axvspan(own["start"], own["end"], color=PHASES[own["label"]][0], alpha=0.16, linewidth=0)


def _phase_handles(labels: Iterable[str]) -> list[Any]:
    there = set(labels)
    return [Patch(color=c, alpha=0.35, label=text) for name, (c, text) in PHASES.items() if name in there]


def _log_tokens(ax: Axes) -> None:
    """Make the axis of tokens logarithmic, once the curves are drawn."""
    ax.set(xscale="log", xlabel=TOKENS)
    low, high = ax.get_xlim()
    if high < FEW_DECADES * low:
        plain_log(ax, "x")
    ax.xaxis.set_minor_formatter(NullFormatter())


@styled
def phase_figure(
    rankme: pd.DataFrame, alpha: pd.DataFrame, phases: pd.DataFrame, null: float | None
) -> Figure:
    """Draw RankMe and α-ReQ of one set over tokens, with its phases.

    Args:
        rankme, alpha: seed, tokens, value; alpha may be empty.
        phases: label, start, end.
        null: RankMe of Gaussian states.
    """
    figure, axes = panels(1, 2 if len(alpha) else 1, width=4.0, height=2.7)
    for ax, table, name in zip(axes[0], (rankme, alpha), (RANKME, "α-ReQ"), strict=False):
        _shade(ax, phases)
        seed_band(ax, table, "tokens", color=INK, linestyle="solid")
        ax.set(ylabel=name)
        _log_tokens(ax)
    if null is not None:
        axes[0, 0].axhline(null, **NOISE)
    plain_log(axes[0, 0], "y")
    handles = _phase_handles(phases["label"])
    if null is not None:
        handles.append(Line2D([], [], **NOISE, label="Gaussian states"))
    legend_above(figure, handles)
    return figure


@styled
def words_figure(curves: pd.DataFrame, phases: pd.DataFrame, titles: Mapping[str, str]) -> Figure:
    """Draw RankMe of every set over tokens, a panel a set.

    Args:
        curves: cell, seed, tokens, value.
        phases: cell, label, start, end.
        titles: of the cells.
    """
    cells = list(titles)
    figure, axes = panel_grid(len(cells), ylabel=RANKME, height=2.2)
    for ax, cell in zip(axes, cells, strict=True):
        _shade(ax, phases[phases["cell"] == cell])
        seed_band(ax, curves[curves["cell"] == cell], "tokens", color=INK, linestyle="solid")
        ax.set(title=fill(titles[cell], TITLE))
        plain_log(ax, "y")
        _log_tokens(ax)
    legend_above(figure, _phase_handles(phases["label"]))
    return figure


@styled
def without_figure(curves: pd.DataFrame, shares: pd.DataFrame, cells: Sequence[str]) -> Figure:
    """Draw RankMe without its first directions, and the share of the mean state, a row a set.

    Args:
        curves: cell, of (what was left out), seed, tokens, value.
        shares: cell, seed, tokens, value; may be empty.
        cells: in their order.
    """
    names = list(dict.fromkeys(curves["of"]))
    colours = dict(zip(names, COLOURS, strict=False))
    figure, axes = panels(len(cells), 2, height=2.2)
    for (left, right), cell in zip(axes, cells, strict=True):
        for name in names:
            own = curves[(curves["cell"] == cell) & (curves["of"] == name)]
            seed_band(left, own, "tokens", color=colours[name], linestyle="solid")
        seed_band(right, shares[shares["cell"] == cell], "tokens", color=INK, linestyle="solid")
        left.set(title=cell, ylabel=RANKME)
        right.set(title=f"{cell}: mean state", ylabel="share of E‖h‖²", ylim=(-0.03, 1.03))
        plain_log(left, "y")
        _log_tokens(left)
        _log_tokens(right)
    legend_above(figure, [Line2D([], [], color=c, label=name) for name, c in colours.items()])
    return figure


@styled
def comparison_figure(curves: pd.DataFrame, ordered: bool) -> Figure:
    """Draw RankMe of sets that differ in one setting, a panel a group.

    Args:
        curves: group, cell (as the legend names it), seed, tokens, value.
        ordered: whether the cells are values of a scale, drawn in the colours of a ramp.
    """
    groups = list(dict.fromkeys(curves["group"]))
    names = list(dict.fromkeys(curves["cell"]))
    ramp = [mpl.colormaps[RAMP](0.85 * i / max(1, len(names) - 1)) for i in range(len(names))]
    colours: dict[str, Any] = dict(zip(names, ramp if ordered else COLOURS, strict=False))
    figure, axes = panel_grid(len(groups), 2, ylabel=RANKME, height=2.5)
    for ax, group in zip(axes, groups, strict=True):
        for name, own in curves[curves["group"] == group].groupby("cell", sort=False):
            seed_band(ax, own, "tokens", color=colours.get(str(name), INK), linestyle="solid")
        ax.set(title=group)
        plain_log(ax, "y")
        _log_tokens(ax)
    legend_above(figure, [Line2D([], [], color=c, label=name) for name, c in colours.items()])
    return figure


@styled
def parts_figure(curves: pd.DataFrame, phases: pd.DataFrame, name: str) -> Figure:
    """Draw several numbers of each set over tokens with its phases, a panel a set.

    Args:
        curves: cell, of (a colour each), seed, tokens, value.
        phases: cell, label, start, end.
        name: of the numbers.
    """
    cells, names = (list(dict.fromkeys(curves[column])) for column in ("cell", "of"))
    colours = dict(zip(names, COLOURS, strict=False))
    figure, axes = panel_grid(len(cells), 2, ylabel=name, height=2.5)
    for ax, cell in zip(axes, cells, strict=True):
        _shade(ax, phases[phases["cell"] == cell])
        for of, own in curves[curves["cell"] == cell].groupby("of", sort=False):
            seed_band(ax, own, "tokens", color=colours[str(of)], linestyle="solid")
        ax.set(title=cell)
        _log_tokens(ax)
    handles = [Line2D([], [], color=c, label=of) for of, c in colours.items()]
    legend_above(figure, [*handles, *_phase_handles(phases["label"])])
    return figure
