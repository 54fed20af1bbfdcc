"""Pictures of what post-training changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from sims.pages.style import legend_above, panels, styled

# Okabe and Ito's palette; the run itself in grey.
COLOURS: Mapping[str, str] = {
    "before": "0.45",
    "plain": "#0072B2",
    "sft": "#E69F00",
    "dpo": "#009E73",
    "rlvr": "#D55E00",
}


@styled
def glance_figure(
    changes: pd.DataFrame,
    seeds: pd.DataFrame,
    passes: pd.DataFrame,
    names: Mapping[str, str],
    forgotten: tuple[str, str],
) -> Figure:
    """Draw the three main pictures: RankMe, pass@k, and the loss that tells what is forgotten.

    Args:
        changes: since before: arm, quantity, mean, low, high.
        seeds: the same of every seed: arm, quantity, value.
        passes: arm, seed, k, value.
        names: of the arms.
        forgotten: name of that loss, and what it is of.
    """
    figure, axes = panels(1, 3, width=3.4, height=2.6)
    _changes(axes[0, 0], changes, seeds, "rankme", names, 100.0)
    axes[0, 0].set(title="RankMe", ylabel="change of ln RankMe · 100")
    _passes(axes[0, 1], passes)
    quantity, title = forgotten
    _changes(axes[0, 2], changes, seeds, quantity, names, 1.0)
    axes[0, 2].set(title=f"Loss on {title}", ylabel="change in nats")
    legend_above(figure, _handles(names))
    return figure


@styled
def change_figure(
    changes: pd.DataFrame, seeds: pd.DataFrame, quantities: Mapping[str, str], names: Mapping[str, str]
) -> Figure:
    """Draw changes of several numbers, a panel each.

    Args:
        changes, seeds, names: as in `glance_figure`.
        quantities: titles of the panels.
    """
    figure, axes = panels(1, len(quantities), width=3.2, height=2.4)
    for ax, (quantity, title) in zip(axes[0], quantities.items(), strict=True):
        _changes(ax, changes, seeds, quantity, names, 1.0)
        ax.set_title(title)
    legend_above(figure, _handles(names))
    return figure


@styled
def pass_figure(passes: pd.DataFrame, cells: Sequence[str], names: Mapping[str, str]) -> Figure:
    """Draw pass@k over k, a panel a set of runs.

    Args:
        passes: cell, arm, seed, k, value.
        cells: in the order of the panels.
        names: of the arms.
    """
    figure, axes = panels(1, len(cells), height=2.6, sharey=True)
    for ax, cell in zip(axes[0], cells, strict=True):
        _passes(ax, passes[passes["cell"] == cell])
        ax.set_title(cell)
    legend_above(figure, _handles(names))
    return figure


def _changes(
    ax: Axes,
    changes: pd.DataFrame,
    seeds: pd.DataFrame,
    quantity: str,
    names: Mapping[str, str],
    factor: float,
) -> None:
    arms = [arm for arm in names if arm in set(changes["arm"])]
    ax.axhline(0.0, color="0.6", linewidth=0.8)
    for place, arm in enumerate(arms):
        points = seeds[(seeds["arm"] == arm) & (seeds["quantity"] == quantity)]["value"] * factor
        ax.plot([place - 0.18] * len(points), points, "o", color=COLOURS[arm], markersize=3, alpha=0.5)
        if points.empty:
            continue
        own: Any = changes[(changes["arm"] == arm) & (changes["quantity"] == quantity)]
        mean, low, high = (float(own[name].iloc[0]) * factor for name in ("mean", "low", "high"))
        ax.plot([place], [mean], "s", color=COLOURS[arm], markersize=5)
        ax.plot([place, place], [low, high], color=COLOURS[arm], linewidth=1.4)
    ax.set_xticks(range(len(arms)), [names[arm] for arm in arms])
    ax.set_xlim(-0.6, len(arms) - 0.4)


def _passes(ax: Axes, passes: pd.DataFrame) -> None:
    for arm, colour in COLOURS.items():
        means = passes[passes["arm"] == arm].groupby("k")["value"].mean()
        ax.plot(means.index, means, marker="o", markersize=3, color=colour)
    ks = sorted(set(passes["k"]))
    ax.set(title="pass@k", xlabel="k samples", ylabel="share of sets with a right one", xscale="log")
    ax.set_xticks(ks, [str(k) for k in ks])
    ax.minorticks_off()


def _handles(names: Mapping[str, str]) -> list[Line2D]:
    return [Line2D([], [], color=COLOURS[arm], marker="s", label=name) for arm, name in names.items()]
