"""Simulate the spectral edge of a window of updates under noise, momentum and the window's own properties."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import scipy
from numpy.typing import ArrayLike

from spectra.arrays import brief, real, to_float64, whole
from spectra.errors import InputError
from spectra.nulls.arguments import number
from spectra.shown import Shown, data_frame

if TYPE_CHECKING:
    import pandas as pd

# More training steps than this between two snapshots are taken for a mistake.
MOST_STRIDE = 10**6
# Where it is not known, the number of independent directions of gradient noise is taken to lie between these.
EFFECTIVE_DIMENSIONS = (1e3, 1e5)
# Eigenvalues of measured correlations below this are noise of their estimate.
LEAST_EIGENVALUE = 1e-6


@dataclass(frozen=True, eq=False)
class EdgeNull(Shown):
    """Hold the edges of simulated windows of noise under momentum.

    Attributes:
        ks: (draws,) k* of each window.
        gaps: (draws,) σ_k/σ_{k+1} at its k*.

    >>> null = EdgeNull(np.array([1, 1, 2]), np.array([2.0, 3.0, 4.0]))
    >>> null.k, null.p_value(k=1, gap=2.5)
    (1, 0.5)
    """

    ks: np.ndarray
    gaps: np.ndarray

    def _shown(self) -> Mapping[str, object]:
        return {"draws": len(self.ks), "most frequent k": self.k, "median gap": self.gap}

    def to_frame(self) -> pd.DataFrame:
        """Return one row for each simulated window: k, gap.

        Raises:
            ImportError: without pandas.

        >>> EdgeNull(np.array([1, 2]), np.array([2.0, 3.0])).to_frame()["k"].tolist()
        [1, 2]
        """
        return data_frame({"k": self.ks, "gap": self.gaps})

    @property
    def k(self) -> int:
        """Return the most frequent k*."""
        return int(np.bincount(self.ks).argmax())

    @property
    def gap(self) -> float:
        """Return the median gap."""
        return float(np.median(self.gaps))

    def p_value(self, k: int | None, gap: float) -> float:
        """Return (1 + #{windows with k* = k, gap ≥ observed}) / (1 + draws).

        With k None, windows of any k* count, which tests whether there is an edge. A number k tests an edge at this k*,
        fixed beforehand: of the k* that the window chose, one that is rare in noise has a small value by itself.

        Raises:
            InputError: a gap that is NaN, or k that is no whole number.

        >>> EdgeNull(np.array([1, 1, 2]), np.array([2.0, 3.0, 4.0])).p_value(None, gap=2.5)
        0.75
        """
        same = np.ones(len(self.ks), dtype=bool) if k is None else self.ks == whole(k, "k")
        reached = int(np.sum(same & (self.gaps >= number(gap, "the gap"))))
        return (1 + reached) / (1 + len(self.ks))


def edge_null(
    window: int,
    dimension: float,
    momentum: float = 0.0,
    draws: int = 1000,
    seed: int = 0,
    *,
    stride: int = 1,
    norms: ArrayLike | None = None,
    correlations: ArrayLike | None = None,
    most: int | None = None,
) -> EdgeNull:
    """Simulate spectral edges of noise under momentum.

    Each update is the sum of s consecutive values of m_t = β m_{t−1} + (1−β) g_t with white Gaussian g_t in P
    dimensions; W consecutive updates make a window.

    In its stationary state the window has rows of correlation ρ(|i−j|) (`momentum_correlations`), so X Xᵀ is a Wishart
    matrix with that scale and P degrees of freedom, which is drawn through its triangular (Bartlett) factor at a cost
    that does not depend on P. As P grows, the gap tends to √(λ_k/λ_{k+1}) of the Toeplitz matrix (ρ(|i−j|)): for
    W = 10 and s = 1, k* = 1 in every window at β ≥ 0.9, but k* = 2 at β = 0.5, and any k* at β = 0. At β = 0.9 the
    gap is 2.25 for s = 1, 1.30 for s = 5 and 1.08 for s = 25.

    Three nulls, each with one more property of the window: momentum alone; ``norms``, with the observed lengths of
    the updates (ten independent updates of which three are 1.3 times longer have k* = 3); ``norms`` and
    ``correlations``, with the observed mean correlations by lag in place of those of momentum.

    Args:
        window: W ≥ 2.
        dimension: P ≥ 1, or the effective number of independent noise directions. Where it is not known, see
            `edge_p_range`.
        momentum: β in [0, 1); leave it at 0 with ``correlations``.
        draws: number of simulated windows.
        seed: of the simulation; results of momentum alone are cached by all arguments.
        stride: s, training steps from one snapshot of the weights to the next, at most 10⁶.
        norms: (W,) norms that the simulated updates get exactly; ones for the null of a row-normalised window. None
            leaves them at those of noise, equal but for its fluctuation.
        correlations: (W−1,) mean correlation of updates 1, 2, … apart. Negative eigenvalues of their Toeplitz
            matrix, which averages over few pairs can have, are raised to 1e-6, and its diagonal set back to 1.
        most: J, the largest k* sought, W−1 when None.

    Raises:
        InputError: an argument outside its range, or momentum together with correlations.

    >>> edge_null(10, 10_000, momentum=0.9, draws=50).k
    1
    >>> edge_null(10, 10_000, norms=[1.0] * 7 + [1.3] * 3, draws=50).k
    3
    """
    most = largest_k(most, whole(window, "window"))
    values = null_values(
        window, dimension, momentum, draws, seed, stride=stride, norms=norms, correlations=correlations
    )
    return EdgeNull(*find_edges(values, most))


def null_values(
    window: int,
    dimension: float,
    momentum: float = 0.0,
    draws: int = 1000,
    seed: int = 0,
    *,
    stride: int = 1,
    norms: ArrayLike | None = None,
    correlations: ArrayLike | None = None,
) -> np.ndarray:
    """Simulate the singular values behind `edge_null`, (draws, W), descending.

    One simulation serves several J. Arguments and errors as `edge_null`.

    >>> values = null_values(10, 10_000, momentum=0.9, draws=50)
    >>> values.shape, EdgeNull(*find_edges(values, most=5)).k
    ((50, 10), 1)
    """
    window, dimension = whole(window, "window"), real(dimension, "dimension")
    momentum, draws, seed = real(momentum, "momentum"), whole(draws, "draws"), whole(seed, "seed", least=0)
    if window < 2 or not 1 <= dimension < math.inf or not 0.0 <= momentum < 1.0 or draws < 1:
        raise InputError(
            f"window {window}, dimension {dimension}, momentum {momentum}, draws {draws}: they must "
            "be at least 2, at least 1, in [0, 1), and at least 1"
        )
    stride = whole(stride, "stride", least=1, most=MOST_STRIDE)
    lengths = None if norms is None else _norms(norms, window)
    if correlations is None:
        if lengths is None or (lengths == 1).all():
            return _simulated(window, dimension, momentum, stride, draws, seed, lengths is not None)
        root = _momentum_root(window, momentum, stride)
    elif momentum > 0:
        raise InputError(
            f"momentum is {momentum} and correlations are given, which take its place; leave one of them out"
        )
    else:
        root = _measured_root(correlations, window)
    return _values(root, dimension, lengths, draws, seed)


def edge_p_range(
    gap: float,
    window: int,
    momentum: float = 0.0,
    *,
    k: int | None = None,
    dimensions: Sequence[float] = EFFECTIVE_DIMENSIONS,
    draws: int = 1000,
    seed: int = 0,
    stride: int = 1,
    norms: ArrayLike | None = None,
    correlations: ArrayLike | None = None,
    most: int | None = None,
) -> tuple[float, float]:
    """Return the smallest and the largest p-value of an edge over numbers of independent noise directions.

    That number is seldom known; an edge is significant where the largest p-value of any k* is small.

    Args:
        gap: the observed gap.
        window: W.
        momentum: as the others not named here, that of `edge_null`.
        k: a k* that was fixed beforehand; None counts the gaps of any k*, as an edge that was looked for needs.
        dimensions: the numbers of directions to try.

    Raises:
        InputError: as `edge_null` and `EdgeNull.p_value`, or no dimensions.

    >>> low, high = edge_p_range(1.03, 10, draws=200)
    >>> low < 0.01 < high
    True
    """
    tried = to_float64(dimensions, name="dimensions", ndim=1)
    if len(tried) == 0:
        raise InputError("no dimensions are given; pass one or more, for instance (1e3, 1e5)")
    nulls = [
        edge_null(
            *(window, float(dimension), momentum, draws, seed),
            stride=stride,
            norms=norms,
            correlations=correlations,
            most=most,
        )
        for dimension in tried
    ]
    values = [null.p_value(k, gap) for null in nulls]
    return min(values), max(values)


def momentum_correlations(window: int, momentum: float, stride: int = 1) -> np.ndarray:
    """Return how updates are correlated that are sums of s steps of an exponential moving average of white noise.

    (W,) correlation of two updates 0, 1, …, W−1 snapshots apart:
    ρ(l) = β^{(l−1)s+1} (Σ_{i<s} β^i)² / (s + 2 Σ_{0<i<s} (s−i) β^i), and ρ(0) = 1. For s = 1 this is β^l.

    >>> momentum_correlations(2, 0.9, stride=5).round(3)
    array([1.   , 0.709])
    """
    lags = np.arange(window)
    if stride == 1:
        return momentum**lags
    # Sums of positive terms: the closed forms cancel as β tends to 1.
    steps = np.arange(stride)
    powers = momentum**steps
    variance = stride + 2 * float(((stride - steps) * powers)[1:].sum())
    apart = momentum ** ((lags[1:] - 1.0) * stride + 1)
    return np.concatenate([[1.0], apart * powers.sum() ** 2 / variance])


@lru_cache(maxsize=64)
def _simulated(
    window: int, dimension: float, momentum: float, stride: int, draws: int, seed: int, unit: bool
) -> np.ndarray:
    norms = np.ones(window) if unit else None
    values = _values(_momentum_root(window, momentum, stride), dimension, norms, draws, seed)
    values.flags.writeable = False
    return values


@lru_cache(maxsize=8)
def _factors(window: int, dimension: float, draws: int, seed: int) -> np.ndarray:
    """Draw the noise that windows of one size have in common, whatever their norms and correlations."""
    factors = noise_factors(window, dimension, draws, np.random.default_rng(seed))
    factors.flags.writeable = False
    return factors


def _values(
    root: np.ndarray, dimension: float, norms: np.ndarray | None, draws: int, seed: int
) -> np.ndarray:
    """Draw windows of noise whose rows have the correlation A Aᵀ, A the root; return their singular values."""
    window = len(root)
    rows = root @ _factors(window, dimension, draws, seed)
    if norms is not None:
        rows *= norms[:, None] / np.linalg.norm(rows, axis=2, keepdims=True)
    values = np.linalg.svd(rows, compute_uv=False)
    if norms is not None and not norms.all():
        values[:, np.count_nonzero(norms) :] = 0.0
    # With fewer dimensions than updates the rank is P, and so is the edge.
    return np.pad(values, ((0, 0), (0, window - values.shape[1])))


def _momentum_root(window: int, momentum: float, stride: int) -> np.ndarray:
    correlation = scipy.linalg.toeplitz(momentum_correlations(window, momentum, stride))
    try:
        return np.linalg.cholesky(correlation)
    except np.linalg.LinAlgError:
        # So close to 1 that the updates are equal up to rounding.
        return _root(correlation, least=0.0)


def _measured_root(correlations: ArrayLike, window: int) -> np.ndarray:
    array = to_float64(correlations, name="correlations", ndim=1)
    if len(array) != window - 1 or np.abs(array).max() > 1 + 1e-12:
        raise InputError(
            f"correlations are {brief(correlations)}; a window of {window} updates has {window - 1}, of lags 1 to "
            f"{window - 1}, in [−1, 1]"
        )
    root = _root(scipy.linalg.toeplitz(np.concatenate([[1.0], array])), least=LEAST_EIGENVALUE)
    return root / np.linalg.norm(root, axis=1, keepdims=True)


def _root(matrix: np.ndarray, least: float) -> np.ndarray:
    energies, vectors = np.linalg.eigh(matrix)
    return vectors * np.sqrt(np.maximum(energies, least))


def _norms(norms: ArrayLike, window: int) -> np.ndarray:
    array = to_float64(norms, name="norms", ndim=1)
    if len(array) != window or array.min() < 0 or array.max() == 0:
        raise InputError(
            f"norms are {brief(norms)}; pass the {window} norms of the window's updates, not negative and not all 0"
        )
    return array / array.max()


def largest_k(most: int | None, window: int) -> int:
    """Return J, the largest k* sought in a window of W updates: W−1 when None."""
    return window - 1 if most is None else whole(most, "most", least=1, most=window - 1)


def edge_ratios(values: np.ndarray) -> np.ndarray:
    """Return σ_j/σ_{j+1} of descending singular values along the last axis; inf wherever σ_{j+1} is 0."""
    above, below = values[..., :-1], values[..., 1:]
    return np.divide(above, below, out=np.full(above.shape, np.inf), where=below > 0)


def find_edges(values: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Find k* and its gap in descending singular values, one window a row.

    The first of the largest σ_j/σ_{j+1}, j ≤ J; inf at the rank where σ falls to 0.
    """
    ratios = edge_ratios(values)[:, :most]
    ks = ratios.argmax(axis=1)
    return ks + 1, ratios[np.arange(len(ks)), ks]


def noise_factors(rows: int, columns: float, draws: int, rng: np.random.Generator) -> np.ndarray:
    """Draw F with F Fᵀ distributed as X Xᵀ of noise.

    (draws, rows, min(rows, columns)); X is white Gaussian, rows × columns.
    """
    if columns < rows:
        return rng.standard_normal((draws, rows, round(columns)))
    factors = np.tril(rng.standard_normal((draws, rows, rows)), -1)
    index = np.arange(rows)
    factors[:, index, index] = np.sqrt(rng.chisquare(columns - index, size=(draws, rows)))
    return factors
