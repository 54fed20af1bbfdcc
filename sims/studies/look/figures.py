"""Pictures of one model by layer: each quantity against depth, one colour a kind of matrix, noise in grey."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sims.pages.style import COLOURS, NOISE, panel_grid, panels, styled

COLUMNS = 2
# Okabe and Ito's palette and hues of Tol's that differ from it; kinds beyond these colours share the last.
PALETTE = (*list(COLOURS.values())[:4], "#CC79A7", "#882255", "#56B4E9", "#332288", "#999933", "#666666")


@styled
def by_layer(
    table: pd.DataFrame, names: Mapping[str, str], ticks: Mapping[float, str], columns: int = COLUMNS
) -> Figure:
    """Draw small multiples: a panel for each quantity.

    Hollow marks are flagged fits, bars intervals; the grey line is the mean of noise, its band the range of the draws.

    Args:
        table: name, kind, at (position in depth), value, low, high, null, null_low, null_high, status.
        names: name → title of its panel.
        ticks: position → label, for what lies outside the blocks.
        columns: how many panels stand beside each other.
    """
    order = list(dict.fromkeys(table["kind"]))
    blocks = any(label.isdigit() for label in ticks.values())
    xlabel = "block" if blocks else "in the order of the model"
    figure, axes = panel_grid(len(names), columns, xlabel=xlabel, width=2.9, height=2.1, sharex=True)
    for ax, (name, title) in zip(axes, names.items(), strict=True):
        for kind, part in table[table["name"] == name].groupby("kind", sort=False):
            _noise(ax, part)
            _points(ax, part, PALETTE[min(order.index(kind), len(PALETTE) - 1)], str(kind))
        ax.set_title(title)
    if ticks:
        # Of the shared axis.
        axes[-1].set_xticks(list(ticks), list(ticks.values()))
    handles = {text: h for ax in axes for h, text in zip(*ax.get_legend_handles_labels(), strict=True)}
    handles["noise"] = axes[0].plot([], [], **NOISE)[0]
    axes[0].legend(handles.values(), handles.keys())
    return figure


def _noise(ax: Axes, part: pd.DataFrame) -> None:
    grey = NOISE["color"]
    ax.plot(part["at"], part["null"], color=grey, linewidth=1.2, marker="_", zorder=1)
    ax.fill_between(
        part["at"], part["null_low"], part["null_high"], color=grey, alpha=0.3, linewidth=0, zorder=1
    )
    if part["at"].nunique() == 1:
        # A band of one place has no width.
        ax.vlines(
            part["at"], part["null_low"], part["null_high"], color=grey, alpha=0.3, linewidth=6, zorder=1
        )


def _points(ax: Axes, part: pd.DataFrame, color: str, label: str) -> None:
    ax.plot(part["at"], part["value"], color=color, linewidth=1, zorder=2)
    known = part[part["low"].notna()]
    ax.vlines(known["at"], known["low"], known["high"], color=color, linewidth=0.7, alpha=0.5, zorder=2)
    for flagged, face in ((False, color), (True, "white")):
        own = part[(part["status"] == "flagged") == flagged]
        look = {"markersize": 3, "color": color, "markerfacecolor": face, "markeredgewidth": 0.7}
        ax.plot(own["at"], own["value"], "o", label=label if len(own) else None, zorder=3, **look)


@styled
def against_laws(laws: pd.DataFrame, drafts: pd.DataFrame) -> Figure:
    """Draw divergence by position and share of every eigenfunction, one colour a law, and acceptance of drafts.

    Args:
        laws: quantity, law, random, first, last, function, value, low, high, null; may be empty.
        drafts: detail, value, low, high; may be empty.
    """
    figure, axes = panels(1, 2 * bool(len(laws)) + bool(len(drafts)), width=3.6, height=2.5)
    if len(laws):
        for i, (law, part) in enumerate(laws.groupby("law", sort=False)):
            color = PALETTE[min(i, len(PALETTE) - 1)]
            _divergence(axes[0, 0], part, color, str(law))
            _functions(axes[0, 1], part, color)
        axes[0, 0].set(
            xscale="log", ylim=(0, None), xlabel="position", ylabel="nats", title="KL(law ‖ model)"
        )
        axes[0, 0].xaxis.set_major_formatter("{x:g}")
        axes[0, 1].xaxis.get_major_locator().set_params(integer=True)
        axes[0, 1].set(xlabel="eigenfunction", ylim=(-0.3, 1.05), title="share that states explain")
        axes[0, 0].legend()
    if len(drafts):
        _drafts(axes[0, -1], drafts)
    return figure


def _divergence(ax: Axes, part: pd.DataFrame, color: str, label: str) -> None:
    own = part[(part["quantity"] == "kl_divergence") & part["first"].notna() & part["value"].notna()]
    at = (own["first"] * own["last"]).astype(float) ** 0.5
    ax.plot(at, own["value"], "o-", color=color, markersize=3, linewidth=1.2, label=label)
    ax.vlines(at, own["low"], own["high"], color=color, linewidth=0.8)


def _functions(ax: Axes, part: pd.DataFrame, color: str) -> None:
    own = part[(part["quantity"] == "eigenfunction_share") & part["value"].notna()]
    for random, face in ((True, "white"), (False, color)):
        here = own[own["random"] == random]
        ax.plot(here["function"], here["value"], "o", color=color, markersize=3.5, markerfacecolor=face)
    here = own[~own["random"].astype(bool)]
    ax.vlines(here["function"], here["low"], here["high"], color=color, linewidth=0.8)
    ax.plot(here["function"], here["null"], "_", **{**NOISE, "linestyle": "none"})


def _drafts(ax: Axes, drafts: pd.DataFrame) -> None:
    at = range(len(drafts))
    ax.plot(drafts["value"], at, "o", color=PALETTE[0], markersize=4)
    ax.hlines(at, drafts["low"], drafts["high"], color=PALETTE[0], linewidth=1)
    ax.set_yticks(list(at), [name.replace(" ", "\n") for name in drafts["detail"]])
    ax.set(xlim=(0, 1), ylim=(len(drafts) - 0.5, -0.5), xlabel="chance", title="acceptance of a draft")
