"""Pictures of what allocations cost, and of their ratios over depth."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from sims.pages.style import NOISE, legend_above, panel_grid, styled

# Okabe and Ito's palette.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#000000")
MEAN = "#0072B2"


@styled
def cost_figure(summary: pd.DataFrame, models: pd.DataFrame) -> Figure:
    """Draw the difference to uniform ratios of every allocation, a panel a method and sparsity.

    Args:
        summary: method, sparsity, by, delta, low, high.
        models: the same of every model.
    """
    cells = list(dict.fromkeys(zip(summary["method"], summary["sparsity"], strict=True)))
    names = list(dict.fromkeys(summary["by"]))
    figure, axes = panel_grid(len(cells), height=0.9 + 0.24 * len(names), sharey=True)
    for ax, (method, sparsity) in zip(axes, cells, strict=True):
        ax.axvline(0, **NOISE)
        for table, style in ((models, "models"), (summary, "mean")):
            own = table[(table["method"] == method) & (table["sparsity"] == sparsity)]
            y = np.array([names.index(name) for name in own["by"]])
            if style == "models":
                ax.plot(own["delta"], y + 0.3, ".", color="0.6", markersize=3)
            else:
                ax.hlines(y, own["low"], own["high"], color=MEAN, linewidth=1.6)
                ax.plot(own["delta"], y, "o", color=MEAN, markersize=4)
        ax.set(title=f"{method}, {sparsity:.0%} zeros", xlabel="Δ loss to uniform (nats)")
        ax.set_yticks(range(len(names)), names)
    axes[0].set_ylim(len(names) - 0.4, -0.5)
    legend_above(
        figure,
        [
            Line2D([], [], color=MEAN, marker="o", markersize=4, label="mean, 95 % interval"),
            Line2D([], [], color="0.6", marker=".", linestyle="", label="each model"),
        ],
    )
    return figure


@styled
def ratio_figure(ratios: pd.DataFrame) -> Figure:
    """Draw the share of zeros of every block over depth, a panel a method and sparsity.

    Args:
        ratios: method, sparsity, by, block, ratio (mean over models).
    """
    cells = list(dict.fromkeys(zip(ratios["method"], ratios["sparsity"], strict=True)))
    names = list(dict.fromkeys(ratios["by"]))
    colours = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(names)}
    figure, axes = panel_grid(len(cells), height=2.3)
    for ax, (method, sparsity) in zip(axes, cells, strict=True):
        own = ratios[(ratios["method"] == method) & (ratios["sparsity"] == sparsity)]
        for name, line in own.groupby("by", sort=False):
            style = "solid" if names.index(str(name)) < len(COLOURS) else "dashed"
            ax.plot(line["block"], line["ratio"], color=colours[str(name)], linestyle=style, linewidth=1.3)
        ax.set(
            title=f"{method}, {sparsity:.0%} zeros", xlabel="block (0 is the first)", ylabel="share of zeros"
        )
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    handles = [
        Line2D([], [], color=colours[n], linestyle="solid" if i < len(COLOURS) else "dashed", label=n)
        for i, n in enumerate(names)
    ]
    legend_above(figure, handles)
    return figure
