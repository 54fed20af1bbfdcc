"""Compute FARMS exponents as published code does, in loops: which windows, and two ways to fit what they hold.

Only to compare with: the second fit is no estimate of a tail. Gaussian matrices of one shape have exponents from 3 to
13 by it, where the first one has 2.1 for all shapes (`tests/spectra/test_farms.py`).

Source: code of Hu et al. (arXiv 2506.06280) and of the public estimators that it builds on, as of 2026.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

BINS = 100


def grid_energies(W: np.ndarray, rows: int, aspect: float = 1.0, ops: int = 10) -> np.ndarray:
    """Compute σ² of all windows of the published grid, W as it is stored.

    Args:
        W: (m, n).
        rows: of a window; the shorter side of W where that is smaller. It has ⌊rows · aspect⌋ columns.
        aspect: columns over rows of a window.
        ops: windows along each side at most.

    >>> grid_energies(np.eye(4), 3, ops=2).tolist()
    [1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 1.0, 1.0, 0.0, 1.0, 1.0, 1.0]
    """
    m, n = W.shape
    rows = min(rows, m, n)
    columns = int(rows * aspect)
    down, across = (max(1, (side - tile) // (ops - 1)) for side, tile in ((m, rows), (n, columns)))
    found: list[float] = []
    for i in range(min(ops, (m - rows) // down + 1)):
        for j in range(min(ops, (n - columns) // across + 1)):
            window = W[i * down : i * down + rows, j * across : j * across + columns]
            found.extend(np.linalg.svd(window, compute_uv=False) ** 2)
    return np.array(found)


def median_exponent(energies: Sequence[float] | np.ndarray) -> float:
    """Compute the published exponent above the median, 1 + n/(Σ ln λ_j − n ln λ_i) over j ≥ i = ⌊N/2⌋, ascending.

    The value at the threshold counts, and its logarithm adds nothing: exponents are higher than those of `spectra.hill`
    by a factor of about 1 + 1/n in β − 1.

    >>> round(median_exponent([0.1, 0.1, 1.0, math.e]), 12)
    3.0
    """
    ordered = sorted(energies)
    return _exponent(ordered, len(ordered) // 2)


def peak_exponent(energies: Sequence[float] | np.ndarray) -> float:
    """Compute the published exponent above a threshold near the peak of the histogram of log₁₀ λ.

    Thresholds run up to 1.5 times the left edge of the fullest of 100 bins, and down to the LOGARITHM of .95 times that
    edge, compared with λ itself, which is nearly no bound. Of those with an exponent above 1 the one with the smallest
    one-sided KS distance wins; the first value, with exponent 0, where there is none.
    """
    ordered = np.sort(np.asarray(energies, float))
    logs = np.log10(ordered)
    counts, edges = np.histogram(logs, BINS, (logs[0], logs[-1]))
    peak = 10 ** edges[int(np.argmax(counts))]
    best, winner = 1.0, 0.0
    for i, threshold in enumerate(ordered[:-1]):
        if not math.log10(0.95 * peak) <= threshold <= 1.5 * peak or ordered[-1] == threshold:
            continue
        n, alpha = len(ordered) - i, _exponent(ordered, i)
        model = 1 - (ordered[i:] / threshold) ** (1 - alpha)
        distance = float(np.max(np.abs(model - np.arange(n) / n)))
        if distance < best:
            best, winner = distance, alpha
    return winner


def kernel_exponent(
    kernel: np.ndarray, fit: Callable[[Sequence[float] | np.ndarray], float] = median_exponent
) -> float:
    """Compute the published exponent of a convolution: the mean of fits of blocks, not the fit of a pool.

    The slices of a kernel (N, M, a, b) lie upright, and fall into ⌊rows/columns⌋ square blocks, one below the other.
    σ² of one block of all slices are pooled and fitted.

    Args:
        kernel: (N, M, a, b).
        fit: of energies.
    """
    slices = [kernel[:, :, i, j] for i in range(kernel.shape[2]) for j in range(kernel.shape[3])]
    upright = [s if s.shape[0] >= s.shape[1] else s.T for s in slices]
    rows, columns = upright[0].shape
    fits = []
    for block in range(rows // columns):
        own = slice(block * columns, (block + 1) * columns)
        # Weights are multiplied by √.5 first, which changes no exponent above a median.
        energies = [np.linalg.svd(math.sqrt(0.5) * s[own], compute_uv=False) ** 2 for s in upright]
        fits.append(fit(np.concatenate(energies)))
    return float(np.mean(fits))


def _exponent(ordered: Sequence[float] | np.ndarray, start: int) -> float:
    n = len(ordered) - start
    return 1 + n / (math.fsum(math.log(value) for value in ordered[start:]) - n * math.log(ordered[start]))
