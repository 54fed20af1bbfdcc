"""Simulate Hill's exponent of noise: the spectrum of a Gaussian matrix spreads by its shape alone."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from spectra.arrays import whole
from spectra.errors import InputError
from spectra.nulls.noise import drawn_energies
from spectra.powerlaw import hill
from spectra.results import Estimate
from spectra.spectrum import Spectrum


def hill_null(n: int, d: int, k: int | None = None) -> Estimate:
    """Simulate Hill's exponent of matrices of independent Gaussian entries.

    Args:
        n, d: rows and columns of the matrix; the mean is not removed.
        k: as in `hill`; None means half of the values.

    Returns:
        Estimate: the mean over simulated matrices with a fixed seed (1000; fewer above 200 ranks, 10 at least), the
        interval that holds 95 % of them, and `std` and `draws` in the details.

    Raises:
        InputError: fewer than three rows or columns, or k outside 2..min(n, d) − 1.

    >>> square, wide = hill_null(64, 64), hill_null(64, 256)
    >>> bool(square.value < 2.3 < 3.1 < wide.value)
    True
    """
    n, d = whole(n, "n"), whole(d, "d")
    short = min(n, d)
    if short < 3:
        raise InputError(
            f"a {n}×{d} matrix has {max(short, 0)} singular values; an exponent needs at least three"
        )
    count = max(short // 2, 2) if k is None else whole(k, "k", least=2, most=short - 1)
    return _simulated(max(n, d), short, count)


def hill_z(spectrum: Spectrum, k: int | None = None, *, precision: float | None = None) -> Estimate:
    """Standardise Hill's exponent of a matrix: its distance from that of noise of the same shape, in deviations.

    z = (β − mean)/sd, with mean and sd of matrices of independent Gaussian entries (`hill_null`). Exponents of
    differently shaped matrices compare in z without a cut into tiles; below 0 the tail is heavier than that of noise.

    Noise has full rank. Where energies of 0 were dropped, k is half of those that are left, and z compares them with as
    many of the largest energies of a noise of full rank, of which they are a larger share: z of such a matrix (details
    ``dropped`` above 0) is not that of its tail alone, and does not compare with z of matrices of full rank.

    Args:
        spectrum: of a whole matrix with known n and d, as `weight_spectrum` returns it.
        k, precision: as in `hill`.

    Returns:
        Estimate of z, with details ``exponent``, ``mean``, ``std``, ``draws``, ``k`` and ``dropped``. "not fitted"
        where the exponent is.

    Raises:
        InputError: no spectrum, one without n and d or with its mean removed, fewer values than such a matrix has (a
            product of thin matrices), or k or precision outside its range.

    >>> from spectra import weight_spectrum
    >>> noise = np.random.default_rng(0).standard_normal((48, 96))
    >>> bool(abs(hill_z(weight_spectrum(noise)).value) < 3)
    True
    """
    if not isinstance(spectrum, Spectrum) or spectrum.n is None or spectrum.d is None or spectrum.centred:
        raise InputError(
            "pass the spectrum of a whole matrix that was not centred, as weight_spectrum returns it"
        )
    if len(spectrum) < min(spectrum.n, spectrum.d):
        raise InputError(
            f"the spectrum has {len(spectrum)} of the {min(spectrum.n, spectrum.d)} values of a {spectrum.n}×"
            f"{spectrum.d} matrix, and noise has all of them; pass that of a whole matrix (weight_spectrum)"
        )
    found = hill(spectrum, k, tests=False, precision=precision)
    if found.status == "not fitted":
        return found
    null = hill_null(spectrum.n, spectrum.d, int(found.details["k"]))
    mean, deviation = null.value, null.details["std"]
    details = {"exponent": found.value, "mean": mean, **null.details}
    kept = {name: found.details[name] for name in ("k", "dropped")}
    return Estimate((found.value - mean) / deviation, details={**details, **kept})


@lru_cache(maxsize=256)
def _simulated(tall: int, short: int, k: int) -> Estimate:
    energies = drawn_energies(tall, short)
    values = [hill(row, k, tests=False).value for row in energies]
    low, high = np.quantile(values, [0.025, 0.975])
    details = {"std": float(np.std(values, ddof=1)), "draws": len(values)}
    return Estimate(float(np.mean(values)), float(low), float(high), details=details)
