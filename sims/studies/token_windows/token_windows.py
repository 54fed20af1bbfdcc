"""The covariance spectrum of the data: of token windows, without any model.

A window of T tokens t_1 … t_T is the vector x = T^(−1/2) Σ_i e(t_i), e the one-hot basis of the vocabulary: it counts
the tokens and ignores their order. It contains no embedding, hence nothing learned. With this scale, independent tokens
have Cov x = diag(p) − ppᵀ for every T, whose eigenvalues follow the token frequencies (Zipf's law): the difference to
the spectrum of the shuffled tokens is co-occurrence within T tokens. Keeping the order (T·V dimensions) would mostly
repeat the frequencies T times.
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

# Up to this many different tokens the full covariance (at most 128 MB) and all eigenvalues are computed.
DENSE = 4096
# Relative accuracy of the eigenvalues from Lanczos iterations.
TOLERANCE = 1e-6
_ROWS = 4096


@dataclass(frozen=True)
class WindowSpectrum:
    """Leading eigenvalues of the covariance of token windows.

    Attributes:
        window: T, tokens per window.
        spectrum: eigenvalues, descending; n windows, d different tokens. All min(n, d) of them for few tokens, else
            the requested number.
        total: sum of all eigenvalues, including those not computed.
    """

    window: int
    spectrum: Spectrum
    total: float

    @property
    def shares(self) -> np.ndarray:
        """Eigenvalues as shares of the total variance; they sum to 1 only if all were computed."""
        return self.spectrum.values / self.total


def read_windows(
    files: Sequence[Path], window: int, most_tokens: int | None = None, vocabulary: int = GPT2_VOCABULARY
) -> np.ndarray:
    """Read windows (n, T) of tokens from shards, without overlap, each within one shard.

    Args:
        files: token shards.
        window: T.
        most_tokens: largest number of tokens, evenly spaced over all shards (which may be ordered by source); None
            for all.
        vocabulary: as in `read_shard`.

    Raises:
        MeasureError: fewer than two windows.
        StoreError: as `read_shard`.
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
    """Shuffle all tokens: the null of windows without co-occurrence, at equal n and frequencies."""
    return np.random.default_rng(seed).permutation(windows.ravel()).reshape(windows.shape)


def window_spectrum(windows: np.ndarray, ranks: int = 200) -> WindowSpectrum:
    """Estimate the spectrum of Cov x over windows, x = T^(−1/2) · counts of the tokens.

    Args:
        windows: (n, T) integer tokens, n ≥ 2.
        ranks: number of eigenvalues if there are more than `DENSE` different tokens.

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
    # Tokens that never occur have no variance and are left out.
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
    """Estimate the leading eigenvalues by Lanczos iterations, from products with the sparse counts only.

    Subtracting the mean loses no accuracy: a mean count is at most of the order of its standard deviation.
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
