"""The covariance spectrum of the data itself: of token windows, before any model has seen them.

A window of T tokens t_1 … t_T is the vector x = T^(−1/2) Σ_i e(t_i), e the one-hot basis of the vocabulary: which
tokens are in it and how often, not their order. No embedding is involved, so that nothing learned is in the spectrum.
The scale is such that for tokens drawn independently Cov x = diag(p) − ppᵀ whatever T is, whose eigenvalues follow the
token frequencies (Zipf's law): what a spectrum of text has beyond that of the same tokens shuffled is co-occurrence
within T tokens. Keeping the order (T·V dimensions) would mostly repeat the frequencies T times.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import LinearOperator, eigsh

from sims.system.errors import MeasureError
from sims.text.shards import GPT2_VOCABULARY, read_shard
from spectra import Moments, Spectrum

# Up to this many different tokens the covariance is held in full (128 MB at the limit), and every eigenvalue found.
DENSE = 4096
# Relative accuracy of the eigenvalues that Lanczos iterations find.
TOLERANCE = 1e-6
_ROWS = 4096


@dataclass(frozen=True)
class WindowSpectrum:
    """Leading eigenvalues of the covariance of token windows.

    Attributes:
        window: T, tokens a window.
        spectrum: eigenvalues, descending; n windows, d different tokens. All min(n, d) of them for few tokens, else as
            many as were asked for.
        total: sum of all eigenvalues, those not found included.
    """

    window: int
    spectrum: Spectrum
    total: float

    @property
    def shares(self) -> np.ndarray:
        """Eigenvalues as shares of the total variance; they sum to 1 only where all were found."""
        return self.spectrum.values / self.total


def read_windows(
    files: Sequence[Path], window: int, most_tokens: int | None = None, vocabulary: int = GPT2_VOCABULARY
) -> np.ndarray:
    """(n, T) tokens of the windows of some shards, without overlap; none crosses from one shard to the next.

    Args:
        files: token shards.
        window: T.
        most_tokens: take no more than this, evenly spaced over all shards, which may hold one source after another;
            None takes all.

    Raises:
        MeasureError: fewer than two windows.
        StoreError: as of `read_shard`.
    """
    if window < 1:
        raise MeasureError(f"a window of {window} tokens is none; it has at least 1")
    shards = [read_shard(path, vocabulary) for path in files]
    cut = [s[: len(s) // window * window].reshape(-1, window) for s in shards]
    there = sum(map(len, cut))
    taken = there if most_tokens is None else min(there, most_tokens // window)
    if taken < 2:
        raise MeasureError(
            f"{taken} of {there} windows of {window} tokens are to be taken; a covariance needs two: shorten "
            "the windows, or take more tokens"
        )
    chosen = np.arange(taken) * there // taken
    starts = np.cumsum([0, *map(len, cut)])
    each = [chosen[(chosen >= a) & (chosen < b)] - a for a, b in pairwise(starts)]
    return np.concatenate([np.asarray(s[own]) for s, own in zip(cut, each, strict=True)])


def shuffled(windows: np.ndarray, seed: int = 0) -> np.ndarray:
    """The same tokens in random order: the null of windows without co-occurrence, at equal n and frequencies."""
    return np.random.default_rng(seed).permutation(windows.ravel()).reshape(windows.shape)


def window_spectrum(windows: np.ndarray, ranks: int = 200) -> WindowSpectrum:
    """Spectrum of Cov x over windows, x = T^(−1/2) · counts of the tokens.

    Args:
        windows: (n, T) integer tokens, n ≥ 2.
        ranks: eigenvalues to find where there are more than `DENSE` different tokens.

    Raises:
        MeasureError: not (n, T) integers, or fewer ranks than one.
        InputError: fewer than two windows, or all of them equal.
    """
    if windows.ndim != 2 or not np.issubdtype(windows.dtype, np.integer):
        raise MeasureError(
            f"windows of shape {windows.shape} and type {windows.dtype}; give (n, T) integer tokens"
        )
    if ranks < 1:
        raise MeasureError(f"--ranks is {ranks}; it must be at least 1")
    n, length = windows.shape
    # Tokens that never occur have no variance, and no place here.
    kinds, columns = np.unique(windows, return_inverse=True)
    entries = (np.full(windows.size, length**-0.5), columns.ravel(), np.arange(0, windows.size + 1, length))
    counts = sparse.csr_array(entries, shape=(n, len(kinds)))
    counts.sum_duplicates()
    if len(kinds) <= DENSE:
        moments = Moments()
        for begin in range(0, n, _ROWS):
            moments.update(counts[begin : begin + _ROWS].toarray())
        spectrum = moments.spectrum()
        return WindowSpectrum(length, spectrum, spectrum.trace)
    return _leading(counts, length, ranks)


def _leading(counts: Any, length: int, ranks: int) -> WindowSpectrum:
    """The first eigenvalues by Lanczos iterations on products with the sparse counts; the covariance is never made.

    Nothing cancels as it would for activations: a mean count is at most of the order of its standard deviation.
    """
    n, d = counts.shape
    mean = np.asarray(counts.sum(axis=0)).ravel() / n
    squares = np.asarray(counts.multiply(counts).sum(axis=0)).ravel()
    total = float((squares - n * mean**2).sum() / (n - 1))
    transposed = counts.T.tocsr()

    def product(v: np.ndarray) -> np.ndarray:
        v = v.ravel()
        return (transposed @ (counts @ v) - n * mean * (mean @ v)) / (n - 1)

    operator = LinearOperator((d, d), matvec=product, dtype=np.float64)  # pyright: ignore[reportCallIssue]
    k = min(ranks, d - 2, n - 1)
    start = np.random.default_rng(0).standard_normal(d)
    values = eigsh(
        operator,
        k,
        which="LA",
        v0=start,
        tol=TOLERANCE,  # pyright: ignore[reportArgumentType]  (the stubs say int)
        return_eigenvectors=False,
    )
    return WindowSpectrum(length, Spectrum(np.maximum(values, 0.0), n=n, d=d, centred=True), total)
