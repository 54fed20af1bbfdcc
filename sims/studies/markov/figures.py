"""Pictures of what training does to predictions and states, beside the exact law of the task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from sims.pages.style import (
    NOISE,
    colour,
    in_order,
    legend_above,
    outside_legend,
    panels,
    plain_log,
    seed_band,
    styled,
)

TOKENS = "training tokens (millions)"
# Lower shares, of states that hardly vary and are extrapolated, are not drawn.
LEAST = -0.3
# Leading eigenfunctions are dark.
ORDER = "viridis"


@styled
def glance_figure(looks: pd.DataFrame, aligned: pd.DataFrame, times: pd.DataFrame) -> Figure:
    """Draw the three main pictures: entropy gap, alignment, and the order in which eigenfunctions are learned.

    Args:
        looks: stage, seed, tokens, gap, bound.
        aligned: stage, seed, tokens, value, null, last_token.
        times: stage, position, eigenvalue, time (steps; infinite: never), of the operator of the law.
    """
    stages = in_order(looks["stage"])
    figure, axes = panels(1, 3, width=3.9, height=2.7)
    _gap(axes[0, 0], looks, stages)
    axes[0, 0].set_title("Are the predictions as uncertain as the task?")
    _aligned(axes[0, 1], aligned, stages)
    axes[0, 1].set(title="Do the states hold the law of the next token?", ylabel="share of √p explained")
    _order(axes[0, 2], times, stages)
    axes[0, 2].set_title("Are large eigenvalues learned first?")
    outside_legend(figure, axes[0, 0], stages, [])
    return figure


@styled
def entropy_figure(looks: pd.DataFrame, close: float, apart: float) -> Figure:
    """Draw the gap of entropies with its bound, and its ratio to the excess loss.

    Args:
        looks: stage, seed, tokens, kl, gap, bound, ratio.
        close: excess loss (nats) below which the ratio is not asked about.
        apart: how far from 1 it is predicted to stay.
    """
    stages = in_order(looks["stage"])
    figure, axes = panels(1, 2)
    _gap(axes[0, 0], looks, stages)
    ax = axes[0, 1]
    ax.axhspan(1 - apart, 1 + apart, color=NOISE["color"], alpha=0.25, linewidth=0)
    ax.axvline(close, color="0.45", linestyle="dashed", linewidth=1.0)
    for stage in stages:
        for _, own in looks[looks["stage"] == stage].groupby("seed"):
            ax.plot(own["kl"], own["ratio"], color=colour(stage), linewidth=0.9, marker="o", markersize=2)
    plain_log(ax, "x")
    ax.invert_xaxis()
    ax.set(xlabel="excess loss (nats), falling to the right", ylabel="gap / excess loss")
    outside_legend(figure, axes[0, 0], stages, [])
    return figure


@styled
def alignment_figure(rows: pd.DataFrame) -> Figure:
    """Draw the share of √p that states explain over tokens, one panel a position, with its nulls.

    Args:
        rows: stage, seed, tokens, position, value, null, last_token.
    """
    positions, stages = sorted(rows["position"].unique()), in_order(rows["stage"])
    figure, axes = panels(1, len(positions), width=2.3, sharey=True)
    for ax, position in zip(axes[0], positions, strict=True):
        _aligned(ax, rows[rows["position"] == position], stages)
        ax.set_title(f"{position} tokens read")
    axes[0, 0].set_ylabel("share of √p explained")
    outside_legend(figure, axes[0, -1], stages, [])
    return figure


@styled
def order_figure(rows: pd.DataFrame, operators: Sequence[str]) -> Figure:
    """Draw the share of each eigenfunction over training: a row of panels an operator, a column a position.

    Args:
        rows: operator, position, index, tokens, share: means over the seeds of one stage.
        operators: in the order of the rows.
    """
    positions, most = sorted(rows["position"].unique()), int(rows["index"].max())
    hues = colormaps[ORDER]
    figure, axes = panels(len(operators), len(positions), width=2.2, height=1.7, sharex=True, sharey=True)
    for line, operator in zip(axes, operators, strict=True):
        for ax, position in zip(line, positions, strict=True):
            here = rows[(rows["operator"] == operator) & (rows["position"] == position)]
            for index, own in here.groupby("index"):
                ax.plot(own["tokens"] / 1e6, own["share"], color=hues((index - 1) / most), linewidth=1.0)
            ax.axhline(0.5, color="0.45", linestyle="dashed", linewidth=0.8)
            ax.set_title(f"{operator}, {position} read")
        line[0].set_ylabel("share explained")
    for ax in axes[-1]:
        ax.set_xlabel("tokens (millions)")
    axes[0, 0].set_ylim(LEAST, 1.02)
    scale = ScalarMappable(Normalize(1, most), colormaps[ORDER])
    figure.colorbar(scale, ax=axes, label="rank of the eigenvalue (1: largest)", fraction=0.02)
    return figure


@styled
def surplus_figure(rows: pd.DataFrame) -> Figure:
    """Draw the surplus of every run before and after training, one panel a probe.

    Args:
        rows: stage, seed, probe, step, share; the first step of a run is the untrained model.
    """
    probes, stages = list(dict.fromkeys(rows["probe"])), in_order(rows["stage"])
    figure, axes = panels(1, len(probes), sharey=True)
    for ax, probe in zip(axes[0], probes, strict=True):
        for place, stage in enumerate(stages):
            own = rows[(rows["probe"] == probe) & (rows["stage"] == stage)]
            wide = own.sort_values("step").groupby("seed")["share"].agg(["first", "last"])
            for x, name, face in ((place - 0.12, "first", "white"), (place + 0.12, "last", colour(stage))):
                ax.plot(
                    [x] * len(wide), wide[name], "o", color=colour(stage), markerfacecolor=face, markersize=4
                )
        ax.axhline(0, **NOISE)
        ax.set_xticks(range(len(stages)), stages)
        ax.set_title(f"{probe} probe")
    axes[0, 0].set_ylabel("share of what the past tells")
    return figure


@styled
def position_figure(rows: pd.DataFrame) -> Figure:
    """Draw the excess loss over training at some positions, one panel a stage.

    Args:
        rows: stage, tokens, position, kl: means over seeds.
    """
    stages, positions = in_order(rows["stage"]), sorted(rows["position"].unique())
    hues = colormaps[ORDER]
    figure, axes = panels(1, len(stages), width=2.6, sharey=True)
    for ax, stage in zip(axes[0], stages, strict=True):
        for i, position in enumerate(positions):
            own = rows[(rows["stage"] == stage) & (rows["position"] == position)]
            hue = hues(i / max(len(positions) - 1, 1))
            ax.plot(own["tokens"] / 1e6, own["kl"], color=hue, label=f"{position} read")
        plain_log(ax, "y")
        ax.set(title=stage, xlabel="tokens (millions)")
    axes[0, 0].set_ylabel("excess loss (nats, log scale)")
    legend_above(figure, axes[0, 0].get_legend_handles_labels()[0])
    return figure


def _gap(ax: Axes, looks: pd.DataFrame, stages: Sequence[str]) -> None:
    looks = looks.assign(million=looks["tokens"] / 1e6)
    for stage in stages:
        own = looks[looks["stage"] == stage]
        seed_band(ax, own.assign(value=own["gap"]), "million", color=colour(stage), linestyle="solid")
        bound = own.groupby("million")["bound"].mean()
        ax.plot(bound.index, bound, color=colour(stage), linestyle="dotted", linewidth=1.2)
    plain_log(ax, "y")
    ax.set(xlabel=TOKENS, ylabel="gap of entropies (nats)")


def _aligned(ax: Axes, rows: pd.DataFrame, stages: Sequence[str]) -> None:
    rows = rows.assign(million=rows["tokens"] / 1e6)
    for stage in stages:
        seed_band(ax, rows[rows["stage"] == stage], "million", color=colour(stage), linestyle="solid")
    alone: Any = {"color": "0.3", "linestyle": "dashdot"}
    for name, style in (("null", NOISE), ("last_token", alone)):
        mean = rows.groupby("million")[name].median()
        ax.plot(mean.index, mean, **style)
    ax.set_xlabel(TOKENS)
    ax.set_ylim(LEAST, max(1.1 * rows["value"].max(), 0.5))


def _order(ax: Axes, times: pd.DataFrame, stages: Sequence[str]) -> None:
    """Draw steps to R² = ½ against eigenvalues; what is never learned lies above the line at the top."""
    learned = times[np.isfinite(times["time"])]
    top = 1.25 * max(learned["time"].max(), 1.0) if len(learned) else 1.0
    for i, stage in enumerate(stages):
        own = times[times["stage"] == stage]
        # Stages that never learn one lie beside each other.
        y = own["time"].where(np.isfinite(own["time"]), top * (1 + 0.06 * i))
        ax.plot(own["eigenvalue"], y, "o", markersize=2.5, color=colour(stage), alpha=0.6, rasterized=True)
    ax.axhline(top * 0.95, color="0.45", linestyle="dashed", linewidth=0.8)
    middle = top * (1 + 0.03 * (len(stages) - 1))
    steps = [tick for tick in ax.get_yticks() if 0 <= tick < 0.95 * top]
    ax.set_yticks([*steps, middle], [*(f"{tick:g}" for tick in steps), "never"])
    plain_log(ax, "x")
    ax.set(xlabel="eigenvalue of the eigenfunction", ylabel="step at which R² reaches ½")
