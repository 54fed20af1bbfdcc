"""Figures of a speed-run: loss curves of the records, and the gain of each over the previous one."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sims.pages.style import COLOURS, panels, styled

# Top of the loss axis: losses of the first steps are equal, and three times the others.
HIGHEST = 4.5
# More records are not told apart by a legend, nor transitions by their labels.
MOST_NAMED = 40
TOKENS, THROUGHPUT = COLOURS["baseline"], COLOURS["rope"]


@styled
def records_figure(curves: pd.DataFrame, gains: pd.DataFrame, target: float) -> Figure:
    """Draw validation loss against tokens and against seconds of training, and the gains of transitions.

    Args:
        curves: record, step, tokens, seconds, value (nats).
        gains: of `record_gains`; transitions without a gain are left empty.
        target: drawn as a line, in nats.
    """
    figure, axes = panels(1, 3, width=4.2, height=3.4, width_ratios=[1, 1, 1.6])
    records = sorted(curves["record"].unique())
    shades = plt.get_cmap("viridis")(np.linspace(0, 0.92, len(records)))
    for shade, record in zip(shades, records, strict=True):
        curve = curves[(curves["record"] == record) & (curves["step"] > 0)]  # step 0: not on a log axis
        for ax, x in zip(axes[0], (curve["tokens"] / 1e9, curve["seconds"]), strict=False):
            ax.plot(x, curve["value"], color=shade, linewidth=1.1, label=f"record {record}")
    for ax, label in zip(
        axes[0], ("training tokens (billions, log scale)", "training time (s, log scale)"), strict=False
    ):
        _bound(ax, target)
        ax.set_xlabel(label)
        # Without tokens or times there is no data to scale.
        if np.isfinite(ax.dataLim.minposx):
            ax.set_xscale("log")
    axes[0, 0].set_ylabel("validation loss (nats)")
    if 0 < len(records) <= MOST_NAMED:
        axes[0, 0].legend()
    _gains(axes[0, 2], gains)
    return figure


def _bound(ax: Axes, target: float) -> None:
    """Limit the losses to the range from the target to HIGHEST, unless they are all above it."""
    ax.axhline(target, color="0.3", linewidth=0.9, linestyle=":")
    low, high = ax.dataLim.y0, ax.dataLim.y1
    if low < HIGHEST < high:
        ax.set_ylim(min(low, target) - 0.03, HIGHEST)


def _gains(ax: Axes, gains: pd.DataFrame) -> None:
    place = np.arange(len(gains))
    for shift, name, colour, label in (
        (-0.2, "token_gain", TOKENS, "tokens to the target"),
        (0.2, "throughput_gain", THROUGHPUT, "throughput"),
    ):
        value = gains[name].to_numpy(float)
        around = np.abs(np.stack([value - gains[f"{name}_low"], gains[f"{name}_high"] - value]))
        ax.bar(place + shift, value, 0.4, color=colour, label=label)
        ax.errorbar(place + shift, value, around, fmt="none", ecolor="0.2", elinewidth=0.8)
    ax.axhline(0, color="0.3", linewidth=0.8)
    labels = [f"{a}→{b}" for a, b in zip(gains["before"], gains["after"], strict=True)]
    shown = slice(None, None, -(-len(gains) // MOST_NAMED) or 1)
    ax.set_xticks(place[shown], labels[shown], rotation=90)
    ax.set(ylabel="gain over the record before", xlabel="transition")
    ax.legend()
