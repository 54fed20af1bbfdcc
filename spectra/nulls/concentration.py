"""Return the null laws of H_S and H_peak: class means that are only noise.

With independent rows N(0, σ²I_d), the energy of a conjugate pair is Gamma(d) and that of the frequency c/2
(even c only, a real vector with half the degrees of freedom) is Gamma(d/2), all of one scale and
independent. Shares of them are Dirichlet.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import scipy
from numpy.typing import ArrayLike

from spectra.arrays import real, to_float64, whole
from spectra.bands import closed_frequencies, require_modulus
from spectra.errors import InputError
from spectra.nulls.arguments import levels, number
from spectra.shown import Shown
from spectra.spectrum import Spectrum, SpectrumLike, as_spectrum
from spectra.summaries import participation_ratio

# Fixed in advance: the standard error of a simulated mean is below 1 % of the null's standard deviation.
DRAWS = 20_000
WEIGHTED_DRAWS = 4_000


@dataclass(frozen=True)
class BetaNull(Shown):
    """Hold a Beta(a, b) law of a share under the null.

    >>> BetaNull(2.0, 6.0).mean
    0.25
    """

    a: float
    b: float

    def __post_init__(self) -> None:
        if not (0 < self.a < np.inf and 0 < self.b < np.inf):
            raise InputError(f"a is {self.a:g} and b {self.b:g}; a Beta law has positive, finite parameters")

    def _shown(self) -> Mapping[str, object]:
        return {"a": self.a, "b": self.b, "mean": self.mean, "standard deviation": self.std}

    @property
    def mean(self) -> float:
        """Return the mean a/(a + b)."""
        return self.a / (self.a + self.b)

    @property
    def std(self) -> float:
        """Return the standard deviation of the share."""
        return float(scipy.stats.beta.std(self.a, self.b))

    def quantile(self, q: ArrayLike) -> np.ndarray:
        """Return the quantiles of the share at levels q."""
        return np.asarray(scipy.stats.beta.ppf(levels(q), self.a, self.b))

    def p_value(self, share: float) -> float:
        """Return P(null share ≥ the observed one)."""
        return float(scipy.stats.beta.sf(number(share, "the share"), self.a, self.b))


@dataclass(frozen=True, eq=False)
class SampledNull(Shown):
    """Hold a null law as sorted draws from it.

    Args:
        values: (draws,) in any order; stored ascending and read-only.

    Raises:
        InputError: no draws, not 1-D, NaN or Inf.

    >>> SampledNull(np.arange(9.0)).p_value(8.0)
    0.2
    """

    values: np.ndarray

    def __post_init__(self) -> None:
        values = np.sort(to_float64(self.values, name="the draws", ndim=1))
        if not len(values):
            raise InputError("there are no draws; a null law needs at least one")
        values.setflags(write=False)
        object.__setattr__(self, "values", values)

    def _shown(self) -> Mapping[str, object]:
        return {"draws": self.values, "mean": self.mean, "standard deviation": self.std}

    @property
    def mean(self) -> float:
        """Return the mean of the draws."""
        return float(self.values.mean())

    @property
    def std(self) -> float:
        """Return the standard deviation of the draws."""
        return float(self.values.std(ddof=1))

    def quantile(self, q: ArrayLike) -> np.ndarray:
        """Return the quantiles of the draws at levels q."""
        return np.quantile(self.values, levels(q))

    def p_value(self, value: float) -> float:
        """Return (1 + #{draws ≥ value})/(1 + draws), never 0."""
        reached = len(self.values) - int(
            np.searchsorted(self.values, number(value, "the value"), side="left")
        )
        return (1 + reached) / (1 + len(self.values))


def h_s_null(c: int, d: float, frequencies: Iterable[int]) -> BetaNull:
    """Return the law of H_S of noise.

    Beta(d|S|/2, d(c−1−|S|)/2), of mean |S|/(c−1).

    For odd c, K = (c−1)/2 and |S| = 2s this is Beta(ds, d(K−s)); for even c the frequency c/2 counts half a
    pair, since its Fourier coefficient is real. Exact for isotropic Gaussian rows; for correlated columns
    pass `effective_dimension`.

    Args:
        c: modulus, at least 3.
        d: number of columns, or the effective number.
        frequencies: closed set S, fixed before looking at the data (for a chosen set see `h_top_k_null`).

    Raises:
        InputError: S not a closed set, or all frequencies, for which H_S = 1 always; d not positive.

    >>> round(h_s_null(11, 16, [1, 10]).mean, 6)
    0.2
    """
    d = _dimension(d)
    size = len(closed_frequencies(frequencies, c))
    if size == c - 1:
        raise InputError(
            f"S holds all {c - 1} frequencies of modulus {c}, so H_S is always 1; choose a smaller set"
        )
    return BetaNull(d * size / 2, d * (c - 1 - size) / 2)


def h_peak_null(c: int, d: float | Spectrum) -> SampledNull:
    """Draw the law of H_peak of noise, with a fixed seed.

    Cached. H_peak is one side of the largest pair; the masses have a Dirichlet law.

    Mean 0.0126 for c = 97 and 0.0069 for c = 179 at d = 128, but 0.18 for c = 7.

    Args:
        c: modulus, at least 3 (for c = 3 the value is always 1/2).
        d: number of columns of isotropic noise (20,000 draws); or the spectrum of the noise's covariance Σ,
            for which the energies are drawn exactly as Σ_j λ_j·Gamma(1) (4,000 draws, a second for 128
            columns).

    Raises:
        InputError: c below 3 or d not positive.

    >>> round(h_peak_null(97, 128).mean, 4)
    0.0126
    """
    return _peak_null(require_modulus(c), *_columns(d))


def h_top_k_null(c: int, d: float | Spectrum, k: int) -> SampledNull:
    """Draw the law of H_S of noise for the k largest pairs.

    S = `top_k_band(H, k)` is chosen from the data it is measured on; other arguments as `h_peak_null`.

    Raises:
        InputError: c below 3, d not positive, or k outside 1..⌊c/2⌋.

    >>> round(h_top_k_null(7, 128, k=3).mean, 6)
    1.0
    """
    c, k = require_modulus(c), whole(k, "k")
    if not 1 <= k <= c // 2:
        raise InputError(f"k is {k}; modulus {c} has {c // 2} conjugate pairs: ask for 1..{c // 2}")
    return _top_k_null(c, *_columns(d), k)


def effective_dimension(spectrum: SpectrumLike) -> float:
    """Return (tr Σ)²/tr Σ², the d of correlated noise.

    Use it as d in the null laws when the noise has covariance Σ.

    An approximation: it keeps the first two moments of ‖Ĥ_r‖² and treats the rest as Gamma. For λ_j = 1/j,
    d = 64 and c = 31 it is accurate for H_S (95 % quantile .174, simulated .176), but too narrow for H_peak (.061,
    simulated .066), a maximum that depends on the tail: give `h_peak_null` the spectrum instead.

    Args:
        spectrum: of Σ, or its eigenvalues.

    Raises:
        InputError: as `Spectrum`.

    >>> effective_dimension([1.0, 1.0, 0.0])
    2.0
    """
    return participation_ratio(as_spectrum(spectrum))


@lru_cache(maxsize=64)
def _peak_null(c: int, weights: tuple[float, ...], shape: float) -> SampledNull:
    one_sided = _folded_shares(c, weights, shape) / 2
    if c % 2 == 0:
        one_sided[:, -1] *= 2
    return SampledNull(one_sided.max(axis=1))


@lru_cache(maxsize=64)
def _top_k_null(c: int, weights: tuple[float, ...], shape: float, k: int) -> SampledNull:
    shares = np.partition(_folded_shares(c, weights, shape), -k, axis=1)
    return SampledNull(shares[:, -k:].sum(axis=1))


def _columns(d: float | Spectrum) -> tuple[tuple[float, ...], float]:
    """Return weights and Gamma shape of the energy of a pair: d equal columns need one draw, of shape d."""
    if isinstance(d, Spectrum):
        return tuple(float(share) for share in d.shares if share > 0), 1.0
    return (1.0,), _dimension(d)


# Several nulls of one band use the same draws, one after the other.
@lru_cache(maxsize=1)
def _folded_shares(c: int, weights: tuple[float, ...], shape: float) -> np.ndarray:
    """(draws, ⌊c/2⌋) shares of the conjugate pairs r = 1.., the frequency c/2 last for even c."""
    shapes = np.full(c // 2, shape)
    if c % 2 == 0:
        shapes[-1] /= 2
    rng = np.random.default_rng(0)
    energies = np.zeros((DRAWS if len(weights) == 1 else WEIGHTED_DRAWS, c // 2))
    for weight in weights:
        energies += weight * rng.standard_gamma(shapes, size=energies.shape)
    totals = energies.sum(axis=1, keepdims=True)
    if not totals.all():
        raise InputError(f"d is {shape:g}; float64 cannot hold the energies of so few columns")
    shares = energies / totals
    shares.setflags(write=False)
    return shares


def _dimension(d: float) -> float:
    columns = real(d, "d")
    if not 0 < columns < np.inf:
        raise InputError(f"d is {d}; the number of columns must be positive and finite")
    return columns
