"""Give closed forms of spiked random matrices: what is visible above noise, and where."""

from __future__ import annotations

import numpy as np
from scipy.integrate import quad

from theory.formulas.dynamics import exponent
from theory.roots import bracketed_root
from theory.values import Array


def covariance_threshold(gamma: float) -> float:
    """Return 1 + √γ, γ = d/n: the population eigenvalue above which a spike leaves a unit bulk (BBP).

    >>> float(covariance_threshold(0.25))
    1.5
    """
    return 1 + np.sqrt(gamma)


def spike_position(ell: float, gamma: float) -> float:
    """Return the largest sample eigenvalue of a population spike ℓ.

    ℓ(1 + γ/(ℓ−1)) if ℓ > 1+√γ, else the edge (1+√γ)².

    >>> spike_position(3.0, 0.5)
    3.75
    """
    edge = covariance_threshold(gamma)
    return ell * (1 + gamma / (ell - 1)) if ell > edge else edge**2


def spike_overlap(ell: float, gamma: float) -> float:
    """Return the squared cosine of sample and population spike.

    (1−γ/θ²)/(1+γ/θ), θ = ℓ−1; 0 below the threshold.

    >>> spike_overlap(3.0, 1.0)
    0.5
    """
    if ell <= covariance_threshold(gamma):
        return 0.0
    theta = ell - 1
    return (1 - gamma / theta**2) / (1 + gamma / theta)


def mean_gradient_threshold(samples: int, parameters: int) -> float:
    """Return √(MP): the M‖ḡ‖² above which the mean of M gradients of P entries with unit noise is visible.

    >>> mean_gradient_threshold(4, 9)
    6.0
    """
    return float(np.sqrt(samples * parameters))


def mean_gradient_energy(theta: float, samples: int, parameters: int) -> float:
    """Return σ_1² of gradients with a common mean.

    (θ+M)(θ+P)/θ with θ = M‖ḡ‖²; below `mean_gradient_threshold` the edge (√M+√P)².

    >>> mean_gradient_energy(12.0, 4, 9)
    28.0
    """
    if theta <= mean_gradient_threshold(samples, parameters):
        return (np.sqrt(samples) + np.sqrt(parameters)) ** 2
    return (theta + samples) * (theta + parameters) / theta


def bulk_density(x: float, gamma: float) -> float:
    """Return the Marchenko–Pastur density at x, of the eigenvalues of a white sample covariance, γ = d/n ≤ 1.

    It is 0 outside the bulk, and at its ends.

    >>> bulk_density(3.0, 0.25), bulk_density(0.0, 0.25)
    (0.0, 0.0)
    """
    low, high = (1 - np.sqrt(gamma)) ** 2, (1 + np.sqrt(gamma)) ** 2
    if not low < x < high:
        return 0.0
    return float(np.sqrt((high - x) * (x - low)) / (2 * np.pi * gamma * x))


def bulk_quantiles(d: int, n: int) -> Array:
    """Return the expected spectrum of white noise: Marchenko–Pastur quantiles at (j−½)/d, (d,) descending.

    Raises:
        ValueError: d > n, where the sample covariance is singular and a rank window has no meaning.

    >>> quantiles = bulk_quantiles(4, 16)
    >>> bool((np.diff(quantiles) < 0).all()), bool(0.25 < quantiles[-1] and quantiles[0] < 2.25)
    (True, True)
    """
    if d > n:
        raise ValueError(
            f"d={d} exceeds n={n}; the null exponent needs at least as many samples as dimensions"
        )
    gamma = d / n
    low, half = (1 - np.sqrt(gamma)) ** 2, 2 * np.sqrt(gamma)
    # x = mid + half·cos φ turns the two square-root edges into a smooth integrand, so the CDF is a plain sum.
    phi = np.linspace(0, np.pi, 20_001)
    above_low = 2 * half * np.cos(phi / 2) ** 2
    x = low + above_low
    # half² sin² φ / x; at γ = 1 both sin² φ and x vanish at φ = π, and their ratio does not.
    weight = 2 * half * np.sin(phi / 2) ** 2 / (1 + low / above_low) / (2 * np.pi * gamma)
    above = np.concatenate([[0.0], np.cumsum((weight[1:] + weight[:-1]) / 2 * np.diff(phi))])
    return np.interp((np.arange(d) + 0.5) / d, above / above[-1], x)


def bulk_mass_above(x: float, gamma: float) -> float:
    """Integrate the Marchenko–Pastur density above x by quadrature (slow; checks `bulk_quantiles`).

    >>> round(bulk_mass_above(0.25, 0.25), 6)
    1.0
    """
    high = (1 + np.sqrt(gamma)) ** 2
    return float(quad(bulk_density, x, high, args=(gamma,), limit=400)[0])


def null_exponent(d: int, n: int, low: int, high: int) -> float:
    """Return the exponent α(low:high) of white noise with d dimensions and n samples.

    >>> round(null_exponent(128, 1024, 10, 40), 3)
    0.208
    """
    return exponent(bulk_quantiles(d, n), low, high)


def population_for_position(position: float, gamma: float) -> float:
    """Return the population spike ℓ that appears at a position.

    The inverse of `spike_position` above the edge.

    Raises:
        ValueError: position inside the bulk, from which no ℓ can be read.

    >>> round(population_for_position(3.75, 0.5), 9)
    3.0
    """
    edge = covariance_threshold(gamma) ** 2
    if position <= edge:
        raise ValueError(
            f"eigenvalue {position:.4g} lies inside the bulk (edge {edge:.4g}); no spike can be inferred"
        )
    top = position + 1
    return bracketed_root(lambda ell: spike_position(ell, gamma) - position, covariance_threshold(gamma), top)
