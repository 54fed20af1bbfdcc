"""Compute null laws by integration, by a differential equation, and by simulation."""

from __future__ import annotations

import math

import numpy as np
from scipy.integrate import quad, solve_ivp
from scipy.special import airy

from spectra.reference import fourier


def marchenko_pastur_cdf(x: float, gamma: float, variance: float = 1.0) -> float:
    """Integrate the density from the lower edge, plus the atom."""
    low, high = variance * (1 - math.sqrt(gamma)) ** 2, variance * (1 + math.sqrt(gamma)) ** 2
    # x = middle + radius·sin φ removes the square-root ends of the integrand.
    middle, radius = (low + high) / 2, (high - low) / 2
    stop = math.asin(min(1.0, max(-1.0, (x - middle) / radius)))

    def slice_of(phi: float) -> float:
        point = middle + radius * math.sin(phi)
        return (radius * math.cos(phi)) ** 2 / (2 * math.pi * gamma * variance * point) if point > 0 else 0.0

    return max(0.0, 1 - 1 / gamma) + quad(slice_of, -math.pi / 2, stop, limit=400, epsabs=1e-13)[0]


def tracy_widom_cdf(s: float) -> float:
    """Compute F₁(s) from the Painlevé II equation.

    F₁(s) = exp(−½∫_s^∞ [q(x) + (x − s) q(x)²] dx), q'' = xq + 2q³ with q ~ Ai at +∞.
    """
    start = 8.0
    value, slope = airy(start)[:2]

    # With q come u = ∫_x q, v = ∫_x q², w = ∫_x v, whose values beyond the start are below 1e-8.
    def derivative(x: float, y: np.ndarray) -> list[float]:
        q, p, _, v, _ = y
        return [p, x * q + 2 * q**3, -q, -(q**2), -v]

    tail = quad(lambda x: airy(x)[0], start, start + 12)[0]
    solution = solve_ivp(
        derivative, (start, s), [value, slope, tail, 0.0, 0.0], rtol=1e-12, atol=1e-16, method="DOP853"
    )
    _, _, u, _, w = solution.y[:, -1]
    return math.exp(-0.5 * (u + w))


def h_peak_draws(c: int, d: int, draws: int, rng: np.random.Generator) -> np.ndarray:
    """Draw H_peak of Gaussian class means."""
    return np.array([fourier.h_peak(rng.standard_normal((c, d))) for _ in range(draws)])


def noise_exponents(n: int, d: int, lo: int, hi: int, draws: int, rng: np.random.Generator) -> np.ndarray:
    """Draw window exponents of covariances of Gaussian data."""
    slopes = []
    for _ in range(draws):
        energies = np.sort(np.linalg.eigvalsh(np.cov(rng.standard_normal((n, d)), rowvar=False)))[::-1]
        slopes.append(-np.polyfit(np.log(np.arange(lo, hi + 1)), np.log(energies[lo - 1 : hi]), 1)[0])
    return np.array(slopes)


def spiked_top(n: int, d: int, spike: float, rng: np.random.Generator) -> tuple[float, float]:
    """Draw the top eigenvalue of a spiked covariance, and its overlap.

    The overlap is the squared cosine between sample and population direction.
    """
    x = rng.standard_normal((n, d))
    x[:, 0] *= math.sqrt(spike)
    energies, vectors = np.linalg.eigh(x.T @ x / n)
    return float(energies[-1]), float(vectors[0, -1] ** 2)
