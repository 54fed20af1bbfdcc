"""The picture of causal tests: how much later runs grok under each change."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sims.pages.style import NOISE, markers, panels, styled
from sims.studies.grokking.figures import COLOURS, MAIN


@styled
def causal_figure(seeds: pd.DataFrame, arms: pd.DataFrame, pairs: pd.DataFrame, margin: float) -> Figure:
    """Draw the time of grokking of every changed run over that of its seed unchanged, and the decisive ratios.

    Args:
        seeds: arm, ratio, reached, one row a run.
        arms: arm, ratio, low, high: means over seeds beside the unchanged runs.
        pairs: title, ratio, low, high of the comparisons that decide.
        margin: ratios nearer to 1 are no change.
    """
    figure, axes = panels(1, 2, width=4.2, height=0.34 * len(arms) + 0.9)
    left, right = axes[0]
    places = {arm: -i for i, arm in enumerate(arms["arm"])}
    for reached, face in ((True, COLOURS[0]), (False, "none")):
        own = seeds[(seeds["reached"] == reached) & seeds["arm"].isin(places)]
        y = own["arm"].map(places).to_numpy(float) + 0.17
        label = "a run" if reached else "a run that does not grok: at least"
        left.plot(own["ratio"], y, "o", color=COLOURS[0], markerfacecolor=face, markersize=3, label=label)
    _means(left, arms, list(places))
    left.set_xlabel("step of test accuracy 0.9 / that of the same seed unchanged")
    _means(right, pairs, list(pairs["title"]))
    for bound in (1 / margin, margin):
        right.axvline(bound, color="0.45", linestyle="dashed", linewidth=1.0)
    right.set_xlabel("ratio of the steps of two changes")
    left.legend()
    return figure


def _means(ax: Axes, table: pd.DataFrame, names: Sequence[str]) -> None:
    y = -np.arange(len(names), dtype=float)
    ax.hlines(y, table["low"], table["high"], color=MAIN, linewidth=1.0)
    markers(ax, table["ratio"], y, color=MAIN, markersize=4, label="mean, 95 %")
    ax.axvline(1.0, **NOISE)
    ax.set_yticks(y, names)
    ax.set_ylim(-len(names) + 0.4, 0.6)
