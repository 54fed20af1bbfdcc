"""Simulate the spectral edge of a window of updates under noise and momentum."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import scipy

from spectra.arrays import real, whole
from spectra.errors import InputError


@dataclass(frozen=True, eq=False)
class EdgeNull:
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

    @property
    def k(self) -> int:
        """Return the most frequent k*."""
        return int(np.bincount(self.ks).argmax())

    @property
    def gap(self) -> float:
        """Return the median gap."""
        return float(np.median(self.gaps))

    def p_value(self, k: int, gap: float) -> float:
        """Return (1 + #{windows with same k*, gap ≥ observed}) / (1 + draws)."""
        reached = int(np.sum((self.ks == k) & (self.gaps >= gap)))
        return (1 + reached) / (1 + len(self.ks))


def edge_null(window: int, dimension: float, momentum: float, draws: int = 1000, seed: int = 0) -> EdgeNull:
    """Simulate spectral edges of noise under momentum.

    W consecutive values of m_t = β m_{t−1} + (1−β) g_t with white Gaussian g_t in P dimensions.

    In its stationary state the window has rows of covariance β^|i−j|, so X Xᵀ is a Wishart matrix with that
    scale and P degrees of freedom, which is drawn through its triangular (Bartlett) factor at a cost that
    does not depend on P. As P grows, the gap tends to √(λ₁/λ₂) of the Toeplitz matrix (β^|i−j|): for
    W = 10, k* = 1 in every window at β ≥ 0.9, but k* = 2 at β = 0.5, and any k* at β = 0.

    Args:
        window: W ≥ 2.
        dimension: P ≥ 1, or the effective number of independent noise directions.
        momentum: β in [0, 1).
        draws: number of simulated windows.
        seed: of the simulation; results are cached by all arguments.

    Raises:
        InputError: an argument outside its range.

    >>> edge_null(10, 10_000, momentum=0.9, draws=50).k
    1
    """
    window, dimension = whole(window, "window"), real(dimension, "dimension")
    momentum, draws, seed = real(momentum, "momentum"), whole(draws, "draws"), whole(seed, "seed", least=0)
    if window < 2 or not 1 <= dimension < math.inf or not 0.0 <= momentum < 1.0 or draws < 1:
        raise InputError(
            f"window {window}, dimension {dimension}, momentum {momentum}, draws {draws}: they must "
            "be at least "
            "2, at least 1, in [0, 1), and at least 1"
        )
    return _simulated(window, dimension, momentum, draws, seed)


@lru_cache(maxsize=64)
def _simulated(window: int, dimension: float, momentum: float, draws: int, seed: int) -> EdgeNull:
    rng = np.random.default_rng(seed)
    scale = np.linalg.cholesky(scipy.linalg.toeplitz(momentum ** np.arange(window)))
    noise = noise_factors(window, dimension, draws, rng)
    values = np.linalg.svd(scale @ noise, compute_uv=False)
    # With fewer dimensions than updates the rank is P, and so is the edge.
    values = np.pad(values, ((0, 0), (0, window - values.shape[1])))
    edges = [window_edge(row) for row in values]
    return EdgeNull(np.array([k for k, _ in edges]), np.array([gap for _, gap in edges]))


def window_edge(values: np.ndarray) -> tuple[int, float]:
    """Find k* and its gap in descending singular values.

    The largest σ_j/σ_{j+1}; inf at the rank where σ falls to 0.
    """
    rank = int(np.count_nonzero(values))
    if rank < len(values):
        return rank, float("inf")
    ratios = values[:-1] / values[1:]
    k = int(np.argmax(ratios))
    return k + 1, float(ratios[k])


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
