"""Give the spectrum of white noise, and what a spike must exceed to be seen.

Convention: eigenvalues of (1/n) XᵀX, X an n×d matrix of independent entries of mean 0 and variance σ²;
γ = d/n (with the mean removed, n − 1 in place of n). Sources:
Marchenko and Pastur (1967); Baik, Ben Arous and Péché (2005); Paul (2007).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from spectra.arrays import real
from spectra.errors import InputError
from spectra.nulls.arguments import levels, points
from spectra.shown import Shown

# Below this γ (or above its inverse) the distribution function is a series in √γ, whose last term is below 1e-17.
NARROW = 0.01
NARROW_TERMS = 18


@dataclass(frozen=True)
class MarchenkoPastur(Shown):
    """Describe the limiting law of the eigenvalues for d/n → γ.

    Args:
        gamma: d/n, positive; above 1 a part 1 − 1/γ of the eigenvalues is 0.
        variance: σ² of the entries, in the squared units of the data.

    Raises:
        InputError: γ or variance not positive and finite.

    >>> MarchenkoPastur(0.25).edges
    (0.25, 2.25)
    """

    gamma: float
    variance: float = 1.0

    def __post_init__(self) -> None:
        for name in ("gamma", "variance"):
            object.__setattr__(self, name, real(getattr(self, name), name))
        if not (0 < self.gamma < math.inf and 0 < self.variance < math.inf):
            raise InputError(
                f"γ is {self.gamma} and the variance {self.variance}; both must be positive and finite"
            )
        if not 0 < self.variance * (1 + math.sqrt(self.gamma)) ** 2 < math.inf:
            raise InputError(
                f"γ = {self.gamma:g} and variance {self.variance:g} put the edge beyond float64; choose other units"
            )

    def _shown(self) -> Mapping[str, object]:
        return {"γ": self.gamma, "variance": self.variance, "edges": self.edges, "atom": self.atom}

    @property
    def edges(self) -> tuple[float, float]:
        """Return the edges σ²(1 ∓ √γ)² of the continuous part."""
        root = math.sqrt(self.gamma)
        return self.variance * (1 - root) ** 2, self.variance * (1 + root) ** 2

    @property
    def atom(self) -> float:
        """Return the share of eigenvalues 0, max(0, 1 − 1/γ)."""
        return max(0.0, 1.0 - 1.0 / self.gamma)

    def density(self, x: ArrayLike) -> np.ndarray:
        """Return the density at x, in units of 1/σ².

        √((b − x)(x − a))/(2πγσ²x) on [a, b], 0 outside; integrates to 1 − atom.
        """
        x = points(x, "x")
        low, high = self.edges
        inside = (x > low) & (x < high)
        safe = np.where(inside, x, 1.0)
        height = np.sqrt(np.maximum((high - safe) * (safe - low), 0.0))
        return np.where(inside, height / (2 * np.pi * self.gamma * self.variance * safe), 0.0)

    def cdf(self, x: ArrayLike) -> np.ndarray:
        """Return P(λ ≤ x), the atom at 0 included."""
        with np.errstate(over="ignore"):
            x = points(x, "x") / self.variance
        cosine = (x - 1 - self.gamma) / (2 * math.sqrt(self.gamma))
        inside = 1.0 - self._upper(np.arccos(np.clip(cosine, -1.0, 1.0)))
        return np.where(x < 0, 0.0, np.clip(inside, self.atom, 1.0))

    def quantile(self, q: ArrayLike) -> np.ndarray:
        """Return the smallest x with cdf(x) ≥ q.

        By bisection on the angle; 0 for q up to the atom.

        Raises:
            InputError: q outside [0, 1].
        """
        q = levels(q)
        low, high = np.zeros_like(q), np.full_like(q, np.pi)
        for _ in range(60):
            middle = (low + high) / 2
            above = self._upper(middle) < 1.0 - q
            low, high = np.where(above, middle, low), np.where(above, high, middle)
        x = 1 + self.gamma + 2 * math.sqrt(self.gamma) * np.cos((low + high) / 2)
        return np.where(q <= self.atom, 0.0 if self.atom > 0 else self.edges[0], self.variance * x)

    def _upper(self, theta: np.ndarray) -> np.ndarray:
        """P(λ > x) at x/σ² = 1 + γ + 2√γ cos θ, from the elementary integral of (2/π) sin²θ/(1 + γ + 2√γ cos θ)."""
        if self.gamma > 1 / NARROW:
            # 1 + γ + 2√γ cos θ = γ (1 + 1/γ + 2 cos θ/√γ).
            return MarchenkoPastur(1 / self.gamma)._upper(theta) / self.gamma
        if self.gamma < NARROW:
            return _narrow_upper(np.asarray(theta, dtype=np.float64), math.sqrt(self.gamma))
        p, q, root = 1 + self.gamma, 2 * math.sqrt(self.gamma), math.sqrt(self.gamma)
        half = np.arctan2(abs(1 - root) * np.sin(theta / 2), (1 + root) * np.cos(theta / 2))
        return (2 / np.pi) * (p * theta / q**2 - np.sin(theta) / q - 2 * abs(1 - self.gamma) / q**2 * half)


def _narrow_upper(theta: np.ndarray, root: float) -> np.ndarray:
    """The same integral for √γ ≪ 1, where the terms of its elementary form are 1/γ times larger than their sum.

    1/(1 + r² + 2r cos t) = Σ_k (−r)^k sin((k+1)t)/sin t, integrated term by term.
    """
    total = theta - np.sin(2 * theta) / 2
    for k in range(1, NARROW_TERMS):
        total = total + (-root) ** k * (np.sin(k * theta) / k - np.sin((k + 2) * theta) / (k + 2))
    return total / np.pi


def bbp_threshold(gamma: float) -> float:
    """Return 1 + √γ, above which a spike leaves the bulk.

    A population eigenvalue in units of σ²; 1.354 at γ = 0.125.

    Raises:
        InputError: γ not positive and finite.

    >>> bbp_threshold(0.25)
    1.5
    """
    return 1.0 + math.sqrt(MarchenkoPastur(gamma).gamma)


def bbp_position(spike: float, gamma: float) -> float:
    """Return the limit of the top eigenvalue of a spike.

    ℓ(1 + γ/(ℓ−1)) for ℓ > 1 + √γ, the bulk edge (1+√γ)² otherwise.

    Args:
        spike: population eigenvalue ℓ ≥ 1 in units of σ² (ℓ = 1 is no spike).
        gamma: d/n.

    Raises:
        InputError: ℓ below 1, or γ not positive and finite.

    >>> bbp_position(3.0, 0.5)
    3.75
    """
    spike, gamma = _spike(spike), MarchenkoPastur(gamma).gamma
    if spike <= bbp_threshold(gamma):
        return (1.0 + math.sqrt(gamma)) ** 2
    return _finite(spike * (1.0 + gamma / (spike - 1.0)), "the position of the spike")


def bbp_overlap(spike: float, gamma: float) -> float:
    """Return the squared cosine of sample and population direction.

    (1 − γ/θ²)/(1 + γ/θ), θ = ℓ − 1; 0 below the threshold.

    Raises:
        InputError: as `bbp_position`.

    >>> bbp_overlap(3.0, 1.0)
    0.5
    """
    spike, gamma = _spike(spike), MarchenkoPastur(gamma).gamma
    if spike <= bbp_threshold(gamma):
        return 0.0
    theta = spike - 1.0
    return (1.0 - gamma / theta / theta) / (1.0 + gamma / theta)


def gradient_mean_position(strength: float, samples: int, dimension: int) -> float:
    """Return σ₁² of M noisy gradients with a common mean.

    (θ+M)(θ+P)/θ with θ = M‖ḡ‖², once θ > √(MP), in unit white noise.

    Below that the mean cannot be detected, and σ₁² is at the edge (√M + √P)².

    Args:
        strength: ‖ḡ‖² in units of the noise variance of a coordinate, not negative.
        samples: M ≥ 1.
        dimension: P ≥ 1.

    Raises:
        InputError: an argument outside its range.

    >>> gradient_mean_position(0.0, samples=4, dimension=9)
    25.0
    """
    strength, m, p = real(strength, "strength"), real(samples, "samples"), real(dimension, "dimension")
    if not 0 <= strength < math.inf or not max(m, p) < math.inf or m < 1 or p < 1:
        raise InputError(
            f"strength {strength}, samples {samples}, dimension {dimension}: need ≥ 0, ≥ 1 and ≥ 1"
        )
    theta = m * strength
    if theta <= math.sqrt(m) * math.sqrt(p):
        return _finite((math.sqrt(m) + math.sqrt(p)) ** 2, "the edge of the noise")
    return _finite((theta + m) * (1.0 + p / theta), "the position of the mean")


def _spike(spike: float) -> float:
    value = real(spike, "the spike")
    if not 1.0 <= value < math.inf:
        raise InputError(
            f"the spike is {spike}; give the population eigenvalue in units of the noise variance, ≥ 1"
        )
    return value


def _finite(value: float, name: str) -> float:
    if not math.isfinite(value):
        raise InputError(f"{name} exceeds float64; choose other units")
    return value
