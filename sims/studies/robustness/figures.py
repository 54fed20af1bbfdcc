"""The verdict of every conclusion under every variation, in one figure."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from sims.pages.style import legend_above, panels, styled

# Okabe and Ito: told apart under every common colour blindness, and by the signs written in the cells.
COLOURS = {"stays": "#009E73", "moves": "#D55E00", "cannot tell": "0.85"}


@styled
def robustness_figure(judged: pd.DataFrame) -> Figure:
    """Draw a grid of verdicts (of `robustness.tables.verdicts`): conclusions by variations, the effect written in."""
    conclusions = list(dict.fromkeys(judged["conclusion"]))
    columns = list(dict.fromkeys(zip(judged["group"], judged["variation"], strict=True)))
    figure, axes = panels(1, 1, width=2.6 + 0.52 * (len(columns) + 1), height=1.6 + 0.26 * len(conclusions))
    ax = axes[0, 0]
    first = judged.drop_duplicates("conclusion").set_index("conclusion")
    for y, name in enumerate(conclusions):
        row = first.loc[name]
        ax.text(0, y, _short(row["reference"]), ha="center", va="center", fontsize=6,
                fontweight="bold" if row["reference_sign"] else "normal")  # fmt: skip
    for row in judged.to_dict("records"):
        x, y = 1 + columns.index((row["group"], row["variation"])), conclusions.index(row["conclusion"])
        ax.fill_between([x - 0.46, x + 0.46], y - 0.44, y + 0.44, color=COLOURS[row["verdict"]], linewidth=0)
        ax.text(
            x,
            y,
            _short(row["effect"]),
            ha="center",
            va="center",
            fontsize=6,
            fontweight="bold" if row["sign"] else "normal",
        )
    ax.set_xticks(
        np.arange(len(columns) + 1), ["reference", *(v for _, v in columns)], rotation=60, ha="right"
    )
    ax.set_yticks(range(len(conclusions)), conclusions)
    ax.set(xlim=(-0.6, len(columns) + 0.6), ylim=(len(conclusions) - 0.4, -0.6))
    for side in ("left", "bottom"):
        ax.spines[side].set_visible(False)
    ax.tick_params(length=0)
    handles = [Patch(facecolor=hue, label=name) for name, hue in COLOURS.items()]
    legend_above(figure, handles)
    return figure


def _short(value: float) -> str:
    return f"{value:+.2g}" if abs(value) < 100 else f"{value:+.0f}"
