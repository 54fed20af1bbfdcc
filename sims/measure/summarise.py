"""Summarise spectra, each summary with its value for pure noise of the same shape."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from sims.analysis import summaries
from sims.measure.rows import MeasurementRows
from sims.runs.rank_windows import HEAD_WINDOW, PUBLISHED_WINDOW, Window, window_name
from spectra import Spectrum, covariance_spectrum
from spectra.nulls import noise_energies

# Rank windows of the exponents of gradient and weight spectra.
SINGULAR_WINDOWS: tuple[Window, ...] = (HEAD_WINDOW, PUBLISHED_WINDOW)
NULL_DRAWS = 8
# The longest side of noise that is drawn entry by entry.
DRAWN_SIDE = 16_384


def singular_windows(spectrum: Spectrum) -> list[Window]:
    """Return the rank windows of gradient and weight spectra that fit this one."""
    return [(lo, hi) for lo, hi in SINGULAR_WINDOWS if hi <= len(spectrum)]


def summarise(
    sheet: MeasurementRows, object_: str, site: str, spectrum: Spectrum, windows: Sequence[Window]
) -> None:
    """Add a spectrum and its summaries (`sims.analysis.summaries.SUMMARIES`).

    The null of each is its mean over draws of independent Gaussian entries of the same shape.

    Args:
        sheet: where rows are added.
        object_, site: of the rows.
        spectrum: the spectrum.
        windows: rank windows of the exponents.
    """
    sheet.spectrum(object_, site, spectrum)
    shape = shape_of(spectrum)
    for summary, arguments, which in each_summary(windows):
        level = null_level(summary, arguments, shape) if summary.null else math.nan
        sheet.row(summary.name, object_, site, summary.of(spectrum, *arguments), null=level, **which)


def each_summary(
    windows: Sequence[Window],
) -> Iterator[tuple[summaries.Summary, tuple[int, ...], dict[str, Any]]]:
    """Yield every summary, each window of one that has them: its arguments, and the columns that tell its row."""
    for summary in summaries.SUMMARIES:
        for window in windows if summary.windows else (None,):
            name = "" if window is None else window_name(window)
            yield summary, window or (), {"window": name, "detail": summary.detail}


def shape_of(spectrum: Spectrum) -> tuple[int, int, bool]:
    """Return the shape (n, d, centred) of the matrix that a spectrum is of."""
    return spectrum.n or len(spectrum), spectrum.d or len(spectrum), bool(spectrum.centred)


@lru_cache(maxsize=4096)
def null_level(summary: summaries.Summary, arguments: tuple[int, ...], shape: tuple[int, int, bool]) -> float:
    """Return the mean of a summary over noise of one shape (n, d, centred), computed once for all measurements.

    NaN where the summary has no value for noise of this shape.
    """
    return float(np.mean([_number(summary.of(s, *arguments)) for s in noise_spectra(*shape)]))


@lru_cache(maxsize=64)
def noise_spectra(n: int, d: int, centred: bool) -> tuple[Spectrum, ...]:
    """Return spectra of Gaussian matrices (n, d) with independent entries of unit variance, from a fixed seed."""
    generator = np.random.default_rng([n, d, centred])
    if max(n, d) <= DRAWN_SIDE:
        return tuple(
            covariance_spectrum(generator.standard_normal((n, d)), center=centred) for _ in range(NULL_DRAWS)
        )
    # Millions of tokens or parameters are not drawn but the eigenvalues, which have the same law. Centring takes a row.
    freedom = n - centred
    drawn = noise_energies(freedom, d, generator, NULL_DRAWS) / freedom
    drawn = np.pad(drawn, ((0, 0), (0, min(n, d) - drawn.shape[1])))
    return tuple(Spectrum(values, n=n, d=d, centred=centred) for values in drawn)


def _number(value) -> float:
    return float(getattr(value, "value", value))
