"""Figures of the outcomes on trained runs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from sims.pages.style import colour, dashes, outside_legend, panels, styled


@styled
def scatter(
    table: pd.DataFrame,
    x: str,
    y: str,
    xlabel: str,
    ylabel: str,
    *,
    identity: bool = False,
    zero: bool = False,
) -> Figure:
    """Draw one point a row, in the colour of its stage, and the line y = x or y = 0 where it is the limit."""
    figure, axes = panels(1, 1, width=4.4, height=3.0)
    ax = axes[0, 0]
    stages = list(dict.fromkeys(table["stage"]))
    for stage in stages:
        own = table[table["stage"] == stage]
        ax.scatter(own[x], own[y], s=9, color=colour(stage), alpha=0.6, linewidths=0)
    if identity:
        ends = [table[x].min(), table[x].max()]
        ax.plot(ends, ends, color="0.3", linewidth=0.8)
    if zero:
        ax.axhline(0, color="0.3", linewidth=0.8)
    ax.set(xlabel=xlabel, ylabel=ylabel)
    outside_legend(figure, ax, stages, [])
    return figure


@styled
def points(table: pd.DataFrame, by: str, value: str, ylabel: str) -> Figure:
    """Draw one point a row over the groups of a column, one colour a seed, with the line of 0, which claims set."""
    groups, seeds = list(dict.fromkeys(table[by])), sorted(table["seed"].unique())
    figure, axes = panels(1, 1, width=max(3.0, 1.1 + 0.95 * len(groups)), height=2.9)
    ax = axes[0, 0]
    ax.axhline(0.0, color="0.3", linewidth=0.8)
    shades = [str(g) for g in np.linspace(0.0, 0.6, len(seeds))]
    for j, seed in enumerate(seeds):
        own = table[table["seed"] == seed]
        place = [
            groups.index(g) + 0.25 * (j - (len(seeds) - 1) / 2) / max(len(seeds) - 1, 1) for g in own[by]
        ]
        ax.scatter(place, own[value], s=13, color=shades[j], linewidths=0, label=f"seed {seed}")
    ax.set_xticks(range(len(groups)), [str(g) for g in groups], rotation=25 if len(groups) > 2 else 0)
    ax.set_xlim(-0.6, len(groups) - 0.4)
    ax.set_ylabel(ylabel)
    ax.legend()
    return figure


@styled
def quantiles(values: Sequence[float], xlabel: str, ylabel: str) -> Figure:
    """Draw sorted values against the uniform quantiles that the null predicts."""
    figure, axes = panels(1, 1, width=3.3, height=3.0)
    ax, n = axes[0, 0], len(values)
    ax.plot([0, 1], [0, 1], color="0.3", linewidth=0.8)
    ax.plot((np.arange(n) + 0.5) / n, np.sort(values), "o", markersize=3.5, color=colour("baseline"))
    ax.set(xlabel=xlabel, ylabel=ylabel)
    return figure


@styled
def trajectories(
    table: pd.DataFrame,
    x: str,
    y: str,
    panel: str,
    xlabel: str,
    ylabel: str,
    *,
    null: str = "",
    log_x: bool = False,
) -> Figure:
    """Draw one line a run, one panel a value of `panel`, colour by stage, dashes by batch size; null dotted."""
    names = list(dict.fromkeys(table[panel]))
    figure, axes = panels(1, len(names), width=2.9, height=2.6, sharey=True)
    sizes, stages = sorted(table["batch_size"].unique()), list(dict.fromkeys(table["stage"]))
    for ax, name in zip(axes[0], names, strict=True):
        here = table[table[panel] == name]
        for _, own in here.groupby("run_id", sort=False):
            own = own.sort_values(x)
            style = dashes(int(own["batch_size"].iloc[0]), sizes)
            ax.plot(own[x], own[y], color=colour(own["stage"].iloc[0]), linestyle=style, linewidth=0.9)
        if null:
            level = here.groupby(x)[null].mean()
            ax.plot(level.index, level, color="0.3", linestyle=":", linewidth=0.9)
        if log_x:
            ax.set_xscale("log")
        ax.set(title=str(name), xlabel=xlabel)
    axes[0, 0].set_ylabel(ylabel)
    outside_legend(figure, axes[0, -1], stages, sizes if len(sizes) > 1 else [])
    return figure
