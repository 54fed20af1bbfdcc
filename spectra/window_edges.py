"""Find the spectral edges of all rolling windows of a run from one Gram matrix of its updates.

The window that ends at update t holds the last W updates, and its Gram matrix is a diagonal block of that of the run:
one matrix of all inner products serves every W.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from spectra.arrays import (
    EPS,
    TIED,
    Numbers,
    flag,
    machine_epsilon,
    require_inner_products,
    require_squares,
    to_float64,
    unit,
    whole,
)
from spectra.errors import InputError
from spectra.nulls.edge import edge_ratios, find_edges, largest_k
from spectra.shown import Shown, data_frame
from spectra.spectrum import NEGATIVE_TOLERANCE

if TYPE_CHECKING:
    import pandas as pd

# The energy that k95 directions hold.
SHARE = 0.95


@dataclass(frozen=True, eq=False)
class WindowEdges(Shown):
    """Hold the spectra and edges of the n windows of W updates of a run, in their order.

    Window i holds updates i, …, i + W − 1, counted from 0.

    Attributes:
        window: W.
        row_normalised: whether updates were divided by their norms first.
        values: (n, W) σ of each window, descending.
        norms: (n, W) norms of its updates, oldest first, after that division: 0 or 1 if row-normalised.
        correlations: (n, W−1) mean cosine of updates 1, 2, … apart.
        drift: (n,) norm of the mean update, ‖Σ δ‖/W.
        turns: (n−1,) direction change 1 − |⟨v, v'⟩| from one window to the next, v the first right singular vector; NaN
            where σ₁ and σ₂ of one of them are equal, so that none is the first.

    >>> edges = window_edges(np.diag([81.0, 64.0, 1.0, 1.0]), window=3)
    >>> edges.values.round(6).tolist(), edges.edges()[0].tolist()
    ([[9.0, 8.0, 1.0], [8.0, 1.0, 1.0]], [2, 1])
    """

    window: int
    row_normalised: bool
    values: np.ndarray
    norms: np.ndarray
    correlations: np.ndarray
    drift: np.ndarray
    turns: np.ndarray

    def _shown(self) -> Mapping[str, object]:
        ks, gaps = self.edges()
        return {
            "window": self.window,
            "windows": len(self.values),
            "row-normalised": self.row_normalised,
            "most frequent k*": int(np.bincount(ks).argmax()),
            "median gap": float(np.median(gaps)),
        }

    @property
    def ends(self) -> np.ndarray:
        """Return the (n,) number of the last update of each window, counted from 0."""
        return np.arange(len(self.values)) + self.window - 1

    @property
    def rank(self) -> np.ndarray:
        """Return the (n,) number of σ that are not 0; below min(W, P) where updates are zero, or repeat others."""
        return np.count_nonzero(self.values, axis=1)

    @property
    def ratios(self) -> np.ndarray:
        """Return the (n, W−1) fixed ratios σ_j/σ_{j+1}, r12 first; inf from the rank on, where σ_{j+1} is 0."""
        return edge_ratios(self.values)

    def edges(self, most: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Return k* = argmax_{j ≤ J} σ_j/σ_{j+1} and the gap there, (n,) each.

        At the rank, where σ falls to 0, the gap is inf.

        Args:
            most: J, W−1 when None. The last ratios of noise are large where P is not far above W; ⌊W/2⌋ leaves them
                out.

        Raises:
            InputError: J outside 1..W−1.
        """
        return find_edges(self.values, largest_k(most, self.window))

    @property
    def weighted_edges(self) -> tuple[np.ndarray, np.ndarray]:
        """Return k* = argmax_j (σ_j/Σσ)(σ_j/σ_{j+1}) and σ_k/σ_{k+1} there, (n,) each (arXiv 2603.28964)."""
        ratios = self.ratios
        weights = self.values[:, :-1] / self.values.sum(axis=1, keepdims=True)
        # Beyond the rank the weight is 0.
        weighted = np.where(weights > 0, ratios, 0.0) * weights
        ks = weighted.argmax(axis=1)
        return ks + 1, ratios[np.arange(len(ks)), ks]

    @property
    def g23(self) -> np.ndarray:
        """Return the (n,) eigenvalue gaps σ₂² − σ₃².

        Raises:
            InputError: windows of two updates.
        """
        if self.window < 3:
            raise InputError("windows of two updates have no σ₃; use windows of at least 3")
        return self.values[:, 1] ** 2 - self.values[:, 2] ** 2

    @property
    def pc1(self) -> np.ndarray:
        """Return the (n,) share σ₁²/Σσ² of the first direction."""
        return self._shares[:, 0]

    @property
    def k95(self) -> np.ndarray:
        """Return the (n,) least number of directions that hold 95 % of Σσ²."""
        held = np.cumsum(self._shares, axis=1)
        return 1 + np.count_nonzero(held < SHARE * (1 - 4 * EPS * self.window), axis=1)

    @property
    def mean_cosine(self) -> np.ndarray:
        """Return the (n,) mean cosine of two different updates of the window."""
        pairs = np.arange(self.window - 1, 0, -1)
        return self.correlations @ pairs / pairs.sum()

    @property
    def _shares(self) -> np.ndarray:
        scaled = (self.values / self.values[:, :1]) ** 2
        return scaled / scaled.sum(axis=1, keepdims=True)

    def to_frame(self) -> pd.DataFrame:
        """Return one row for each window.

        Its ``end`` is the number of its last update; ``k`` and ``gap`` are sought up to W−1, ``k_half`` and
        ``gap_half`` up to ⌊W/2⌋. The first window has no direction change (NaN, missing in pandas); windows too short
        for r23, r34 or g23 have no such column.

        Raises:
            ImportError: without pandas.

        >>> window_edges(np.diag([81.0, 64.0, 1.0, 1.0]), window=3).to_frame()["r12"].round(3).tolist()
        [1.125, 8.0]
        """
        (k, gap), (k_half, gap_half) = self.edges(), self.edges(max(1, self.window // 2))
        k_weighted, gap_weighted = self.weighted_edges
        columns: dict[str, object] = {
            "end": self.ends, "window": self.window, "rank": self.rank, "k": k, "gap": gap, "k_half": k_half,
            "gap_half": gap_half, "k_weighted": k_weighted, "gap_weighted": gap_weighted,
        }  # fmt: skip
        columns |= {f"r{j + 1}{j + 2}": self.ratios[:, j] for j in range(min(3, self.window - 1))}
        columns |= {"g23": self.g23} if self.window >= 3 else {}
        columns |= {
            "pc1": self.pc1, "k95": self.k95, "drift": self.drift, "direction_change": np.r_[np.nan, self.turns],
            "mean_cosine": self.mean_cosine, "lag1": self.correlations[:, 0],
        }  # fmt: skip
        return data_frame(columns)


def window_edges(gram: Numbers, window: int, *, row_normalised: bool = False) -> WindowEdges:
    """Find the spectra and edges of all windows of W successive updates from their inner products.

    Only full windows count. σ of a window are the square roots of the eigenvalues of its W×W block; the direction
    change is 1 − |uᵀ C u'|/(σ₁ σ₁'), with u the first eigenvectors of two windows and C the inner products between
    their updates, so that no vector of P numbers is needed. Energies that rounding explains (below W·ε of the first,
    ε of the dtype of the matrix) are 0.

    Args:
        gram: (N, N) inner products of the N updates of a run, added up in float64, oldest first: `UpdateWindow(N).gram`
            after N pushes, or that of a `SketchedWindow`.
        window: W, 2..N.
        row_normalised: whether to divide the updates by their norms first, so that an update is not an edge by its
            length alone; a zero update stays zero.

    Returns:
        `WindowEdges` of N − W + 1 windows, in units of an update.

    Raises:
        InputError: not a square, symmetric, positive semi-definite matrix, W outside 2..N, or a window whose updates
            are all zero.

    >>> edges = window_edges([[9.0, 0.0, 0.0], [0.0, 4.0, 0.0], [0.0, 0.0, 1.0]], window=3)
    >>> edges.values.round(6).tolist(), edges.ratios.round(6).tolist(), edges.edges()[0].tolist()
    ([[3.0, 2.0, 1.0]], [[1.5, 2.0]], [2])
    """
    epsilon = machine_epsilon(gram)
    tolerance = max(NEGATIVE_TOLERANCE, 8 * epsilon)
    matrix, scale = _gram(gram, tolerance)
    window = whole(window, "window", least=2, most=len(matrix))
    if flag(row_normalised, "row_normalised"):
        matrix, scale = unit_rows(matrix), 1.0
    blocks = _blocks(matrix, window)
    energies, vectors = np.linalg.eigh(blocks)
    if energies.min() < -tolerance * np.diag(matrix).max() * window:
        raise InputError(
            f"a window of the matrix has the eigenvalue {energies.min() * scale**2:.3g}; inner products of vectors "
            "have none below 0"
        )
    energies = energies[:, ::-1]
    if not energies[:, 0].all():
        first = int(np.flatnonzero(energies[:, 0] <= 0)[0])
        raise InputError(
            f"updates {first} to {first + window - 1} are all zero, and their window has no edge; leave the steps out "
            "at which the parameters did not move"
        )
    values = np.sqrt(
        np.where(energies > rounding(window, row_normalised, epsilon) * energies[:, :1], energies, 0.0)
    )
    return WindowEdges(
        window,
        bool(row_normalised),
        values * scale,
        np.sqrt(np.diagonal(blocks, axis1=1, axis2=2)) * scale,
        lag_correlations(blocks),
        np.sqrt(np.maximum(blocks.sum(axis=(1, 2)), 0.0)) / window * scale,
        _turns(matrix, vectors[:, :, -1], values),
    )


def rounding(window: int, row_normalised: bool, epsilon: float = EPS) -> float:
    """Return the share of the first energy that rounding of a Gram matrix explains: W·ε, and more after a division."""
    return window * epsilon * (4 if row_normalised else 1)


def unit_rows(gram: np.ndarray) -> np.ndarray:
    """Return the cosines of all pairs of updates, (…, N, N), from their inner products; 0 with a zero update."""
    norms = np.sqrt(np.diagonal(gram, axis1=-2, axis2=-1))
    inverse = np.divide(1.0, norms, out=np.zeros(norms.shape), where=norms > 0)
    units = gram * inverse[..., :, None] * inverse[..., None, :]
    index = np.arange(gram.shape[-1])
    units[..., index, index] = norms > 0
    return units


def lag_correlations(gram: np.ndarray) -> np.ndarray:
    """Return the mean cosine of updates 1, 2, … apart, (…, W−1), from the Gram matrix of a window.

    Cosines with a zero update count as 0.
    """
    units, lags = unit_rows(gram), range(1, gram.shape[-1])
    return np.stack([np.diagonal(units, lag, -2, -1).mean(axis=-1) for lag in lags], axis=-1)


def _gram(gram: Numbers, tolerance: float) -> tuple[np.ndarray, float]:
    """Return the checked Gram matrix of the updates divided by a power of two, and that power."""
    matrix = to_float64(gram, name="the Gram matrix", ndim=2)
    if matrix.shape[0] != matrix.shape[1] or len(matrix) < 2:
        raise InputError(
            f"the Gram matrix has shape {matrix.shape}; pass the (N, N) inner products of N ≥ 2 updates"
        )
    squares = np.diag(matrix)
    if squares.min() < 0 or squares.max() == 0:
        raise InputError(
            f"the diagonal of the Gram matrix goes from {squares.min():.3g} to {squares.max():.3g}; squared norms of "
            "updates are not negative, and not all 0"
        )
    require_squares(float(np.sqrt(squares.max())), "the largest norm of an update")
    scale = unit(float(np.sqrt(squares.max())))
    matrix = matrix / scale / scale
    require_inner_products(matrix, tolerance, "the Gram matrix")
    return matrix, scale


def _blocks(matrix: np.ndarray, window: int) -> np.ndarray:
    """Return the (n, W, W) diagonal blocks of all windows."""
    start = np.arange(len(matrix) - window + 1)[:, None] + np.arange(window)
    return matrix[start[:, :, None], start[:, None, :]]


def _turns(matrix: np.ndarray, first: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return the (n−1,) direction changes from the first eigenvectors and the singular values of the windows."""
    (windows, size), top = first.shape, values[:, 0]
    tied = top - values[:, 1] <= TIED * top
    start = np.arange(windows)[:, None] + np.arange(size)
    cross = matrix[start[1:, :, None], start[:-1, None, :]]
    overlap = np.einsum("ni,nij,nj->n", first[1:], cross, first[:-1])
    # Rounding may take a cosine beyond 1.
    turns = 1.0 - np.minimum(np.abs(overlap) / (top[1:] * top[:-1]), 1.0)
    return np.where(tied[1:] | tied[:-1], np.nan, turns)
