"""Compare the variance of a statistic of eigenvalues with that of Gaussian rows."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

# From (…, r) eigenvalues to (…) numbers.
Statistic = Callable[[np.ndarray], np.ndarray]

# Standard deviations above which tails count as heavier than Gaussian; Gaussian rows exceed it in about 1 of 100.
HEAVY_LIMIT = 2.5


def spread_ratio(rows: np.ndarray, energies: np.ndarray, statistic: Statistic, codes: np.ndarray) -> float:
    """Return a statistic's variance relative to independent Gaussian rows.

    At least 1.

    A row moves ln λ_j by (z_j² − 1)/n, z_j its whitened coordinate, hence the statistic by Σ_j g_j (z_j² − 1)/n with
    g = ∂f/∂ln λ, Σ g_j = 0 because the scale of the data does not matter. Rows repeated m times vary m times as much;
    rows with a common random factor a, E a² = 1, vary E a⁴ times as much (what a does to all λ_j alike drops out), and
    their eigenvalues repel each other E a⁴ times as much. Two estimates are taken: the sum over groups against
    2 Σ g_j²/n (infinitesimal jackknife; sees repeated rows), and E a⁴ from fourth moments (sees heavy tails with few
    rows). An estimate that Gaussian rows would reach by chance counts as 1.
    """
    n, r = len(rows), len(energies)
    step = 1e-4
    bumps = np.exp(step * np.eye(r))
    gradient = (statistic(energies * bumps) - statistic(energies / bumps)) / (2 * step)
    # Left singular vectors are the whitened rows, whichever of n and d is larger.
    whitened = np.linalg.svd(rows, full_matrices=False)[0][:, :r] * math.sqrt(n)
    tails = max(_component_tails(whitened), _length_tails(rows, energies))
    gaussian = 2.0 * n * float(gradient @ gradient)
    if gaussian <= 0:
        return tails
    per_group = np.bincount(codes, weights=(whitened**2 - 1.0) @ gradient)
    ratio = float(per_group @ per_group) / gaussian
    # (z²−1)² has relative variance 14 when one rank carries all the weight, the worst case.
    chance = 1.0 + 2.0 * math.sqrt(14.0 / len(per_group))
    return max(ratio, tails) if tails > 1.0 or ratio > chance else 1.0


def _component_tails(whitened: np.ndarray) -> float:
    """Return E z⁴/3 of the whitened coordinates, 1 for Gaussian rows; it misses a row that dominates one rank."""
    n, r = whitened.shape
    fourth = float((whitened**4).mean()) * (n + 1) / (3 * (n - 1))
    return fourth if fourth > 1.0 + HEAVY_LIMIT * math.sqrt(24.0 / (n * r)) / 3.0 else 1.0


def _length_tails(rows: np.ndarray, energies: np.ndarray) -> float:
    """Return the same factor from squared row lengths, which whitening with n near d does not change.

    Gaussian rows have Var‖x‖² = 2 tr Σ², with an excess kurtosis of 12 Σλ⁴/(Σλ²)²; rows with a common random factor a
    have E‖x‖⁴ = E a⁴·((tr Σ)² + 2 tr Σ²).
    """
    n = len(rows)
    lengths = np.einsum("ij,ij->i", rows, rows)
    trace = float(lengths.sum()) / (n - 1)
    scaled = energies / energies.sum()
    # Sampling inflates Σλ̂² by about (tr Σ)²/n, which is subtracted.
    square = max(float(scaled @ scaled) - 1.0 / n, 1.0 / len(rows[0])) * trace**2
    noise = math.sqrt((2.0 + 12.0 * float((scaled**4).sum()) / float(scaled @ scaled) ** 2) / n)
    if float(lengths.var()) / (2.0 * square) <= 1.0 + HEAVY_LIMIT * noise:
        return 1.0
    return max(float((lengths**2).mean()) / (trace**2 + 2.0 * square), 1.0)
