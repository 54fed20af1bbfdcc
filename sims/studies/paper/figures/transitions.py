"""Transitions between stages: gains, taxonomy, Muon against AdamW; and the phases of RankMe."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sims.pages.style import (
    colour,
    dashes,
    in_order,
    legend_above,
    loss_floor,
    marker,
    noise_level,
    outside_legend,
    panels,
    plain_log,
    seed_band,
    styled,
)

# So many transitions have their names side by side.
FEW = 4
LABELS = {"H_peak": "H_peak", "H_S task": "H_S (task band)"}


@styled
def trajectory_figure(means: pd.DataFrame, floor: float | None = None) -> Figure:
    """Draw concentration, mean over bands, against tokens (upper row of each) and loss (lower row).

    Args:
        means: one row for each quantity, run and measurement: quantity, run_id, stage, batch_size, seed, tokens, loss,
            value, null, null_high.
        floor: lowest mean loss that is possible (nats); None where it is not known.
    """
    quantities, sizes = list(means["quantity"].unique()), sorted(means["batch_size"].unique())
    stages = in_order(means["stage"])
    figure, axes = panels(2 * len(quantities), len(sizes), height=1.9, sharey="row")
    for i, quantity in enumerate(quantities):
        for j, size in enumerate(sizes):
            own = means[(means["quantity"] == quantity) & (means["batch_size"] == size)]
            _over_tokens(axes[2 * i, j], own, stages)
            _over_loss(axes[2 * i + 1, j], own, stages, floor)
            axes[2 * i, j].set(title=f"B = {size}", xlabel="training tokens (millions)")
            axes[2 * i + 1, j].set_xlabel("validation loss (nats; training goes right)")
        for ax in axes[2 * i : 2 * i + 2, 0]:
            ax.set_ylabel(LABELS.get(quantity, quantity))
    outside_legend(figure, axes[0, 0], stages, [])
    return figure


def _over_tokens(ax: Axes, own: pd.DataFrame, stages: Sequence[str]) -> None:
    own = own.assign(million=own["tokens"] / 1e6)
    for stage in stages:
        seed_band(ax, own[own["stage"] == stage], "million", color=colour(stage), linestyle="solid")
    null = own.groupby("million")[["null", "null_high"]].mean()
    ax.plot(null.index, null["null"], color="0.3", linewidth=0.9, linestyle=":")
    ax.fill_between(null.index, null["null"], null["null_high"], color="0.5", alpha=0.25, linewidth=0)


def _over_loss(ax: Axes, own: pd.DataFrame, stages: Sequence[str], floor: float | None) -> None:
    """Draw a line a run from its first measurement of training on; shade the null from its mean to 97.5 %."""
    own = own[own["step"] > 0]
    for stage in stages:
        for _, one in own[own["stage"] == stage].groupby("run_id", sort=False):
            one = one.sort_values("step")
            ax.plot(one["loss"], one["value"], color=colour(stage), linewidth=0.8, alpha=0.8)
    ax.axhspan(own["null"].mean(), own["null_high"].mean(), color="0.5", alpha=0.25, linewidth=0)
    ax.axhline(own["null"].mean(), color="0.3", linewidth=0.9, linestyle=":")
    plain_log(ax, "x")
    loss_floor(ax, floor, "x")
    ax.invert_xaxis()


@styled
def gains_figure(by_seed: pd.DataFrame, cells: pd.DataFrame, changes: pd.DataFrame) -> Figure:
    """Draw token gains of transitions, and the change of H_peak against them.

    Args:
        by_seed: of `gains_by_seed`.
        cells: of `transition_gains`, by batch size.
        changes: of `concentration_changes`: before, after, batch_size, seed, change.
    """
    pairs = list(dict.fromkeys(zip(cells["before"], cells["after"], strict=True)))
    figure, axes = panels(1, 2, width=max(4.2, 0.55 * len(pairs)), height=3.2)
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
                "marker": marker(size, sizes),
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
    turned: dict[str, Any] = {"rotation": 60, "ha": "right"} if len(pairs) > FEW else {}
    axes[0, 0].set_xticks(range(len(pairs)), [f"{a} →\n{b}" for a, b in pairs], **turned)
    handles = [
        axes[0, 0].plot([], [], marker(size, sizes), color="0.4", label=f"B = {size}")[0] for size in sizes
    ]
    handles += [axes[0, 1].plot([], [], "o", color=colour(b), label=f"{a} → {b}")[0] for a, b in pairs]
    legend_above(figure, handles)
    return figure


@styled
def taxonomy_figure(table: pd.DataFrame, limits: Any) -> Figure:
    """Draw gains and changed spectra, a row a transition; grey is what counts as no change.

    Args:
        table: of `taxonomy`.
        limits: its `Thresholds`.
    """
    moved = np.log(limits.moved)
    columns = (
        ("token_gain", "token gain", (-limits.token_gain, limits.token_gain)),
        ("throughput_gain", "throughput gain", (-limits.throughput_gain, limits.throughput_gain)),
        ("activation", "activations:\nln(JS / JS of seeds)", (0.0, moved)),
        ("gradient", "gradients:\nln(JS / JS of seeds)", (0.0, moved)),
        # Of runs without probe bands, nothing.
        *((("h_s", "ΔH_S at equal loss", (0.0, 0.0)),) if table["h_s"].notna().any() else ()),
    )
    places = np.arange(len(table))
    figure, axes = panels(1, len(columns), width=2.1, height=0.34 * len(table) + 1.2, sharey=True)
    for ax, (name, label, nothing) in zip(axes[0], columns, strict=True):
        hues = [colour(after) for after in table["after"]]
        ax.hlines(places, table[f"{name}_low"], table[f"{name}_high"], color=hues, linewidth=1.6)
        ax.scatter(table[name], places, s=26, color=hues, zorder=3)
        for y, value in zip(places, table[name], strict=True):
            if np.isnan(value):
                ax.text(
                    0.5,
                    y,
                    "no value",
                    transform=ax.get_yaxis_transform(),
                    ha="center",
                    va="center",
                    fontsize=7,
                )
        ax.axvline(0, color="0.4", linewidth=0.8)
        ax.axvspan(*nothing, color="0.5", alpha=0.2, linewidth=0)
        ax.set_xlabel(label)
    names = [f"{r['before']} → {r['after']}" for r in table.to_dict("records")]
    axes[0, 0].set_yticks(places, names)
    axes[0, 0].set_ylim(len(table) - 0.5, -0.5)
    axes[0, -1].secondary_yaxis("right").set_yticks(
        places, [f"{r['outcome']} /\n{r['mechanism']}" for r in table.to_dict("records")], fontsize=7
    )
    return figure


@styled
def optimiser_figure(rankme: pd.DataFrame, relative: pd.DataFrame, floor: float | None = None) -> Figure:
    """Draw RankMe against loss under two optimisers, and the relative change of summaries at equal loss.

    Args:
        rankme: rows of RankMe with loss and null.
        relative: of `compare_stages`, differences as a share of the first stage's value.
        floor: lowest mean loss that is possible (nats); None where it is not known.
    """
    figure, axes = panels(1, 2, width=4.3, height=3.6)
    left, right = axes[0]
    sizes, stages = sorted(rankme["batch_size"].unique()), in_order(rankme["stage"])
    for _, own in rankme[rankme["step"] > 0].groupby("run_id", sort=False):
        own = own.sort_values("step")
        style = dashes(int(own["batch_size"].iloc[0]), sizes)
        left.plot(
            own["loss"], own["value"], color=colour(own["stage"].iloc[0]), linestyle=style, linewidth=0.9
        )
    noise_level(left, rankme["null"].mean())
    plain_log(left, "both")
    loss_floor(left, floor, "x")
    left.invert_xaxis()
    left.set(xlabel="validation loss (nats; training goes right)", ylabel="RankMe of the final state")
    outside_legend(figure, left, stages, sizes, noise=True)
    blocks = relative.loc[relative["site"].str.startswith("blocks."), "site"].str.split(".").str[1]
    last = blocks.astype(int).max()
    block = relative["site"].str.startswith(f"blocks.{last}.")
    shown = relative[
        (relative["object"] == "activation") | (block & relative["quantity"].isin(["rankme", "alpha"]))
    ]
    _relative_changes(right, shown.reset_index(drop=True), f"blocks.{last}.")
    return figure


def _relative_changes(ax: Axes, shown: pd.DataFrame, block: str) -> None:
    """Draw a row a summary; what lies beyond the panel is an arrow with its number."""
    # A share is unbounded where the first value is near 0; the CSV has the rest.
    low, high = -1.2, 3.0
    for k, r in enumerate(shown.to_dict("records")):
        hue = colour("muon") if r["verdict"] != "cannot tell" else "0.6"
        ax.plot(np.clip([r["low"], r["high"]], low, high), [k, k], color=hue, linewidth=1.4)
        if low <= r["difference"] <= high:
            ax.plot(r["difference"], k, "o", color=hue, markersize=3.5)
        else:
            ax.plot(np.clip(r["difference"], low, high), k, ">" if r["difference"] > high else "<", color=hue)
            ax.text(high - 0.12, k, f"{r['difference']:+.3g}", ha="right", va="center", fontsize=6, color=hue)
    names = [
        " ".join(
            t
            for t in (r["object"], r["site"].removeprefix(block), r["quantity"], r["window"], r["detail"])
            if t
        )
        for r in shown.to_dict("records")
    ]
    ax.set_yticks(range(len(shown)), names, fontsize=6)
    ax.axvline(0, color="0.4", linewidth=0.8)
    ax.set_xlim(low, high + 0.05)
    ax.invert_yaxis()
    ax.set(xlabel="relative change, AdamW → Muon", title="grey: not significant at q ≤ 0.05")


@styled
def phases_figure(rows: pd.DataFrame, phases: pd.DataFrame) -> Figure:
    """Draw RankMe over tokens by stage, with the changes of slope that are significant.

    Args:
        rows: of RankMe, every seed.
        phases: fitted rows of `sims.analysis.phases`.
    """
    stages, sizes = in_order(rows["stage"]), sorted(rows["batch_size"].unique())
    figure, axes = panels(1, len(stages), width=2.6, height=2.7, sharey=True)
    for ax, stage in zip(axes[0], stages, strict=True):
        own = rows[(rows["stage"] == stage) & (rows["step"] > 0)]
        own = own.assign(million=own["tokens"] / 1e6)
        for size in sizes:
            here = own[own["batch_size"] == size]
            seed_band(ax, here, "million", color=colour(stage), linestyle=dashes(size, sizes))
        noise_level(ax, own["null"].mean())
        kinks = phases[(phases["stage"] == stage) & (phases["segment"] > 1)]
        for r in kinks.to_dict("records"):
            style = dashes(r["batch_size"], sizes)
            ax.axvline(r["from_tokens"] / 1e6, color="0.25", linestyle=style, linewidth=0.8)
        plain_log(ax, "both")
        ax.set(title=stage, xlabel="training tokens (millions)")
    axes[0, 0].set_ylabel("RankMe of the final state")
    outside_legend(figure, axes[0, -1], [], sizes, noise=True)
    return figure
