"""Closed forms for spiked random matrices: what can be seen above noise, and where it appears."""

from __future__ import annotations

import numpy as np
from scipy.integrate import quad

from theory.formulas.dynamics import exponent
from theory.roots import bracketed_root
from theory.values import Array


def covariance_threshold(gamma: float) -> float:
    """1 + √γ, γ = d/n: a population eigenvalue above it (unit bulk) detaches from the sample bulk (BBP)."""
    return 1 + np.sqrt(gamma)


def spike_position(ell: float, gamma: float) -> float:
    """Largest sample eigenvalue for a population spike ℓ: ℓ(1 + γ/(ℓ−1)) if ℓ > 1+√γ, else the edge (1+√γ)²."""
    edge = covariance_threshold(gamma)
    return ell * (1 + gamma / (ell - 1)) if ell > edge else edge**2


def spike_overlap(ell: float, gamma: float) -> float:
    """Squared cosine of the sample and population spike directions: (1−γ/θ²)/(1+γ/θ), θ = ℓ−1; 0 below threshold."""
    if ell <= covariance_threshold(gamma):
        return 0.0
    theta = ell - 1
    return (1 - gamma / theta**2) / (1 + gamma / theta)


def mean_gradient_threshold(samples: int, parameters: int) -> float:
    """√(MP): M‖ḡ‖² above it separates from unit noise in the M×P matrix of per-sample gradients."""
    return float(np.sqrt(samples * parameters))


def mean_gradient_energy(theta: float, samples: int, parameters: int) -> float:
    """σ_1² = (θ+M)(θ+P)/θ with θ = M‖ḡ‖²; below `mean_gradient_threshold` the edge (√M+√P)²."""
    if theta <= mean_gradient_threshold(samples, parameters):
        return (np.sqrt(samples) + np.sqrt(parameters)) ** 2
    return (theta + samples) * (theta + parameters) / theta


def bulk_density(x: float, gamma: float) -> float:
    """Marchenko–Pastur density of the non-zero eigenvalues of a white sample covariance, γ = d/n ≤ 1."""
    low, high = (1 - np.sqrt(gamma)) ** 2, (1 + np.sqrt(gamma)) ** 2
    return float(np.sqrt(max((high - x) * (x - low), 0.0)) / (2 * np.pi * gamma * x))


def bulk_quantiles(d: int, n: int) -> Array:
    """(d,) descending Marchenko–Pastur quantiles at (j−½)/d: the spectrum that pure white noise is read as.

    Raises:
        ValueError: d > n, where the sample covariance is singular and a rank window has no meaning.
    """
    if d > n:
        raise ValueError(
            f"d={d} exceeds n={n}; the null exponent needs at least as many samples as dimensions"
        )
    gamma = d / n
    low, high = (1 - np.sqrt(gamma)) ** 2, (1 + np.sqrt(gamma)) ** 2
    # x = mid + half·cos φ turns the two square-root edges into a smooth integrand, so the CDF is a plain sum.
    phi = np.linspace(0, np.pi, 20_001)
    mid, half = (low + high) / 2, (high - low) / 2
    x = mid + half * np.cos(phi)
    weight = (half * np.sin(phi)) ** 2 / (2 * np.pi * gamma * np.maximum(x, 1e-300))
    above = np.concatenate([[0.0], np.cumsum((weight[1:] + weight[:-1]) / 2 * np.diff(phi))])
    return np.interp((np.arange(d) + 0.5) / d, above / above[-1], x)


def bulk_mass_above(x: float, gamma: float) -> float:
    """Marchenko–Pastur mass above x, by quadrature (slow; checks `bulk_quantiles`)."""
    high = (1 + np.sqrt(gamma)) ** 2
    return float(quad(bulk_density, x, high, args=(gamma,), limit=400)[0])


def null_exponent(d: int, n: int, low: int, high: int) -> float:
    """Rank-window exponent α(low:high) that white noise with d dimensions and n samples reads."""
    return exponent(bulk_quantiles(d, n), low, high)


def population_for_position(position: float, gamma: float) -> float:
    """ℓ whose spike appears at ``position``: the inverse of `spike_position` above the edge.

    Raises:
        ValueError: position inside the bulk, from which no ℓ can be read.
    """
    edge = covariance_threshold(gamma) ** 2
    if position <= edge:
        raise ValueError(
            f"eigenvalue {position:.4g} lies inside the bulk (edge {edge:.4g}); no spike can be inferred"
        )
    top = position + 1
    return bracketed_root(lambda ell: spike_position(ell, gamma) - position, covariance_threshold(gamma), top)
