"""Test whether the largest eigenvalue exceeds white noise: the Tracy–Widom law, β = 1.

The distribution function is a Fredholm determinant, F₁(s) = det(I − A_s) with A_s(x, y) = Ai(x + y + s) on
L²(0, ∞) (Ferrari and Spohn 2005), computed by Gauss–Legendre quadrature (Bornemann 2010), exact to
rounding. Centring and scaling of the largest eigenvalue: Johnstone (2001), as corrected by Ma (Bernoulli 18, 2012).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import scipy
from numpy.typing import ArrayLike

from spectra.arrays import brief, real
from spectra.errors import InputError
from spectra.nulls.arguments import points
from spectra.nulls.marchenko_pastur import MarchenkoPastur
from spectra.shown import Shown
from spectra.spectrum import Spectrum

# Ai(x) is below 1e-13 at x = 12, so (0, 12 + max(0, −s)) holds the operator; 32 nodes resolve F₁ to 1e-13.
REACH = 12.0
NODES = 32
# Outside of this, F₁ is 0 or 1 to the last digit.
SUPPORT = (-12.0, 14.0)
# Share of the spectrum that may be signal; the noise is estimated from the rest.
TRIMMED = 0.1
LEAST_BULK = 3


@dataclass(frozen=True)
class EdgeTest(Shown):
    """Hold the test of the largest eigenvalue against white noise.

    Attributes:
        statistic: (l₁ − μ)/s, Tracy–Widom distributed under the null.
        p_value: P(null statistic ≥ the observed one).
        variance: noise variance used.
        edge: the eigenvalue that has a p-value of 0.05, in the units of the spectrum's energies.

    >>> spectrum = Spectrum([9.0, 1.1, 1.0, 0.9], n=50, d=4, centred=True)
    >>> tracy_widom_test(spectrum, variance=1.0).statistic > 10
    True
    """

    statistic: float
    p_value: float
    variance: float
    edge: float


def tracy_widom_cdf(s: ArrayLike) -> np.ndarray:
    """Return F₁(s), the law of the largest eigenvalue.

    β = 1: mean −1.2065, variance 1.6078, 95 % quantile 0.9793.

    >>> tracy_widom_cdf([-1.2686, 0.9793]).round(3)
    array([0.5 , 0.95])
    """
    return np.exp(_log_cdf(s))


def tracy_widom_sf(s: ArrayLike) -> np.ndarray:
    """Return 1 − F₁(s), accurate far into the right tail.

    >>> round(float(tracy_widom_sf(0.9793)), 3)
    0.05
    """
    return -np.expm1(_log_cdf(s))


def tracy_widom_quantile(q: float) -> float:
    """Return s with F₁(s) = q.

    Raises:
        InputError: q not strictly between 0 and 1.

    >>> round(tracy_widom_quantile(0.95), 3)
    0.979
    """
    level = real(q, "the level")
    if not 0.0 < level < 1.0:
        raise InputError(f"the level is {q}; it must lie strictly between 0 and 1")
    return _quantile(level)


@lru_cache(maxsize=256)
def _quantile(q: float) -> float:
    if not tracy_widom_cdf(SUPPORT[0]) < q < tracy_widom_cdf(SUPPORT[1]):
        raise InputError(f"the level is {q:g}; float64 resolves F₁ to about 1e-16 only")
    root = scipy.optimize.brentq(lambda s: float(tracy_widom_cdf(s)) - q, *SUPPORT, xtol=1e-12)
    return float(np.asarray(root))


def tracy_widom_test(spectrum: Spectrum, variance: float | None = None) -> EdgeTest:
    """Test whether the top eigenvalue exceeds white noise, one-sided.

    Compares l₁ of XᵀX with μ + s·TW₁, where

    μ = (√(ν−½) + √(d−½))²,  s = (√(ν−½) + √(d−½))(1/√(ν−½) + 1/√(d−½))^{1/3},

    in units of σ², ν = n, or n − 1 where the mean was removed. Both are the same for Xᵀ.

    Args:
        spectrum: with n, d and `centred` known. Eigenvalues are taken as those of XᵀX/ν, singular values as
            those of X.
        variance: σ² of the noise per coordinate. None estimates it from all but the top tenth of the
            energies, so that a few spikes do not change it.

    Raises:
        InputError: n, d or centred unknown, fewer than 3 degrees of freedom, variance not positive, or none given for
            fewer than 3 energies.

    >>> from spectra import covariance_spectrum
    >>> x = np.random.default_rng(0).standard_normal((50, 10)) * [5.0, *[1.0] * 9]
    >>> tracy_widom_test(covariance_spectrum(x)).p_value < 1e-6
    True
    """
    if not isinstance(spectrum, Spectrum):
        raise InputError(f"{brief(spectrum)} lacks n, d and centred; pass a Spectrum that has them")
    if variance is not None:
        variance = real(variance, "the variance")
    if spectrum.n is None or spectrum.d is None or spectrum.centred is None:
        raise InputError(f"{spectrum!r} lacks n, d or centred; the edge of noise depends on them")
    freedom = spectrum.n - int(spectrum.centred)
    if freedom < 3 or (variance is not None and not 0 < variance < math.inf):
        raise InputError(
            f"{freedom} degrees of freedom and variance {variance}: need at least 3, and a positive one"
        )
    scale = freedom if spectrum.kind == "eigenvalue" else 1
    with np.errstate(over="ignore"):
        energies = spectrum.energies * scale
    if not math.isfinite(float(energies.sum())):
        raise InputError(
            f"{scale} times the largest energy {spectrum.energies[0]:.3g} exceeds float64; divide it first"
        )
    if variance is None:
        variance = _bulk_variance(energies[: min(freedom, spectrum.d)], freedom, spectrum.d)
    roots = math.sqrt(freedom - 0.5), math.sqrt(spectrum.d - 0.5)
    centre = sum(roots) ** 2
    spread = sum(roots) * (1 / roots[0] + 1 / roots[1]) ** (1 / 3)
    statistic = (float(energies[0]) / variance - centre) / spread
    edge = variance * (centre + spread * tracy_widom_quantile(0.95)) / scale
    return EdgeTest(statistic, float(tracy_widom_sf(statistic)), variance, edge)


def _bulk_variance(energies: np.ndarray, freedom: int, d: int) -> float:
    """Estimate σ² from the eigenvalues of XᵀX without their top tenth, relative to the Marchenko–Pastur law.

    A trimmed mean and not the median: the median's spread makes a 5 % test reject 8 to 11 % of pure noise.
    """
    law = MarchenkoPastur(d / freedom)
    rank = min(freedom, d)
    if rank < LEAST_BULK:
        raise InputError(
            f"{rank} energies without the largest are too few to estimate the noise from (the test would reject up to "
            "12 % of noise at 5 %); pass its variance"
        )
    levels = 1.0 - (np.arange(rank) + 0.5) / rank
    expected = freedom * law.quantile(law.atom + (1.0 - law.atom) * levels)
    kept = slice(math.ceil(TRIMMED * rank), len(energies))
    total = float(energies[kept].sum())
    if total == 0:
        raise InputError(
            f"nine tenths of the {rank} energies are zero, so the noise is unknown; pass its variance"
        )
    return total / float(expected[kept].sum())


def _log_cdf(s: ArrayLike) -> np.ndarray:
    """ln F₁(s) = Σ ln(1 − μ_i) over the eigenvalues of the discretised operator."""
    at = np.clip(points(s, "s"), *SUPPORT)
    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    result = np.empty(at.shape)
    for index, point in np.ndenumerate(at):
        length = REACH + max(0.0, -point)
        x = length * (nodes + 1) / 2
        root = np.sqrt(length * weights / 2)
        kernel = scipy.special.airy(x[:, None] + x[None, :] + point)[0]
        eigenvalues = np.linalg.eigvalsh(root[:, None] * kernel * root[None, :])
        result[index] = np.sum(np.log1p(-np.minimum(eigenvalues, 1 - 1e-16)))
    return result
