"""Transitions between stages: gains, taxonomy, Muon against AdamW; and the phases of RankMe."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from sims.figures.style import COLOURS, DASHES, colour, dashes, panels, seed_band, stage_legend, styled

MARKERS = "osD^v"
LABELS = {"H_peak": "H_peak", "H_S task": "H_S (task band)"}


@styled
def trajectory_figure(means: pd.DataFrame) -> Figure:
    """Concentration, mean over bands, against tokens (upper row of each) and loss (lower row).

    Args:
        means: one row for each quantity, run and measurement: quantity, run_id, stage, batch_size, seed, tokens, loss,
            value, null, null_high.
    """
    quantities, sizes = list(means["quantity"].unique()), sorted(means["batch_size"].unique())
    stages = [s for s in COLOURS if s in set(means["stage"])]
    figure, axes = panels(2 * len(quantities), len(sizes), height=1.9, sharey="row")
    for i, quantity in enumerate(quantities):
        for j, size in enumerate(sizes):
            own = means[(means["quantity"] == quantity) & (means["batch_size"] == size)]
            own = own.assign(million=own["tokens"] / 1e6)
            above, below = axes[2 * i, j], axes[2 * i + 1, j]
            for stage in stages:
                here = own[own["stage"] == stage]
                seed_band(above, here, "million", color=colour(stage), linestyle="solid")
                # The loss of a tied head before training is far outside of what is learned later.
                for _, one in here[here["step"] > 0].groupby("run_id", sort=False):
                    one = one.sort_values("step")
                    below.plot(one["loss"], one["value"], color=colour(stage), linewidth=0.8, alpha=0.8)
            null = own.groupby("million")[["null", "null_high"]].mean()
            above.plot(null.index, null["null"], color="0.3", linewidth=0.9, linestyle=":")
            above.fill_between(
                null.index, null["null"], null["null_high"], color="0.5", alpha=0.25, linewidth=0
            )
            above.set(title=f"B = {size}", xlabel="training tokens (millions)")
            below.set(xlabel="validation loss (nats; training goes right)")
            below.invert_xaxis()
        for ax in axes[2 * i : 2 * i + 2, 0]:
            ax.set_ylabel(LABELS.get(quantity, quantity))
    stage_legend(axes[0, 0], stages, [])
    return figure


@styled
def gains_figure(by_seed: pd.DataFrame, cells: pd.DataFrame, changes: pd.DataFrame) -> Figure:
    """Token gains of transitions, and the change of H_peak beside them.

    Args:
        by_seed: of `gains_by_seed`.
        cells: of `transition_gains`, by batch size.
        changes: of `concentration_changes`: before, after, batch_size, seed, change.
    """
    figure, axes = panels(1, 2, width=4.2, height=3.0)
    pairs = list(dict.fromkeys(zip(cells["before"], cells["after"], strict=True)))
    sizes = sorted(cells["batch_size"].unique())
    both = by_seed.merge(changes, on=["before", "after", "batch_size", "seed"])
    for x, (before, after) in enumerate(pairs):
        for k, size in enumerate(sizes):
            place = x + 0.22 * (k - (len(sizes) - 1) / 2)
            own, seeds, linked = (
                t[(t["before"] == before) & (t["after"] == after) & (t["batch_size"] == size)]
                for t in (cells, by_seed, both)
            )
            style: dict[str, Any] = {
                "color": colour(after),
                "marker": MARKERS[k % len(MARKERS)],
                "linestyle": "none",
            }
            axes[0, 0].plot([place] * len(seeds), seeds["proximal"], markersize=2.5, alpha=0.7, **style)
            error = [
                own["proximal"] - own["proximal_low"],
                own["proximal_high"] - own["proximal"],
            ]
            axes[0, 0].errorbar([place] * len(own), own["proximal"], error, markersize=6, capsize=2, **style)
            axes[0, 1].plot(linked["change"], linked["proximal"], markersize=2.5, alpha=0.6, **style)
            if len(linked):
                axes[0, 1].plot(linked["change"].mean(), linked["proximal"].mean(), markersize=6.5, **style)
    for ax in axes[0]:
        ax.axhline(0, color="0.4", linewidth=0.8)
        ax.set_ylabel("token gain at equal loss")
    axes[0, 1].axvline(0, color="0.4", linewidth=0.8)
    axes[0, 1].set_xlabel("change of H_peak at equal loss")
    axes[0, 0].set_xticks(range(len(pairs)), [f"{a} →\n{b}" for a, b in pairs])
    handles = [
        axes[0, 0].plot([], [], MARKERS[k % len(MARKERS)], color="0.4", label=f"B = {size}")[0]
        for k, size in enumerate(sizes)
    ]
    axes[0, 0].legend(handles=handles)
    axes[0, 1].legend(
        handles=[axes[0, 1].plot([], [], "o", color=colour(b), label=f"{a} → {b}")[0] for a, b in pairs]
    )
    return figure


@styled
def taxonomy_figure(table: pd.DataFrame, limits: Any) -> Figure:
    """What came of each transition, and which spectra moved, with the bands that count as nothing.

    Args:
        table: of `taxonomy`.
        limits: its `Thresholds`.
    """
    figure, axes = panels(1, 2, width=4.0, height=3.2)
    sides = (
        (
            ("throughput_gain", "throughput gain", limits.throughput_gain),
            ("token_gain", "token gain", limits.token_gain),
        ),
        (
            ("activation", "activations: ln(JS / JS between seeds)", np.log(limits.moved)),
            ("gradient", "gradients: ln(JS / JS between seeds)", np.log(limits.moved)),
        ),
    )
    for ax, (x, y), word in zip(axes[0], sides, ("outcome", "mechanism"), strict=True):
        for r in table.to_dict("records"):
            name = f"{r['before']} → {r['after']}: {r[word]}"
            _cross(ax, r, x[0], y[0], colour(r["after"]), name)
        nothing = (lambda limit: (-limit, limit)) if word == "outcome" else (lambda limit: (0.0, limit))
        ax.axvspan(*nothing(x[2]), color="0.5", alpha=0.18, linewidth=0)
        ax.axhspan(*nothing(y[2]), color="0.5", alpha=0.18, linewidth=0)
        ax.set(xlabel=x[1], ylabel=y[1], title=word)
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), fontsize=7)
    return figure


def _cross(ax: Axes, r: Mapping[Any, Any], x: str, y: str, color: str, label: str) -> None:
    """A point with an interval on both sides; no bar where there is no interval."""
    xerr, yerr = (np.nan_to_num([[r[n] - r[f"{n}_low"]], [r[f"{n}_high"] - r[n]]]) for n in (x, y))
    ax.errorbar(
        [r[x]], [r[y]], xerr=xerr, yerr=yerr, fmt="o", color=color, capsize=2, markersize=6, label=label
    )


@styled
def optimiser_figure(rankme: pd.DataFrame, relative: pd.DataFrame) -> Figure:
    """RankMe against loss under two optimisers, and the relative change of the summaries at equal loss.

    Args:
        rankme: rows of RankMe with loss and null.
        relative: of `compare_stages`, differences as a share of the first stage's value.
    """
    figure, axes = panels(1, 2, width=4.3, height=3.6)
    left, right = axes[0]
    sizes, stages = sorted(rankme["batch_size"].unique()), list(rankme["stage"].unique())
    for _, own in rankme[rankme["step"] > 0].groupby("run_id", sort=False):
        own = own.sort_values("step")
        style = dashes(int(own["batch_size"].iloc[0]), sizes)
        left.plot(
            own["loss"], own["value"], color=colour(own["stage"].iloc[0]), linestyle=style, linewidth=0.9
        )
    left.axhline(rankme["null"].mean(), color="0.3", linestyle=":", linewidth=0.9)
    left.invert_xaxis()
    left.set(
        xlabel="validation loss (nats; training goes right)", ylabel="RankMe of the final state", yscale="log"
    )
    stage_legend(left, stages, sizes)
    last = relative.loc[relative["site"].str.startswith("blocks."), "site"].str.split(".").str[1].max()
    block = relative["site"].str.startswith(f"blocks.{last}.")
    shown = relative[
        (relative["object"] == "activation") | (block & relative["quantity"].isin(["rankme", "alpha"]))
    ]
    shown = shown.reset_index(drop=True)
    for k, r in shown.iterrows():
        color = colour("muon") if r["verdict"] != "cannot tell" else "0.6"
        right.plot([r["low"], r["high"]], [k, k], color=color, linewidth=1.4)
        right.plot(r["difference"], k, "o", color=color, markersize=3.5)
    names = [
        f"{r['object']} {r['site'].removeprefix(f'blocks.{last}.')} {r['quantity']} {r['detail']}".strip()
        for r in shown.to_dict("records")
    ]
    right.set_yticks(range(len(shown)), names, fontsize=6)
    right.axvline(0, color="0.4", linewidth=0.8)
    # A share is unbounded where the first value is near 0; the CSV has the rest.
    right.set_xlim(max(shown["low"].min(), -2), min(shown["high"].max(), 4))
    right.invert_yaxis()
    right.set(xlabel="relative change, AdamW → Muon", title="grey: not significant at q ≤ 0.05")
    return figure


@styled
def phases_figure(rows: pd.DataFrame, phases: pd.DataFrame) -> Figure:
    """RankMe over tokens by stage, with the changes of slope that are significant.

    Args:
        rows: of RankMe, every seed.
        phases: fitted rows of `sims.analysis.phases`.
    """
    stages, sizes = list(rows["stage"].unique()), sorted(rows["batch_size"].unique())
    figure, axes = panels(1, len(stages), width=2.6, height=2.7, sharey=True)
    for ax, stage in zip(axes[0], stages, strict=True):
        own = rows[(rows["stage"] == stage) & (rows["step"] > 0)]
        own = own.assign(million=own["tokens"] / 1e6)
        for size in sizes:
            here = own[own["batch_size"] == size]
            seed_band(ax, here, "million", color=colour(stage), linestyle=dashes(size, sizes))
        ax.axhline(own["null"].mean(), color="0.3", linestyle=":", linewidth=0.9)
        kinks = phases[(phases["stage"] == stage) & (phases["segment"] > 1)]
        for r in kinks.to_dict("records"):
            style = DASHES[sizes.index(r["batch_size"]) % len(DASHES)]
            ax.axvline(r["from_tokens"] / 1e6, color="0.25", linestyle=style, linewidth=0.8)
        ax.set(title=stage, xlabel="training tokens (millions)", xscale="log", yscale="log")
        for axis in (ax.xaxis, ax.yaxis):
            # Less than a decade or two: a label at 1, 2 and 5 of each.
            axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.set_major_formatter("{x:g}")
            axis.set_minor_formatter(NullFormatter())
    axes[0, 0].set_ylabel("RankMe of the final state")
    stage_legend(axes[0, -1], [], sizes)
    return figure
