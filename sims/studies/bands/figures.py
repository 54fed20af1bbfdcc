"""Fourier concentration on many bands: over training, along the sequence, band by band, and what a plan costs."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from sims.pages.style import colour, in_order, outside_legend, panels, styled

LABELS = {"H_S": "H_S (task) above null", "H_peak": "H_peak above null"}
PLACES = [
    (regime, kind, f"{regime} data, bands {kind} training")
    for regime in ("clean", "mixed")
    for kind in ("inside", "outside")
]
# Hues of Okabe and Ito that no stage has: these are sources of spread.
SOURCE_COLOURS = {"seed": "#56B4E9", "band": "#CC79A7", "seed x band": "#F0E442", "probe sample": "0.7"}


@styled
def training_figure(summary: pd.DataFrame) -> Figure:
    """Draw concentration at the last position over training, mean over bands.

    Args:
        summary: of `sims.studies.bands.tables.summary`.
    """
    last = summary[(summary["position"] == summary["position"].max()) & (summary["regime"] == "clean")]
    return _by_place(last, "fraction", "part of training")


@styled
def position_figure(end: pd.DataFrame) -> Figure:
    """Draw concentration along the sequence, mean over bands.

    Args:
        end: `summary` at the last step.
    """
    return _by_place(end.assign(place=end["position"] + 1), "place", "position in the sequence", log_x=True)


@styled
def band_figure(bands: pd.DataFrame) -> Figure:
    """Draw every band at the end of training: mean and range over seeds, and its null (`by_band`)."""
    names = bands.drop_duplicates("band").sort_values(["kind", "c", "band"])["band"].tolist()
    stages = in_order(bands["stage"])
    figure, axes = panels(1, 2, width=4.2, height=0.24 * len(names) + 1.4, sharey=True)
    kinds = bands.drop_duplicates("band").set_index("band")["kind"]
    for ax, value, low, high, null in (
        (axes[0, 0], "h_s", "h_s_low", "h_s_high", "h_s_null"),
        (axes[0, 1], "h_peak", "h_peak_low", "h_peak_high", "h_peak_null_high"),
    ):
        for j, stage in enumerate(stages):
            own = bands[bands["stage"] == stage].set_index("band").reindex(names)
            y = np.arange(len(names)) + 0.18 * (j - (len(stages) - 1) / 2)
            ax.hlines(y, own[low], own[high], color=colour(stage), linewidth=1.2)
            ax.scatter(own[value], y, s=10, color=colour(stage), zorder=3)
        level = bands.groupby("band")[null].mean().reindex(names)
        ax.scatter(level, np.arange(len(names)), marker="|", s=90, color="0.3", zorder=2)
    axes[0, 0].set_yticks(
        range(len(names)), [f"{n} {'in' if kinds[n] == 'inside' else 'out'}" for n in names]
    )
    axes[0, 0].set_xlabel("H_S (task), debiased; bar: null")
    axes[0, 1].set_xlabel("H_peak, debiased; bar: 97.5 % of null")
    outside_legend(figure, axes[0, 1], stages, [])
    return figure


@styled
def planning_figure(components: pd.DataFrame, curves: pd.DataFrame) -> Figure:
    """Draw shares of the spread of stage differences by source, and the seeds that the observed one needs.

    Args:
        components: of `sims.studies.bands.tables.decomposition`.
        curves: of `sims.studies.bands.tables.seed_curves`.
    """
    rows = components[components["difference"].astype(bool) & (components["kind"] == "all")]
    quantities = list(rows["quantity"].unique())
    figure, axes = panels(len(quantities), 2, width=4.6, height=2.4)
    for i, quantity in enumerate(quantities):
        own = rows[rows["quantity"] == quantity].reset_index(drop=True)
        _shares(axes[i, 0], own)
        axes[i, 0].set_title(f"{quantity}: variance of a stage difference")
        for (target, new_bands), line in curves[curves["quantity"] == quantity].groupby(
            ["target", "new_bands"], sort=False
        ):
            claim, style = ("bands in general", "solid") if new_bands else ("these bands", "dashed")
            hue = colour(target.rsplit(" ", 1)[-1])
            label = f"{target}, {claim}"
            axes[i, 1].plot(line["bands"], line["seeds"], color=hue, linestyle=style, label=label)
        axes[i, 1].set(xscale="log", yscale="log", xlabel="bands", ylabel="seeds for power 0.8")
        axes[i, 1].set_title(f"{quantity}: seeds to see the observed one")
        axes[i, 1].legend()
        axes[i, 1].yaxis.set_major_formatter("{x:g}")
        axes[i, 1].yaxis.set_minor_formatter("{x:g}")
        axes[i, 1].yaxis.set_minor_locator(LogLocator(subs=(2, 5)))
    return figure


def _by_place(table: pd.DataFrame, x: str, label: str, *, log_x: bool = False) -> Figure:
    """Draw one row a quantity, one column a regime and kind; lines are stages with their range over seeds."""
    places = [p for p in PLACES if ((table["regime"] == p[0]) & (table["kind"] == p[1])).any()]
    stages = in_order(table["stage"])
    figure, axes = panels(len(LABELS), len(places), width=2.5, height=2.2, sharex=True, sharey="row")
    for i, quantity in enumerate(LABELS):
        for j, (regime, kind, title) in enumerate(places):
            ax = axes[i, j]
            own = table[
                (table["quantity"] == quantity) & (table["regime"] == regime) & (table["kind"] == kind)
            ]
            _lines(ax, own, x, stages)
            ax.set_title(title if i == 0 else "")
            if log_x:
                ax.set_xscale("log", base=2)
                ticks = sorted(own[x].unique())
                ax.set_xticks(ticks, [str(t) for t in ticks])
        axes[i, 0].set_ylabel(LABELS[quantity])
    for ax in axes[-1]:
        ax.set_xlabel(label)
    outside_legend(figure, axes[0, 0], stages, [])
    return figure


def _lines(ax: Axes, own: pd.DataFrame, x: str, stages: list[str]) -> None:
    for stage in stages:
        line = own[own["stage"] == stage].sort_values(x)
        ax.plot(line[x], line["mean"], color=colour(stage), marker="o", markersize=3, linewidth=1.4)
        # The range of the seeds: an interval over three of them would hide the curves.
        ax.fill_between(line[x], line["min"], line["max"], color=colour(stage), alpha=0.18, linewidth=0)
    null = own.groupby(x)["null_high"].mean()
    ax.axhline(0, color="0.3", linewidth=0.9, linestyle=":")
    if null.notna().any():
        ax.fill_between(null.index, 0, null, color="0.5", alpha=0.25, linewidth=0)


def _shares(ax: Axes, rows: pd.DataFrame) -> None:
    left = np.zeros(len(rows))
    for source, hue in SOURCE_COLOURS.items():
        share = rows[f"{source} share"].to_numpy(float)
        ax.barh(range(len(rows)), share, left=left, color=hue, label=source.replace(" x ", " × "))
        left += share
    ax.set_yticks(range(len(rows)), rows["target"])
    ax.set(xlim=(0, 1), xlabel="share of the summed components")
    ax.legend()
