"""One set of summaries for every spectrum, each beside its value for pure noise of the same shape."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from sims.measure.rows import MeasurementRows
from sims.runs.measure_config import HEAD_WINDOW, PUBLISHED_WINDOW, Window, window_name
from spectra import (
    Spectrum,
    covariance_spectrum,
    participation_ratio,
    rankme,
    stable_rank,
    top_share,
    window_exponent,
)
from spectra.finite_sample import sample_eigenvalues

# Rank windows of the exponents of gradient and weight spectra.
SINGULAR_WINDOWS: tuple[Window, ...] = (HEAD_WINDOW, PUBLISHED_WINDOW)
TOP = 10
NULL_DRAWS = 8
# Wider matrices have the spectrum of their Gram matrix nearly constant; drawing them in full would cost more than
# the measurement itself.
NULL_WIDTH = 16_384


def summarise(
    sheet: MeasurementRows, object_: str, site: str, spectrum: Spectrum, windows: Sequence[Window]
) -> None:
    """Store a spectrum and its summaries: exponents, RankMe, participation ratio, stable rank, top-10 share.

    The null of each is its mean over draws of independent Gaussian entries of the same shape.
    """
    sheet.spectrum(object_, site, spectrum)
    null = noise_spectra(spectrum.n or len(spectrum), spectrum.d or len(spectrum), bool(spectrum.centred))

    def add(quantity: str, function, **which: Any) -> None:
        level = float(np.mean([_number(function(s)) for s in null]))
        sheet.row(quantity, object_, site, function(spectrum), null=level, **which)

    for window in windows:
        add("alpha", lambda s, w=window: window_exponent(s, *w), window=window_name(window))
    add("rankme", rankme)
    add("participation_ratio", participation_ratio)
    add("stable_rank", stable_rank)
    add("top_share", lambda s: top_share(s, min(TOP, len(s))), detail=str(TOP))
    sheet.row("trace", object_, site, spectrum.trace)


@lru_cache(maxsize=64)
def noise_spectra(n: int, d: int, centred: bool) -> tuple[Spectrum, ...]:
    """Spectra of Gaussian matrices (n, d) with independent entries of unit variance, from a fixed seed."""
    generator = np.random.default_rng([n, d, centred])
    if n > max(NULL_WIDTH, d):
        # Millions of rows (tokens of a text) are not drawn but their Wishart matrix, which has the same law.
        drawn = sample_eigenvalues(np.ones(d), n - 1 if centred else n, generator, NULL_DRAWS)
        return tuple(Spectrum(values, n=n, d=d, centred=centred) for values in drawn)
    width = min(d, max(NULL_WIDTH, n))
    return tuple(
        covariance_spectrum(generator.standard_normal((n, width)), center=centred) for _ in range(NULL_DRAWS)
    )


def _number(value) -> float:
    return float(getattr(value, "value", value))
