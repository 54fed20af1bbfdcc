"""Fourier concentration over training, its link to activation spectra, and the causal test."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from sims.analysis.concentration import named_bands
from sims.analysis.runs import Runs
from sims.analysis.stages import link_to_activations
from sims.pages.style import colour, dashes, panels, seed_band, stage_legend, styled


@styled
def concentration_figure(runs: Runs, quantity: str) -> Figure:
    """H_peak or task-band H_S over tokens: one row a band, one column a batch size, with the null.

    Args:
        quantity: "h_peak" or "h_s" (task band).
    """
    rows = named_bands(runs.values(quantity, "probe", set="task" if quantity == "h_s" else ""))
    bands, sizes = list(rows["band"].unique()), sorted(rows["batch_size"].unique())
    stages = list(runs.runs["stage"].unique())
    figure, axes = panels(len(bands), len(sizes), height=2.1, sharex="col", sharey="row")
    for i, band in enumerate(bands):
        for j, size in enumerate(sizes):
            ax = axes[i, j]
            here = rows[(rows["band"] == band) & (rows["batch_size"] == size)]
            here = here.assign(million=here["tokens"] / 1e6)
            for stage in stages:
                own = here[here["stage"] == stage]
                seed_band(ax, own, "million", color=colour(stage), linestyle=dashes(size, sizes))
            null = here.groupby("million")[["null", "null_high"]].mean()
            ax.plot(null.index, null["null"], color="0.3", linewidth=0.9, linestyle=":")
            ax.fill_between(null.index, null["null"], null["null_high"], color="0.5", alpha=0.25, linewidth=0)
            ax.set_title(f"{band}, B = {size}")
        axes[i, 0].set_ylabel("H_peak" if quantity == "h_peak" else "H_S (task band)")
    for ax in axes[-1]:
        ax.set_xlabel("training tokens (millions)")
    stage_legend(axes[0, 0], stages, sizes)
    return figure


@styled
def link_figure(runs: Runs) -> Figure:
    """H_S of every measured moment against the exponents and the head share of the same activations."""
    table = link_to_activations(runs)
    table = table[table["step"] > 0]
    alphas = [c for c in table.columns if c.startswith("alpha ") and table[c].notna().any()]
    columns = [*alphas, "top_share"]
    stages, sizes = list(runs.runs["stage"].unique()), sorted(runs.runs["batch_size"].unique())
    means = table.groupby(["run_id", "stage", "batch_size", "seed", "step"], sort=False)[
        ["h_s", *columns]
    ].mean()
    means = means.reset_index()
    figure, axes = panels(1, len(columns), width=2.9, sharey=True)
    for ax, column in zip(axes[0], columns, strict=True):
        for run_id in means["run_id"].unique():
            own = means[means["run_id"] == run_id].sort_values("step")
            color = colour(own["stage"].iloc[0])
            ax.plot(own[column], own["h_s"], color=color, linewidth=0.4, alpha=0.6)
            ax.scatter(own[column], own["h_s"], s=8, color=color, alpha=0.7, linewidths=0)
            ax.scatter(own[column].iloc[-1:], own["h_s"].iloc[-1:], s=26, facecolors="none", edgecolors=color)
        ax.set_xlabel(
            "share of the 10 largest"
            if column == "top_share"
            else f"α over ranks {column.removeprefix('alpha ')}"
        )
    axes[0, 0].set_ylabel("H_S (task band), mean over bands")
    stage_legend(axes[0, -1], stages, sizes[:0])
    return figure


@styled
def causal_figure(runs: Runs) -> Figure:
    """Loss after keeping or dropping the key frequency, against controls, at each run's last measurement."""
    rows = pd.concat([runs.values("causal_drop"), runs.values("causal_keep")])
    last = (
        rows.sort_values("step")
        .groupby(["run_id", "quantity", "site", "band", "regime"], sort=False)
        .last()
        .reset_index()
    )
    stages = list(runs.runs["stage"].unique())
    kinds = [(q, s) for s in ("final", "embed") for q in ("causal_drop", "causal_keep")]
    figure, axes = panels(1, len(kinds), width=2.4)
    for ax, (quantity, site) in zip(axes[0], kinds, strict=True):
        here = last[(last["quantity"] == quantity) & (last["site"] == site)]
        for x, stage in enumerate(stages):
            own = here[here["stage"] == stage]
            # Each run counts once: bands are averaged first.
            value, control = (own.groupby("run_id")[c].mean().to_numpy() for c in ("value", "null"))
            spread = np.linspace(-0.12, 0.12, max(len(value), 1))[: len(value)]
            ax.scatter(x - 0.15 + spread, value, s=12, color=colour(stage))
            ax.scatter(x + 0.2 + spread, control, s=12, facecolors="none", edgecolors="0.4")
        ax.axhline(0, color="0.7", linewidth=0.7)
        ax.set_xticks(range(len(stages)), stages, rotation=30)
        ax.set_title(
            f"{quantity.removeprefix('causal_')}, in the {'final state' if site == 'final' else 'embedding'}"
        )
    axes[0, 0].set_ylabel("change of loss (nats)")
    return figure
