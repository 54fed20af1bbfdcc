"""Concentration of class means over the frequencies of a cycle, each number with its null."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

import numpy as np

from sims.measure.rows import MeasurementRows
from spectra import (
    component_frequencies,
    gini,
    h_peak,
    h_s,
    peak_band,
    task_band,
    top_k_band,
)
from spectra.arrays import require_finite
from spectra.fourier import band_energies, component_count, dominant_frequency
from spectra.nulls import BetaNull, SampledNull, h_peak_null, h_s_null, h_top_k_null

COMPONENTS = 3
# Quantile of the null that a row stores as "null_high".
TEST_LEVEL = 0.975


def varies(means: np.ndarray) -> bool:
    """Return whether (c, d) class means differ by more than rounding.

    Raises:
        InputError: NaN or Inf.
    """
    require_finite(means, "the class means")
    return bool(np.ptp(means, axis=0).max() > 1e-12 * max(np.abs(means).max(), 1e-300))


def concentration(
    sheet: MeasurementRows,
    object_: str,
    site: str,
    means: np.ndarray,
    dimensions: float,
    columns: Mapping[str, Any],
    top_k: int,
) -> None:
    """Add H_S, H_peak, Gini, the dominant frequency and the components of (c, d) class means.

    Args:
        sheet: where rows are added.
        object_, site: of the rows.
        means: (c, d), row m the mean of class m.
        dimensions: effective dimension of the population that is averaged. The null is that of shuffled classes:
            averages without structure in that many dimensions.
        columns: further columns of the rows: band, regime and seen of a probe, or detail, the name of a family.
        top_k: conjugate pairs in the top-k set.
    """
    for label, chosen, null in frequency_sets(means, dimensions, top_k):
        levels = dict(zip(("null", "null_high"), _levels(null), strict=True))
        sheet.row("h_s", object_, site, h_s(means, chosen), **levels, **columns, set=label)
    peak_null = h_peak_null(len(means), _whole(dimensions))
    levels = dict(zip(("null", "null_high"), _levels(peak_null), strict=True))
    sheet.row("h_peak", object_, site, h_peak(means), **levels, **columns)
    sheet.row("dominant_frequency", object_, site, dominant_frequency(means), **columns)
    sheet.row("gini", object_, site, gini(band_energies(means)[1:]), **columns)
    components = component_frequencies(means, min(COMPONENTS, component_count(means)))
    for j, (mass, frequency, share) in enumerate(
        zip(components.peak_mass, components.frequency, components.share, strict=True), start=1
    ):
        own = {**columns, "detail": f"{columns.get('detail', '')} pc{j}".strip()}
        sheet.row("component_peak_mass", object_, site, mass, **own)
        sheet.row("component_frequency", object_, site, frequency, **own)
        sheet.row("component_share", object_, site, share, **own)


def frequency_sets(
    means: np.ndarray, dimensions: float, top_k: int
) -> Iterator[tuple[str, tuple[int, ...], BetaNull | SampledNull]]:
    """Yield the sets of frequencies that H_S is taken over: label, frequencies, null.

    A set of all frequencies is left out, since its H_S is 1. Arguments as `concentration`.
    """
    c, d = len(means), _whole(dimensions)
    if len(task_band(c)) < c - 1:
        yield "task", task_band(c), h_s_null(c, d, task_band(c))
    # Sets chosen from the data they are measured on have a null of their own.
    if c // 2 > 1:
        yield "peak", peak_band(means), h_top_k_null(c, d, 1)
    if top_k < c // 2:
        yield f"top{top_k}", top_k_band(means, top_k), h_top_k_null(c, d, top_k)


def _whole(dimensions: float) -> int:
    """Round an effective dimension, so that simulated null laws are shared between measurements."""
    return max(1, round(dimensions))


@lru_cache(maxsize=128)
def _levels(null: BetaNull | SampledNull) -> tuple[float, float]:
    """Return the mean and the upper quantile of a null law, which many measurements share."""
    return null.mean, float(null.quantile(TEST_LEVEL))
