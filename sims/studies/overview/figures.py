"""Losses and Fourier concentration over training, its link to activation spectra, and the causal test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sims.pages.figures.glance import clock
from sims.pages.style import (
    colour,
    dashes,
    in_order,
    lines_of,
    loss_floor,
    many_lines,
    markers,
    outside_legend,
    panels,
    seed_band,
    styled,
)


@styled
def loss_figure(curves: pd.DataFrame, label: str = "validation loss", floor: float | None = None) -> Figure:
    """Draw the loss of every run over tokens (over steps, where tokens count them), one panel a batch size.

    Args:
        curves: stage, batch_size, seed, step, tokens, value (nats).
        label: which loss.
        floor: lowest mean loss that is possible (nats); None where it is not known.
    """
    unit, words = clock(curves)
    stages, sizes = in_order(curves["stage"]), sorted(curves["batch_size"].unique())
    figure, axes = panels(1, len(sizes), sharey=True)
    for ax, size in zip(axes[0], sizes, strict=True):
        for stage in stages:
            own = curves[(curves["stage"] == stage) & (curves["batch_size"] == size) & (curves["step"] > 0)]
            own = own.assign(clock=own["tokens"] / unit)
            seed_band(ax, own, "clock", color=colour(stage), linestyle=dashes(size, sizes))
        ax.set(xlabel=f"training {words}", title=f"B = {size}", yscale="log")
        # Losses span less than a decade: plain numbers at the minor ticks too.
        ax.yaxis.set_major_formatter("{x:g}")
        ax.yaxis.set_minor_formatter("{x:g}")
    for ax in axes[0]:
        loss_floor(ax, floor)
    axes[0, 0].set_ylabel(f"{label} (nats, log scale)")
    outside_legend(figure, axes[0, -1], stages, sizes)
    return figure


@styled
def positions_figure(rows: pd.DataFrame) -> Figure:
    """Draw the loss above its floor over tokens, one panel a position.

    Args:
        rows: position, stage, batch_size, seed, tokens, value (nats).
    """
    figure, axes = _by_position(rows, "loss above the floor (nats)")
    for ax in axes.values():
        ax.axhline(0, color="0.7", linewidth=0.7)
    return figure


@styled
def alignment_figure(rows: pd.DataFrame) -> Figure:
    """Draw the share of the best predictor that states explain over tokens, one panel a position, with its nulls.

    Args:
        rows: of `sims.studies.overview.tables.alignments`.
    """
    figure, axes = _by_position(rows, "share that is explained")
    for position, ax in axes.items():
        here = rows[rows["position"] == position].groupby("tokens")[["null", "last_token"]].mean()
        for null, style in (("null", ":"), ("last_token", "-.")):
            ax.plot(here.index / clock(rows)[0], here[null], color="0.3", linewidth=0.9, linestyle=style)
    return figure


def _by_position(rows: pd.DataFrame, label: str) -> tuple[Figure, dict[int, Axes]]:
    """Draw values over tokens by stage and batch size; return the panels by position."""
    positions, sizes = sorted(rows["position"].unique()), sorted(rows["batch_size"].unique())
    stages = in_order(rows["stage"])
    unit, words = clock(rows)
    rows = rows.assign(clock=rows["tokens"] / unit)
    figure, axes = panels(1, len(positions), width=2.2, sharey=True)
    found = dict(zip(positions, axes[0], strict=True))
    for position, ax in found.items():
        for stage in stages:
            for size in sizes:
                own = rows[
                    (rows["position"] == position) & (rows["stage"] == stage) & (rows["batch_size"] == size)
                ]
                seed_band(ax, own, "clock", color=colour(stage), linestyle=dashes(size, sizes))
        ax.set(title=f"position {position}", xlabel=words)
    axes[0, 0].set_ylabel(label)
    outside_legend(figure, axes[0, -1], stages, sizes)
    return figure, found


@styled
def concentration_figure(rows: pd.DataFrame, label: str) -> Figure:
    """Draw concentration over tokens with its null: one row a band, one column a batch size.

    Bands of a single batch size are drawn beside each other.

    Args:
        rows: band, stage, batch_size, seed, tokens, value, null, null_high.
        label: of the quantity.
    """
    bands, sizes = list(rows["band"].unique()), sorted(rows["batch_size"].unique())
    stages = in_order(rows["stage"])
    shape = (1, len(bands)) if len(sizes) == 1 else (len(bands), len(sizes))
    figure, axes = panels(*shape, height=2.6 if len(sizes) == 1 else 2.1, sharex="col", sharey="row")
    grid = axes.reshape(len(bands), len(sizes))  # band, batch size
    unit, words = clock(rows)
    for i, band in enumerate(bands):
        for j, size in enumerate(sizes):
            ax = grid[i, j]
            here = rows[(rows["band"] == band) & (rows["batch_size"] == size)]
            here = here.assign(clock=here["tokens"] / unit)
            for stage in stages:
                own = here[here["stage"] == stage]
                seed_band(ax, own, "clock", color=colour(stage), linestyle=dashes(size, sizes))
            null = here.groupby("clock")[["null", "null_high"]].mean()
            ax.plot(null.index, null["null"], color="0.3", linewidth=0.9, linestyle=":")
            ax.fill_between(null.index, null["null"], null["null_high"], color="0.5", alpha=0.25, linewidth=0)
            ax.set_title(f"{band}, B = {size}")
    for ax in axes[:, 0]:
        ax.set_ylabel(label)
    for ax in axes[-1]:
        ax.set_xlabel(f"training {words}")
    outside_legend(figure, axes[0, 0], stages, sizes)
    return figure


@styled
def link_figure(means: pd.DataFrame) -> Figure:
    """Draw H_S of every measured moment against the exponents and the head share of the same activations.

    Args:
        means: of `sims.studies.overview.tables.link_means`.
    """
    columns = [c for c in means.columns if c.startswith("alpha ")] + ["top_share"]
    stages = in_order(means["stage"])
    figure, axes = panels(1, len(columns), width=2.9, sharey=True)
    for ax, column in zip(axes[0], columns, strict=True):
        for stage in stages:
            own = means[means["stage"] == stage].sort_values("step", kind="stable")
            color = colour(stage)
            many_lines(ax, lines_of(own, "run_id", column, "h_s"), color=color, linewidth=0.4, alpha=0.6)
            markers(ax, own[column], own["h_s"], color=color, markersize=1.5, markeredgewidth=0, alpha=0.7)
            last = own.drop_duplicates("run_id", keep="last")
            markers(ax, last[column], last["h_s"], color=color, markersize=5, markerfacecolor="none")
        ax.set_xlabel(
            "share of the 10 largest"
            if column == "top_share"
            else f"α over ranks {column.removeprefix('alpha ')}"
        )
    axes[0, 0].set_ylabel("H_S (task band), mean over bands")
    outside_legend(figure, axes[0, -1], stages, [])
    return figure


@styled
def causal_figure(effects: pd.DataFrame) -> Figure:
    """Draw the change of loss when the key frequency is kept or dropped, with its controls.

    Args:
        effects: of `sims.studies.overview.tables.causal_effects`, one row a run, quantity and site.
    """
    stages = in_order(effects["stage"])
    kinds = [(q, s) for s in ("final", "embed") for q in ("causal_drop", "causal_keep")]
    figure, axes = panels(1, len(kinds), width=2.4)
    for ax, (quantity, site) in zip(axes[0], kinds, strict=True):
        here = effects[(effects["quantity"] == quantity) & (effects["site"] == site)]
        for x, stage in enumerate(stages):
            own = here[here["stage"] == stage]
            spread = np.linspace(-0.12, 0.12, max(len(own), 1))[: len(own)]
            markers(ax, x - 0.15 + spread, own["value"], color=colour(stage), markersize=3.5)
            nulls = {"color": "0.4", "markerfacecolor": "none", "markersize": 3.5}
            markers(ax, x + 0.2 + spread, own["null"], **nulls)
        ax.axhline(0, color="0.7", linewidth=0.7)
        ax.set_xticks(range(len(stages)), stages, rotation=30)
        ax.set_title(
            f"{quantity.removeprefix('causal_')}, in the {'final state' if site == 'final' else 'embedding'}"
        )
    axes[0, 0].set_ylabel("change of loss (nats)")
    return figure


@styled
def layers_figure(layers: pd.DataFrame, titles: Mapping[str, str]) -> Figure:
    """Draw summaries of activation spectra by layer at the end of training, one panel a quantity.

    Args:
        layers: of `sims.analysis.layers.summaries_by_site`.
        titles: of the panels, by quantity.
    """
    stages, sites = in_order(layers["stage"]), list(dict.fromkeys(layers["site"]))
    sizes = sorted(layers["batch_size"].unique())
    quantities = list(dict.fromkeys(layers["quantity"]))
    figure, axes = panels(1, len(quantities))
    for ax, quantity in zip(axes[0], quantities, strict=True):
        here = layers[layers["quantity"] == quantity]
        here = here.assign(place=here["site"].map(sites.index))
        for stage in stages:
            for size in sizes:
                own = here[(here["stage"] == stage) & (here["batch_size"] == size)]
                seed_band(ax, own, "place", color=colour(stage), linestyle=dashes(size, sizes))
        null = here.groupby("place")["null"].mean()
        ax.plot(null.index, null, color="0.3", linewidth=0.9, linestyle=":", marker=".", markersize=2)
        # Every panel has all sites, also those without this number.
        ax.set_xlim(-0.3, len(sites) - 0.7)
        ax.set_xticks(range(len(sites)), _few(sites), rotation=45, ha="right")
        ax.set_title(titles[quantity])
    outside_legend(figure, axes[0, 0], stages, sizes)
    return figure


def _few(names: Sequence[str], most: int = 12) -> list[str]:
    """Return the names with gaps, so that about so many are left."""
    every = -(-len(names) // most)
    return [name if i % every == 0 or i == len(names) - 1 else "" for i, name in enumerate(names)]
