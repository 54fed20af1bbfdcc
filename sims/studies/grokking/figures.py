"""Pictures of runs that generalise late, of those that only memorise, and of what tells them apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sims.pages.style import NOISE, lines_of, many_lines, markers, panel_grid, panels, styled

# Okabe and Ito's palette; black is that of runs that are meant to generalise.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9")
MAIN = "black"
OFFSETS = 0.16


def colours(controls: Sequence[str]) -> dict[str, str]:
    """Return a colour for each type of control."""
    return {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(controls)}


@styled
def glance_figure(
    looks: pd.DataFrame,
    rocs: pd.DataFrame,
    sounded: pd.DataFrame,
    titles: Mapping[str, str],
    grok: str,
    bound: float,
) -> Figure:
    """Draw the three main pictures: test accuracy, areas under the curve, and how often the published alarm goes off.

    Args:
        looks: run, kind, step, test.
        rocs: signal, control, auc_others, others_low, others_high, of one time.
        sounded: kind, defect (the arithmetic), share, share_low, share_high; empty where there is none.
        titles: of the signals, in their order from the top.
        grok: the kind of the runs that grok.
        bound: of the area, which the rule asks for.
    """
    kinds = [k for k in dict.fromkeys(rocs["control"]) if k != "all"]
    hues = colours(kinds)
    figure, axes = panels(1, 3, width=3.5, height=0.28 * len(titles) + 0.8)
    _accuracies(axes[0, 0], looks, {grok: MAIN, **hues})
    axes[0, 0].set_title("Which runs generalise?")
    _areas(axes[0, 1], rocs, titles, hues, bound)
    axes[0, 1].set_title("Does a signal tell them apart in time?")
    _sounded(axes[0, 2], sounded, [grok, *hues])
    axes[0, 2].set_title("When does the published alarm go off?")
    axes[0, 0].legend()
    return figure


@styled
def accuracy_figure(looks: pd.DataFrame, kinds: Sequence[str]) -> Figure:
    """Draw accuracies on training and test sequences, a panel for each kind of run.

    Args:
        looks: run, kind, step, train, test.
        kinds: in the order of the panels.
    """
    figure, axes = panels(1, len(kinds), width=2.4, height=2.1, sharey=True)
    for ax, kind in zip(axes[0], kinds, strict=True):
        own = looks[looks["kind"] == kind]
        for name, style in (("train", {"color": "0.6"}), ("test", {"color": COLOURS[0]})):
            many_lines(ax, lines_of(own, "run", "step", name), linewidth=0.8, **style)
            ax.plot([], [], label="training" if name == "train" else "test", **style)
        ax.set(title=kind, xlabel="step", ylim=(-0.03, 1.03))
        ax.set_xscale("symlog", linthresh=100)
        ax.set_xlim(0, looks["step"].max())
    axes[0, 0].set_ylabel("accuracy")
    axes[0, 0].legend()
    return figure


@styled
def area_figure(rocs: pd.DataFrame, titles: Mapping[str, str], bound: float) -> Figure:
    """Draw the area under the curve of every signal, a panel for each time after memorisation.

    Args:
        rocs: time, signal, control, auc_others, others_low, others_high.
        titles: of the signals, in their order from the top.
        bound: of the area, which the rule asks for.
    """
    times = list(dict.fromkeys(rocs["time"]))
    hues = colours([k for k in dict.fromkeys(rocs["control"]) if k != "all"])
    figure, axes = panels(1, len(times), width=3.5, height=0.32 * len(titles) + 0.8)
    for ax, time in zip(axes[0], times, strict=True):
        _areas(ax, rocs[rocs["time"] == time], titles, hues, bound)
        ax.set_title("at memorisation" if time == 0 else f"{time:g} steps after memorisation")
    _kinds_legend(axes[0, 0], hues)
    return figure


@styled
def signal_figure(looks: pd.DataFrame, titles: Mapping[str, str], logs: Sequence[str], grok: str) -> Figure:
    """Draw the median of every signal over training, one line for each kind of run, with the range of the middle half.

    Args:
        looks: run, kind, step, and a column for each signal.
        titles: of the signals.
        logs: signals with a logarithmic axis.
        grok: the kind of the runs that grok.
    """
    figure, axes = panel_grid(len(titles), xlabel="step", width=3.0, height=2.0)
    kinds = sorted(set(looks["kind"]), key=lambda k: (k != grok, k))
    hues = {grok: MAIN} | colours([k for k in kinds if k != grok])
    for ax, (name, title) in zip(axes, titles.items(), strict=True):
        for kind in kinds:
            over = looks[looks["kind"] == kind].groupby("step")[name]
            middle = over.median().dropna()
            low, high = (over.quantile(q).reindex(middle.index) for q in (0.25, 0.75))
            ax.plot(middle.index, middle, color=hues[kind], linewidth=1.3, label=kind)
            ax.fill_between(middle.index, low, high, color=hues[kind], alpha=0.12, linewidth=0)
        ax.set(title=title, yscale="log" if name in logs else "linear")
    axes[0].legend()
    return figure


@styled
def lead_figure(times: pd.DataFrame, laws: Mapping[str, tuple[float, float, float]]) -> Figure:
    """Draw leads of an alarm against the time of grokking, with the fitted law and two laws without content.

    Args:
        times: defect (the arithmetic), t_90, t_mem and lead of the runs that grok.
        laws: c, b and the constant of the fits, a panel for each arithmetic; NaN where there is none.
    """
    figure, axes = panels(1, len(laws), width=4.0, height=2.8)
    for ax, (name, (c, b, constant)) in zip(axes[0], laws.items(), strict=True):
        own = times[times["defect"] == name]
        markers(ax, own["t_90"], own["lead"], color=COLOURS[0], markersize=4, label="runs")
        markers(ax, own["t_90"], own["t_90"] - own["t_mem"], color="0.7", markersize=3, label="T − t_mem")
        if np.isfinite(c):
            grid = np.linspace(own["t_90"].min(), own["t_90"].max(), 100)
            ax.plot(grid, c * grid**b, color=COLOURS[0], linewidth=1.2, label="c·T^b")
            ax.plot(grid, grid - constant, color=COLOURS[1], linestyle="dashed", label="T − const")
        ax.set(title=f"defect: {name}", xlabel="T: step of test accuracy 0.9", ylabel="lead (steps)")
        ax.legend()
    return figure


def _accuracies(ax: Axes, looks: pd.DataFrame, hues: Mapping[str, str]) -> None:
    for kind, color in hues.items():
        own = looks[looks["kind"] == kind]
        if len(own):
            many_lines(ax, lines_of(own, "run", "step", "test"), color=color, linewidth=0.8)
        ax.plot([], [], color=color, label=kind)
    ax.set(xlabel="step", ylabel="test accuracy", ylim=(-0.03, 1.03))


def _areas(
    ax: Axes, rocs: pd.DataFrame, titles: Mapping[str, str], hues: Mapping[str, str], bound: float
) -> None:
    """Draw one row a signal and one point a type of control, with intervals."""
    places = {name: -i for i, name in enumerate(titles)}
    for j, (kind, color) in enumerate(hues.items()):
        own = rocs[(rocs["control"] == kind) & rocs["signal"].isin(titles) & rocs["auc_others"].notna()]
        y = own["signal"].map(places).astype(float) + OFFSETS * ((len(hues) - 1) / 2 - j)
        ax.hlines(y, own["others_low"], own["others_high"], color=color, linewidth=1.0)
        ax.plot(own["auc_others"], y, "o", color=color, markersize=3)
    ax.axvline(0.5, **NOISE)
    ax.axvline(bound, color="0.45", linestyle="dashed", linewidth=1.0)
    ax.set(xlim=(-0.03, 1.06), xticks=(0, 0.5, 1), xlabel="area under the curve (left out runs)")
    _name_rows(ax, titles)


def _sounded(ax: Axes, sounded: pd.DataFrame, kinds: Sequence[str]) -> None:
    """Draw one row a kind of run, and a point for each arithmetic of the defect."""
    places = {name: -i for i, name in enumerate(kinds)}
    for j, (name, own) in enumerate(sounded.groupby("defect", sort=False) if len(sounded) else ()):
        own = own[own["kind"].isin(kinds) & (own["status"] == "ok")]
        y = own["kind"].map(places).astype(float) + OFFSETS * (0.5 - j)
        color = ("0.55", COLOURS[4])[j % 2]
        ax.hlines(y, own["share_low"], own["share_high"], linewidth=1.0, color=color)
        ax.plot(own["share"], y, "s", markersize=4, label=f"alarm: {name}", color=color)
    ax.set(xlim=(-0.03, 1.06), xticks=(0, 0.5, 1), xlabel="share of runs with an alarm")
    _name_rows(ax, {name: name for name in kinds}, "kind of run")
    if len(sounded):
        ax.legend()


def _name_rows(ax: Axes, titles: Mapping[str, str], what: str = "signal") -> None:
    ax.set_ylabel(what)
    ax.set_yticks([-i for i in range(len(titles))], list(titles.values()))
    ax.set_ylim(-len(titles) + 0.4, 0.6)
    for i in range(1, len(titles)):
        ax.axhline(0.5 - i, color="0.92", linewidth=0.6, zorder=0)


def _kinds_legend(ax: Axes, hues: Mapping[str, str]) -> None:
    for kind, color in hues.items():
        ax.plot([], [], "o", color=color, markersize=3, label=kind)
    ax.legend()
