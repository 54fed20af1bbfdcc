"""Trace-normalised spectra on double logarithmic axes.

A table of spectra has one row a run: stage, batch_size and shares (an array, largest first).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sims.pages.style import (
    colour,
    dashes,
    in_order,
    many_lines,
    outside_legend,
    panels,
    styled,
)
from spectra.plots import draw_band, draw_energies, rank_axes, ranked

# Smaller shares are rounding of the covariance, not structure.
LEAST_SHARE = 1e-7


@styled
def stage_figure(spectra: pd.DataFrame, what: str) -> Figure:
    """Draw spectra by stage, one panel a batch size.

    Args:
        spectra: one row a run.
        what: words for the titles.
    """
    stages, sizes = in_order(spectra["stage"]), sorted(spectra["batch_size"].unique())
    figure, axes = panels(1, len(sizes), sharey=True)
    for ax, size in zip(axes[0], sizes, strict=True):
        for stage in stages:
            own = spectra[(spectra["stage"] == stage) & (spectra["batch_size"] == size)]
            spectrum_lines(ax, own, colour(stage), dashes(size, sizes))
        rank_axes(ax)
        ax.set_title(f"{what}, B = {size}")
    _without_rounding(axes)
    axes[0, 0].set_ylabel("share of variance")
    outside_legend(figure, axes[0, 0], stages, sizes)
    return figure


@styled
def sites_figure(spectra: Mapping[str, pd.DataFrame]) -> Figure:
    """Draw spectra by site, one panel a site, three a row.

    Args:
        spectra: site → one row a run.
    """
    stages = in_order(stage for table in spectra.values() for stage in table["stage"])
    sizes = sorted({size for table in spectra.values() for size in table["batch_size"]})
    columns = min(3, len(spectra))
    figure, axes = panels(-(-len(spectra) // columns), columns, sharey=True)
    for ax, (site, table) in zip(axes.flat, spectra.items(), strict=False):
        for stage in stages:
            for size in sizes:
                own = table[(table["stage"] == stage) & (table["batch_size"] == size)]
                spectrum_lines(ax, own, colour(stage), dashes(size, sizes))
        rank_axes(ax)
        ax.set_title(site)
    for ax in axes.flat[len(spectra) :]:
        ax.set_axis_off()
    _without_rounding(axes)
    for row in axes:
        row[0].set_ylabel("share of variance")
    outside_legend(figure, axes[0, 0], stages, sizes)
    return figure


@styled
def matched_figure(matched: pd.DataFrame, null: tuple[np.ndarray, np.ndarray] | None = None) -> Figure:
    """Draw spectra by batch size at the stage's common loss, one panel a stage.

    Args:
        matched: one row a run, with the column loss.
        null: lower and upper quantile of each share, for spectra of noise of the same shape.
    """
    stages, sizes = in_order(matched["stage"]), sorted(matched["batch_size"].unique())
    figure, axes = panels(1, len(stages), width=2.6, sharey=True)
    for ax, stage in zip(axes[0], stages, strict=True):
        own = matched[matched["stage"] == stage]
        for size in sizes:
            spectrum_lines(ax, own[own["batch_size"] == size], colour(stage), dashes(size, sizes))
        if null is not None:
            draw_band(ax, *null)
        rank_axes(ax)
        ax.set_title(f"{stage}, loss {own['loss'].iloc[0]:.3f}")
    _without_rounding(axes)
    axes[0, 0].set_ylabel("share of variance")
    outside_legend(figure, axes[0, -1], [], sizes, noise=null is not None)
    return figure


def spectrum_lines(ax: Axes, table: pd.DataFrame, color: str, linestyle: Any) -> None:
    """Draw one line a run, and their geometric mean."""
    shares = list(table["shares"])
    many_lines(
        ax, [ranked(one) for one in shares], color=color, linestyle=linestyle, linewidth=0.6, alpha=0.6
    )
    if shares:
        with np.errstate(divide="ignore"):
            mean = np.exp(np.mean(np.log(np.stack(shares)), axis=0))
        draw_energies(ax, mean, color=color, linestyle=linestyle, linewidth=1.5)


def _without_rounding(axes: np.ndarray) -> None:
    """Begin the shared axis of shares at the least one that is no rounding, once every panel has its curves.

    A limit that is set ends the scaling of all panels that share it: curves that are drawn later would be cut.
    """
    shared = axes.flat[0]
    shared.set_ylim(bottom=max(LEAST_SHARE, shared.get_ylim()[0]))
