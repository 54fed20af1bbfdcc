"""Compute Fourier features of class means by the sums that define them."""

from __future__ import annotations

import cmath
import math
from collections.abc import Sequence

import numpy as np


def class_means(h: np.ndarray, states: Sequence[int], c: int) -> tuple[np.ndarray, list[int], list[float]]:
    """Compute means, counts and within-state variances, state by state.

    Traces of the unbiased within-state covariance, NaN for one sample.
    """
    means, counts, traces = np.zeros((c, h.shape[1])), [], []
    for m in range(c):
        rows = [h[i] for i in range(len(h)) if states[i] == m]
        means[m] = sum(rows) / len(rows)
        counts.append(len(rows))
        scatter = sum(float((row - means[m]) @ (row - means[m])) for row in rows)
        traces.append(scatter / (len(rows) - 1) if len(rows) > 1 else math.nan)
    return means, counts, traces


def band_energies(H: np.ndarray) -> list[float]:
    """Compute the energy at each frequency by the Fourier sum.

    E_r = Σ_j |(1/c) Σ_m (H[m, j] − mean_j) e^{−2πi r m/c}|².
    """
    c, d = H.shape
    energies = []
    for r in range(c):
        total = 0.0
        for j in range(d):
            mean = math.fsum(H[:, j]) / c
            terms = [(H[m, j] - mean) * cmath.exp(-2j * math.pi * ((r * m) % c) / c) for m in range(c)]
            total += abs(complex(math.fsum(t.real for t in terms), math.fsum(t.imag for t in terms)) / c) ** 2
        energies.append(total)
    return energies


def h_s(H: np.ndarray, frequencies: Sequence[int]) -> float:
    """Compute the share of energy at the frequencies, without r = 0."""
    energies = band_energies(H)
    return math.fsum(energies[r] for r in frequencies) / math.fsum(energies[1:])


def h_peak(H: np.ndarray) -> float:
    """Compute the largest E_r over the sum of all, r ≠ 0."""
    energies = band_energies(H)
    return max(energies[1 : len(energies) // 2 + 1]) / math.fsum(energies[1:])


def gini(values: Sequence[float]) -> float:
    """Compute the mean absolute difference over twice the mean.

    Over all ordered pairs.
    """
    n = len(values)
    return math.fsum(abs(a - b) for a in values for b in values) / (2 * n * math.fsum(values))


def task_kernel(c: int) -> list[float]:
    """Compute |mean of e^{2πi r d/c}| over the steps d = q..c−1."""
    steps = range(max(1, c // 8), c)
    return [abs(sum(cmath.exp(2j * math.pi * r * d / c) for d in steps)) / len(steps) for r in range(c)]


def keep_frequencies(H: np.ndarray, frequencies: Sequence[int]) -> np.ndarray:
    """Project every column onto the waves of the frequencies.

    The mean is kept.
    """
    c = len(H)
    m = np.arange(c)
    projector = sum(np.cos(2 * np.pi * r * (m[:, None] - m[None, :]) / c) for r in frequencies) / c
    return H.mean(axis=0) + projector @ H
