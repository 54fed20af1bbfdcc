"""Pictures of spectra of weights over training and depth."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from sims.pages.style import NOISE, legend_above, panel_grid, panels, plain_log, seed_band, styled

STEP, BLOCK = "training step", "block (0 is the first)"
RAMP = "viridis"
# Okabe and Ito's palette, and two of Tol's.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#000000", "#999933", "#882255")
# Steps are drawn on a logarithmic axis; the look before training stands at its left end.
FIRST = 0.7


def depth_colours(layers: Iterable[int]) -> dict[int, Any]:
    """Return a colour of the ramp for each number of layers."""
    known = sorted(set(layers))
    return {n: mpl.colormaps[RAMP](0.9 * i / max(1, len(known) - 1)) for i, n in enumerate(known)}


def palette(names: Sequence[str]) -> dict[str, str]:
    """Return a colour for each of some names."""
    return {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(names)}


@styled
def film_figure(film: pd.DataFrame) -> Figure:
    """Draw the stable rank of every matrix over training and depth, a panel a type.

    Args:
        film: type, block, step, value (mean over seeds).
    """
    types = list(dict.fromkeys(film["type"]))
    figure, axes = panel_grid(len(types), xlabel=STEP, ylabel=BLOCK, height=2.1, sharey=True)
    low, high = film["value"].min(), film["value"].max()
    norm = LogNorm(low, high)
    for ax, name in zip(axes, types, strict=True):
        wide = film[film["type"] == name].pivot(index="block", columns="step", values="value")
        steps = np.maximum(wide.columns.to_numpy(float), FIRST)
        edges = np.sqrt(steps[1:] * steps[:-1])
        x = np.concatenate([[steps[0] ** 2 / edges[0]], edges, [steps[-1]]])
        y = np.arange(len(wide) + 1) - 0.5
        ax.pcolormesh(x, y, wide.to_numpy(), norm=norm, cmap=RAMP, rasterized=True)
        ax.set(xscale="log", title=name)
        ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    # A scale of colours would keep the panels together on a narrow screen.
    marks = [m * 10.0**k for k in range(-1, 5) for m in (1, 2, 5)]
    inside = [m for m in marks if low <= m <= high] or [float(film["value"].median())]
    legend_above(
        figure, [Patch(color=mpl.colormaps[RAMP](norm(m)), label=f"stable rank {m:g}") for m in inside]
    )
    return figure


@styled
def front_figure(times: pd.DataFrame) -> Figure:
    """Draw when each layer has half of its largest compression, a panel a cell.

    Args:
        times: cell, type, block, seed, step, resolved.
    """
    cells = list(dict.fromkeys(times["cell"]))
    colours = palette(list(dict.fromkeys(times["type"])))
    figure, axes = panel_grid(len(cells), ylabel="step of the front", height=2.3, sharey=True)
    for ax, cell in zip(axes, cells, strict=True):
        own = times[times["cell"] == cell]
        for (name, resolved), part in own.groupby(["type", "resolved"], sort=False):
            mean = part.groupby("block")["step"].mean()
            style = "solid" if resolved else "dotted"
            ax.plot(mean.index, mean, color=colours[name], linestyle=style, linewidth=1.4)
            ax.plot(part["block"], part["step"], ".", color=colours[name], markersize=3)
        ax.set(title=cell, xlabel=BLOCK)
        plain_log(ax, "y")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    handles = [Line2D([], [], color=c, label=name) for name, c in colours.items()]
    legend_above(
        figure, [*handles, Line2D([], [], color="0.4", linestyle="dotted", label="looks do not resolve it")]
    )
    return figure


@styled
def gradient_figure(slopes: pd.DataFrame) -> Figure:
    """Draw the slope of ln stable rank over depth during training, a panel a type.

    Args:
        slopes: timing, type, seed, step, value.
    """
    types = list(dict.fromkeys(slopes["type"]))
    colours = palette(list(dict.fromkeys(slopes["timing"])))
    figure, axes = panel_grid(len(types), ylabel="γ: slope of ln stable rank", height=2.2, sharey=True)
    for ax, name in zip(axes, types, strict=True):
        ax.axhline(0, **NOISE)
        for timing, own in slopes[slopes["type"] == name].groupby("timing", sort=False):
            seed_band(ax, own, "step", color=colours[str(timing)], linestyle="solid")
        ax.set(title=name, xlabel=STEP, xscale="symlog")
        ax.set_xscale("symlog", linthresh=10)
    legend_above(figure, [Line2D([], [], color=c, label=name) for name, c in colours.items()])
    return figure


@styled
def profile_figure(profiles: pd.DataFrame, titles: Mapping[str, str]) -> Figure:
    """Draw exponents of layers at the end over relative depth, a panel an exponent, a colour a number of layers.

    Args:
        profiles: exponent, layers, seed, x (0 in the first block, 1 in the last), value.
        titles: of the exponents.
    """
    names = list(dict.fromkeys(profiles["exponent"]))
    colours = depth_colours(profiles["layers"])
    figure, axes = panels(1, len(names), width=3.0, height=2.3)
    for ax, name in zip(axes[0], names, strict=True):
        ax.axhline(0, **NOISE)
        for layers, own in profiles[profiles["exponent"] == name].groupby("layers"):
            seed_band(ax, own, "x", color=colours[int(str(layers))], linestyle="solid")
        ax.set(title=titles[name], xlabel="depth of the block")
    axes[0, 0].set_ylabel("ᾱ, standardised within types")
    legend_above(figure, [Line2D([], [], color=c, label=f"L = {n}") for n, c in colours.items()])
    return figure


@styled
def spread_figure(spreads: pd.DataFrame) -> Figure:
    """Draw the standard deviation over layers during training, a panel for matrices and one for products.

    Args:
        spreads: of (panel title), type, seed, step, value.
    """
    kinds = list(dict.fromkeys(spreads["of"]))
    colours = palette(list(dict.fromkeys(spreads["type"])))
    figure, axes = panels(1, len(kinds), width=4.0, height=2.5, sharey=True)
    for ax, kind in zip(axes[0], kinds, strict=True):
        for name, own in spreads[spreads["of"] == kind].groupby("type", sort=False):
            seed_band(ax, own, "step", color=colours[str(name)], linestyle="solid")
        ax.set(title=kind, xlabel=STEP)
        ax.set_xscale("symlog", linthresh=10)
    axes[0, 0].set_ylabel("sd over layers of ln stable rank")
    legend_above(figure, [Line2D([], [], color=c, label=name) for name, c in colours.items()])
    return figure


@styled
def scaling_figure(spreads: pd.DataFrame, chance: pd.DataFrame) -> Figure:
    """Draw spreads over layers against the number of layers, a panel a measure.

    Args:
        spreads: measure, line, layers, value.
        chance: measure, line, layers, value: what independent values of the same sd have.
    """
    measures = list(dict.fromkeys(spreads["measure"]))
    colours = palette(list(dict.fromkeys(spreads["line"])))
    figure, axes = panels(1, len(measures), width=3.6, height=2.5)
    for ax, measure in zip(axes[0], measures, strict=True):
        for line, own in spreads[spreads["measure"] == measure].groupby("line", sort=False):
            ax.plot(own["layers"], own["value"], "o-", color=colours[str(line)], markersize=3)
        for _, own in chance[chance["measure"] == measure].groupby("line", sort=False):
            ax.plot(own["layers"], own["value"], **NOISE)
        ax.set(title=measure, xlabel="number of blocks L")
        plain_log(ax, "both")
    axes[0, 0].set_ylabel("spread over layers")
    handles = [Line2D([], [], color=c, label=name) for name, c in colours.items()]
    legend_above(figure, [*handles, Line2D([], [], **NOISE, label="independent values")])
    return figure


@styled
def importance_figure(blocks: pd.DataFrame) -> Figure:
    """Draw what the loss rises by without one block against the exponent of the block, a panel a cell.

    Args:
        blocks: cell, seed, block, alpha, importance (nats), end (whether the block is the first or the last).
    """
    cells = list(dict.fromkeys(blocks["cell"]))
    figure, axes = panel_grid(len(cells), ylabel="loss without it (nats)", height=2.3, sharey=True)
    for ax, cell in zip(axes, cells, strict=True):
        own = blocks[blocks["cell"] == cell]
        for end, part in own.groupby("end"):
            fill = "none" if end else COLOURS[0]
            ax.plot(
                part["alpha"], part["importance"], "o", color=COLOURS[0], markerfacecolor=fill, markersize=4
            )
        ax.set(title=cell, xlabel="ᾱ of the block")
        plain_log(ax, "y")
    handles = [
        Line2D([], [], color=COLOURS[0], marker="o", linestyle="", label="interior block"),
        Line2D(
            [], [], color=COLOURS[0], marker="o", markerfacecolor="none", linestyle="", label="first or last"
        ),
    ]
    legend_above(figure, handles)
    return figure


@styled
def removal_figure(costs: pd.DataFrame, sets: pd.DataFrame, rules: Mapping[str, str]) -> Figure:
    """Draw what the loss rises by without N blocks, by the rule that chose them, beside all sets of interior blocks.

    Args:
        costs: cell, rule, n, value (nats; mean over seeds).
        sets: cell, n, low, high (5 % and 95 % of all sets), middle.
        rules: titles of the rules.
    """
    cells = list(dict.fromkeys(costs["cell"]))
    colours = palette(list(rules))
    figure, axes = panel_grid(len(cells), ylabel="rise of the loss (nats)", height=2.5)
    for ax, cell in zip(axes, cells, strict=True):
        band = sets[sets["cell"] == cell]
        ax.fill_between(band["n"], band["low"], band["high"], color=NOISE["color"], alpha=0.3, linewidth=0)
        ax.plot(band["n"], band["middle"], **NOISE)
        for rule, own in costs[costs["cell"] == cell].groupby("rule", sort=False):
            ax.plot(own["n"], own["value"], "o-", color=colours[str(rule)], markersize=3, linewidth=1.2)
        ax.set(title=cell, xlabel="blocks removed")
        plain_log(ax, "y")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    handles = [Line2D([], [], color=colours[name], label=title) for name, title in rules.items()]
    legend_above(figure, [*handles, Line2D([], [], **NOISE, label="all sets of interior blocks")])
    return figure


@styled
def timescale_figure(points: pd.DataFrame, fits: pd.DataFrame) -> Figure:
    """Draw ln stable rank over learning-rate time with the fitted models, a panel a type, a colour a layer.

    Args:
        points: type, block, clock, value.
        fits: type, block, clock, value, model ("one" or "two" timescales).
    """
    types = list(dict.fromkeys(points["type"]))
    colours = depth_colours(points["block"])
    figure, axes = panels(1, len(types), width=3.3, height=2.4)
    for ax, name in zip(axes[0], types, strict=True):
        for block, own in points[points["type"] == name].groupby("block"):
            ax.plot(own["clock"], own["value"], ".", color=colours[int(str(block))], markersize=2)
        for (block, model), own in fits[fits["type"] == name].groupby(["block", "model"]):
            _fit(ax, own, colours[block], model)
        ax.set(title=name, xlabel="Σ learning rate")
    axes[0, 0].set_ylabel("ln stable rank")
    handles = [Line2D([], [], color="0.3", linestyle=s, label=f"{m} timescale" + "s" * (m == "two"))
               for m, s in MODELS.items()]  # fmt: skip
    legend_above(
        figure, [*(Line2D([], [], color=c, label=f"block {n}") for n, c in colours.items()), *handles]
    )
    return figure


MODELS: Mapping[str, Any] = {"one": "dotted", "two": "solid"}


def _fit(ax: Axes, own: pd.DataFrame, color: Any, model: str) -> None:
    ax.plot(own["clock"], own["value"], color=color, linestyle=MODELS[model], linewidth=1.0)
