"""Compute covariances from their definition: exactly rounded sums, entry by entry."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np


def covariance(x: np.ndarray, center: bool = True) -> np.ndarray:
    """Compute the covariance with exactly rounded sums.

    (d, d) matrix 1/(n−1) Σ (x_i − x̄)(x_i − x̄)ᵀ, or 1/n Σ x_i x_iᵀ uncentred.

    Args:
        x: (n, d) float64 array, n ≥ 2.
        center: subtract the mean first.
    """
    n, d = x.shape
    mean = [math.fsum(x[:, j]) / n if center else 0.0 for j in range(d)]
    out = np.empty((d, d))
    for j in range(d):
        for k in range(d):
            out[j, k] = math.fsum((x[i, j] - mean[j]) * (x[i, k] - mean[k]) for i in range(n))
    return out / (n - 1 if center else n)


def covariance_spectrum(x: np.ndarray, center: bool = True) -> np.ndarray:
    """Compute eigenvalues of the covariance by an SVD of the rows.

    (min(n, d),), descending: squared singular values over n − 1 (or n).
    """
    n, d = x.shape
    rows = x.copy()
    if center:
        for j in range(d):
            rows[:, j] = x[:, j] - math.fsum(x[:, j]) / n
    sigma = np.linalg.svd(rows, compute_uv=False)
    return sigma**2 / (n - 1 if center else n)


def moments(chunks: Sequence[np.ndarray]) -> tuple[int, np.ndarray, np.ndarray]:
    """Compute count, mean and centred second moment of the chunks.

    n, (d,) and (d, d) of the concatenated chunks.
    """
    x = np.concatenate(list(chunks))
    n, d = x.shape
    mean = np.array([math.fsum(x[:, j]) / n for j in range(d)])
    return n, mean, covariance(x) * (n - 1)
