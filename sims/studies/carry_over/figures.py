"""The toy and language models side by side."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sims.pages.style import colour, in_order, legend_above, outside_legend, panels, styled
from theory import decision

# Okabe and Ito's blue and vermilion.
SIDES = {"toy": ("#0072B2", "o"), "text": ("#D55E00", "s")}
NAMES = {"toy": "toy", "text": "language model"}
COLUMNS = 3


@styled
def answers_figure(table: pd.DataFrame) -> Figure:
    """Draw every question of `carry_over` that has a value, with the values and intervals of both sides."""
    known = table[table[["toy_value", "text_value"]].notna().any(axis=1)]
    questions = list(known["question"].unique())
    tallest = known.groupby("question").size().max()
    rows = math.ceil(len(questions) / COLUMNS)
    figure, axes = panels(rows, COLUMNS, width=3.4, height=0.9 + 0.28 * tallest)
    for ax, question in zip(axes.flat, questions, strict=False):
        _answers(ax, known[known["question"] == question])
    for ax in axes.flat[len(questions) :]:
        ax.set_axis_off()
    handles = [
        axes[0, 0].plot([], [], color=color, marker=marker, linestyle="none", label=NAMES[side])[0]
        for side, (color, marker) in SIDES.items()
    ]
    legend_above(figure, handles)
    return figure


def _answers(ax: Axes, own: pd.DataFrame) -> None:
    for place, r in enumerate(own.to_dict("records")):
        for side, shift in (("toy", -0.14), ("text", 0.14)):
            color, marker = SIDES[side]
            value, low, high = (r[f"{side}_{name}"] for name in ("value", "low", "high"))
            told = decision.side(low, high) != 0
            ax.plot(
                value,
                place + shift,
                marker=marker,
                color=color,
                markersize=4,
                fillstyle="full" if told else "none",
            )
            # An interval that is open on a side ends at the value there.
            ends = [b if math.isfinite(b) else value for b in (low, high)]
            if not math.isnan(low):
                ax.plot(ends, [place + shift] * 2, color=color, linewidth=1)
    ax.axvline(0, color="0.6", linewidth=0.8)
    ax.set(title=own["question"].iloc[0], xlabel=own["unit"].iloc[0])
    ax.set_yticks(range(len(own)), [w or "all" for w in own["what"]])
    ax.set_ylim(len(own) - 0.5, -0.5)


@styled
def spectra_figure(spectra: pd.DataFrame, rankme: pd.DataFrame) -> Figure:
    """Draw final activations on both sides: spectra of the last checkpoint above, RankMe over training below.

    Args:
        spectra: side ("toy" or "text"), run_id, stage, shares (an array).
        rankme: side, run_id, stage, tokens, value.
    """
    figure, axes = panels(2, 2)
    for column, side in enumerate(SIDES):
        upper, lower = axes[:, column]
        last, trained = (t[t["side"] == side] for t in (spectra, rankme))
        stages = in_order([*last["stage"], *trained["stage"]])
        for stage in stages:
            for shares in last.loc[last["stage"] == stage, "shares"]:
                ranks = np.arange(1, len(shares) + 1) / len(shares)
                upper.plot(ranks, shares * len(shares), color=colour(stage), linewidth=0.7)
            for _, own in trained[trained["stage"] == stage].groupby("run_id", sort=False):
                line = {"color": colour(stage), "linewidth": 0.9, "marker": ".", "markersize": 3}
                lower.plot(own["tokens"], own["value"], **line)
        upper.set(
            xscale="log", yscale="log", xlabel="rank / width", title=f"{NAMES[side]}: spectra at the end"
        )
        upper.set_ylim(bottom=1e-5)
        lower.set(xscale="log", xlabel="training tokens", title=f"{NAMES[side]}: RankMe over training")
    axes[0, 0].set_ylabel("share of variance × width")
    axes[1, 0].set_ylabel("RankMe")
    outside_legend(figure, axes[0, 0], in_order([*spectra["stage"], *rankme["stage"]]), [])
    return figure


@styled
def families_figure(rows: pd.DataFrame) -> Figure:
    """Draw H_peak of token families over training, one panel a family, with the 97.5 % level of the null.

    Args:
        rows: of tables: run_id, stage, site, detail (the family), tokens, value, null_high.
    """
    families = list(rows["detail"].unique())
    figure, axes = panels(1, len(families), width=2.6)
    for ax, family in zip(axes[0], families, strict=True):
        own = rows[rows["detail"] == family].sort_values("tokens")
        for (_, site), run in own.groupby(["run_id", "site"], sort=False):
            style = {"linestyle": "solid" if site == "embed" else "dashed", "marker": ".", "markersize": 3}
            million = run["tokens"] / 1e6
            ax.plot(million, run["value"], color=colour(run["stage"].iloc[0]), linewidth=0.9, **style)
            ax.plot(million, run["null_high"], color="0.6", linewidth=0.7, linestyle=":")
        ax.set(xlabel="training tokens (millions)", title=family, ylim=(0, None))
    axes[0, 0].set_ylabel("H_peak")
    handles = [
        axes[0, 0].plot([], [], color="0.3", linestyle=line, label=name)[0]
        for name, line in (("embedding", "solid"), ("head", "dashed"), ("null, 97.5 %", ":"))
    ]
    handles += [axes[0, 0].plot([], [], color=colour(s), label=s)[0] for s in in_order(rows["stage"])]
    legend_above(figure, handles)
    return figure
