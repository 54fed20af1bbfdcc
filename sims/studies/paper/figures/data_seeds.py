"""Outcomes on one data set and on others, side by side."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from sims.pages.style import colour, legend_above, panels, styled

# Where the two groups of a cell stand beside its tick.
ASIDE = 0.16


@styled
def data_seeds_figure(table: pd.DataFrame, labels: dict[str, str]) -> Figure:
    """Draw one dot a run: filled on one data set with several model seeds, hollow on others with one model seed.

    Args:
        table: stage, batch_size, quantity, value, group ("model" or "data": the seed in which the runs differ).
        labels: of the quantities, in the order of the panels.
    """
    quantities = [name for name in labels if (table["quantity"] == name).any()]
    figure, axes = panels(1, len(quantities), height=2.4)
    for ax, quantity in zip(axes[0], quantities, strict=True):
        own = table[table["quantity"] == quantity]
        cells = list(dict.fromkeys(zip(own["stage"], own["batch_size"], strict=True)))
        for at, (stage, size) in enumerate(cells):
            of_cell = own[(own["stage"] == stage) & (own["batch_size"] == size)]
            for group, values in of_cell.groupby("group")["value"]:
                x = at + (ASIDE if group == "data" else -ASIDE)
                face = "none" if group == "data" else colour(stage)
                ax.plot(
                    np.full(len(values), x),
                    values,
                    "o",
                    markersize=4,
                    markeredgecolor=colour(stage),
                    markerfacecolor=face,
                )
                ax.hlines(values.mean(), x - 0.1, x + 0.1, color=colour(stage), linewidth=1.5)
        ax.set_xticks(range(len(cells)), [f"{stage}\nB = {size}" for stage, size in cells])
        ax.set(ylabel=labels[quantity], xlim=(-0.5, len(cells) - 0.5))
    dot = {"marker": "o", "linestyle": "", "markersize": 4, "markeredgecolor": "0.3"}
    legend_above(
        figure,
        [
            Line2D([], [], markerfacecolor="0.3", label="model seeds, one data set", **dot),
            Line2D([], [], markerfacecolor="none", label="data seeds, one model seed", **dot),
        ],
    )
    return figure
