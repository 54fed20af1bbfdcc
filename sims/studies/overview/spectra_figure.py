"""Spectra on double logarithmic axes, trace-normalised."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sims.analysis.runs import Runs
from sims.pages.style import NOISE, colour, dashes, outside_legend, panels, stage_legend, styled
from spectra import Spectrum


@styled
def stage_figure(runs: Runs, site: str = "final") -> Figure:
    """Activation spectra at the end of training by stage, one panel a batch size, beside pure noise."""
    chosen = runs.spectra[(runs.spectra["object"] == "activation") & (runs.spectra["site"] == site)]
    return _by_stage(runs, chosen, f"activations at {site}")


@styled
def gradient_figure(runs: Runs, ending: str = "attn.o") -> Figure:
    """Per-sample gradient spectra (M × P, uncentred) at the end of training, of the last matrix of that name."""
    gradients = runs.spectra[
        (runs.spectra["object"] == "gradient") & runs.spectra["site"].str.endswith(ending)
    ]
    site = max(gradients["site"])
    return _by_stage(runs, gradients[gradients["site"] == site], f"gradients of {site}")


@styled
def matched_figure(matched: pd.DataFrame, null: Spectrum | None = None) -> Figure:
    """Activation spectra by batch size at the stage's common loss, one panel a stage (`matched_spectra`).

    Args:
        null: a spectrum of pure noise of the same shape.
    """
    stages, sizes = list(matched["stage"].unique()), sorted(matched["batch_size"].unique())
    figure, axes = panels(1, len(stages), width=2.6, sharey=True)
    for ax, stage in zip(axes[0], stages, strict=True):
        own = matched[matched["stage"] == stage]
        for size in sizes:
            _lines(ax, own[own["batch_size"] == size], colour(stage), dashes(size, sizes))
        if null is not None:
            ax.plot(_ranks(null.shares), null.shares, **NOISE)
        _double_log(ax, f"{stage}, loss {own['loss'].iloc[0]:.3f}")
    axes[0, 0].set_ylabel("share of variance")
    outside_legend(figure, axes[0, -1], [], sizes, noise=null is not None)
    return figure


def _by_stage(runs: Runs, chosen: pd.DataFrame, what: str) -> Figure:
    stages, sizes = list(runs.runs["stage"].unique()), sorted(chosen["batch_size"].unique())
    last = chosen.sort_values("step").groupby("run_id", sort=False).last()
    figure, axes = panels(1, len(sizes), sharey=True)
    for ax, size in zip(axes[0], sizes, strict=True):
        for stage in stages:
            own = last[(last["stage"] == stage) & (last["batch_size"] == size)]
            _lines(ax, own, colour(stage), dashes(size, sizes))
        _double_log(ax, f"{what}, B = {size}")
    axes[0, 0].set_ylabel("share of variance")
    stage_legend(axes[0, 0], stages, sizes)
    return figure


def _lines(ax: Axes, table: pd.DataFrame, color: str, linestyle) -> None:
    """One line a row of the table, and their geometric mean."""
    shares = []
    for row in table.to_dict("records"):
        spectrum = Spectrum(np.asarray(row["values"]), kind=row["kind"])
        shares.append(spectrum.shares)
        ax.plot(
            _ranks(spectrum.shares),
            spectrum.shares,
            color=color,
            linestyle=linestyle,
            linewidth=0.6,
            alpha=0.6,
        )
    if shares:
        with np.errstate(divide="ignore"):
            mean = np.exp(np.mean(np.log(np.stack(shares)), axis=0))
        ax.plot(_ranks(mean), mean, color=color, linestyle=linestyle, linewidth=1.5)


def _ranks(values: np.ndarray) -> np.ndarray:
    return np.arange(1, len(values) + 1)


def _double_log(ax: Axes, title: str) -> None:
    ax.set(xscale="log", yscale="log", xlabel="rank", title=title)
    ax.xaxis.set_major_formatter("{x:g}")
    # Shares below 1e-7 are rounding of the covariance route, not structure.
    ax.set_ylim(bottom=1e-7)
