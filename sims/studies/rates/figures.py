"""Pictures of losses by arm and base rate, and of multipliers over training."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from sims.pages.style import NOISE, legend_above, panel_grid, panels, plain_log, styled

# Okabe and Ito's palette.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#000000")
MEAN, DRAW = "#0072B2", "#D55E00"
TYPES = {"attn.q": "q", "attn.k": "k", "attn.v": "v", "attn.o": "o", "mlp.gate": "gate", "mlp.fc": "up"} | {
    "mlp.proj": "down"
}


@styled
def delta_figure(summary: pd.DataFrame, draws: pd.DataFrame) -> Figure:
    """Draw the difference of the loss of every arm to one rate, a panel a cell, and every shuffle as a dot.

    Args:
        summary: cell, arm, delta, low, high.
        draws: cell, arm, draw, delta.
    """
    cells = list(dict.fromkeys(summary["cell"]))
    names = list(dict.fromkeys([*summary["arm"], *draws["arm"]]))
    figure, axes = panels(1, len(cells), height=0.9 + 0.3 * len(names), sharey=True)
    for ax, cell in zip(axes[0], cells, strict=True):
        ax.axvline(0, **NOISE)
        own = summary[summary["cell"] == cell]
        y = np.array([names.index(name) for name in own["arm"]])
        ax.hlines(y, own["low"], own["high"], color=MEAN, linewidth=1.6)
        ax.plot(own["delta"], y, "o", color=MEAN, markersize=4)
        shuffled = draws[draws["cell"] == cell]
        ax.plot(
            shuffled["delta"],
            [names.index(n) for n in shuffled["arm"]],
            "o",
            color=DRAW,
            markersize=3,
            alpha=0.6,
        )
        ax.set(title=cell, xlabel="Δ loss to one rate (nats)")
        ax.set_yticks(range(len(names)), names)
    axes[0, 0].set_ylim(len(names) - 0.4, -0.6)
    legend_above(
        figure,
        [
            Line2D([], [], color=MEAN, marker="o", markersize=4, label="mean, 95 % interval"),
            Line2D([], [], color=DRAW, marker="o", markersize=3, linestyle="", label="each shuffle"),
        ],
    )
    return figure


@styled
def rate_figure(losses: pd.DataFrame) -> Figure:
    """Draw the loss over the base rate for every arm, a panel a cell; shuffles in grey.

    Args:
        losses: cell, arm, draw, lr, loss (means over seeds), shuffle (whether it is one).
    """
    cells = list(dict.fromkeys(losses["cell"]))
    names = list(dict.fromkeys(losses.loc[~losses["shuffle"], "arm"]))
    figure, axes = panels(1, len(cells), height=2.8)
    for ax, cell in zip(axes[0], cells, strict=True):
        own = losses[(losses["cell"] == cell) & np.isfinite(losses["loss"])]
        for _, line in own[own["shuffle"]].groupby(["arm", "draw"], sort=False):
            ax.plot(line["lr"], line["loss"], color="0.75", marker=".", markersize=3, linewidth=0.8)
        for name, line in own[~own["shuffle"]].groupby("arm", sort=False):
            colour = COLOURS[names.index(str(name)) % len(COLOURS)]
            ax.plot(line["lr"], line["loss"], color=colour, marker="o", markersize=3, linewidth=1.4)
        ax.set(title=cell, xlabel="base learning rate", ylabel="validation loss (nats)")
        plain_log(ax, "x")
        rates = sorted(own["lr"].unique())
        ax.set_xticks(rates, [f"{rate:.3g}" for rate in rates])
    handles = [
        Line2D([], [], color=COLOURS[i % len(COLOURS)], marker="o", markersize=3, label=name)
        for i, name in enumerate(names)
    ]
    if losses["shuffle"].any():
        handles.append(Line2D([], [], color="0.75", marker=".", label="shuffles"))
    legend_above(figure, handles)
    return figure


@styled
def multiplier_figure(multipliers: pd.DataFrame, arms: Sequence[tuple[str, str]]) -> Figure:
    """Draw the multiplier of every matrix over training, a panel a cell and arm, a colour a type of matrix.

    Args:
        multipliers: cell, arm, step, matrix, multiplier.
        arms: cells and arms, in the order of the panels.
    """
    figure, axes = panel_grid(len(arms), 2, height=2.6, sharey=True)
    kinds = multipliers["matrix"].str.replace(r"^blocks\.\d+\.", "", regex=True)
    there = list(dict.fromkeys(kinds))
    for ax, (cell, arm) in zip(axes, arms, strict=True):
        own = multipliers[(multipliers["cell"] == cell) & (multipliers["arm"] == arm)]
        ax.axhline(1, **NOISE)
        for name, line in own.groupby("matrix", sort=False):
            kind = str(name).split(".", 2)[-1]
            ax.plot(
                line["step"],
                line["multiplier"],
                color=COLOURS[there.index(kind) % len(COLOURS)],
                linewidth=0.9,
            )
        ax.set(title=f"{cell}, {arm}", xlabel="step", ylabel="multiplier")
    handles = [
        Line2D([], [], color=COLOURS[i % len(COLOURS)], label=TYPES.get(kind, kind))
        for i, kind in enumerate(there)
    ]
    legend_above(figure, handles)
    return figure


@styled
def spread_figure(spreads: pd.DataFrame, noise: pd.DataFrame) -> Figure:
    """Draw the spread of exponents over matrices at the end, a panel a cell and exponent; points are seeds.

    Args:
        spreads: cell, arm, quantity, seed, sd, of the last checkpoint.
        noise: cell, quantity, mean, low, high: of Gaussian matrices.
    """
    keys = [(row["cell"], row["quantity"]) for row in noise.to_dict("records")]
    names = list(dict.fromkeys(spreads["arm"]))
    figure, axes = panel_grid(len(keys), 2, height=0.9 + 0.28 * len(names), sharey=True)
    for ax, (cell, quantity) in zip(axes, keys, strict=True):
        level = noise[(noise["cell"] == cell) & (noise["quantity"] == quantity)].iloc[0]
        ax.axvspan(float(level["low"]), float(level["high"]), color="0.88")
        ax.axvline(float(level["mean"]), **NOISE)
        own = spreads[(spreads["cell"] == cell) & (spreads["quantity"] == quantity)]
        ax.plot(own["sd"], [names.index(n) for n in own["arm"]], ".", color="0.55", markersize=4)
        means = own.groupby("arm", sort=False)["sd"].mean()
        ax.plot(means, [names.index(str(n)) for n in means.index], "o", color=MEAN, markersize=4)
        ax.set(title=f"{cell}, {quantity}", xlabel="sd over matrices")
        ax.set_yticks(range(len(names)), names)
    axes[0].set_ylim(len(names) - 0.4, -0.6)
    legend_above(
        figure,
        [
            Line2D([], [], color=MEAN, marker="o", markersize=4, linestyle="", label="mean over seeds"),
            Line2D([], [], color="0.55", marker=".", linestyle="", label="each seed"),
            Line2D([], [], label="Gaussian matrices", **NOISE),
        ],
    )
    return figure
