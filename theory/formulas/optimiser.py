"""Closed forms of gradient descent against Muon on a matrix with fixed singular directions."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from theory.values import Array

# Muon's quintic: p(x) = A x + B x³ + C x⁵, applied five times (Jordan et al. 2024).
QUINTIC = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5


def descent_amplitude(target: ArrayLike, rate: ArrayLike, t: float) -> Array:
    """(k,) a*_r(1 − e^{−κ_r t}): gradient flow from 0."""
    return np.asarray(target, float) * -np.expm1(-np.asarray(rate, float) * t)


def muon_amplitude(target: ArrayLike, t: float) -> Array:
    """(k,) sign(a*_r)·min(|a*_r|, t): every unfinished mode moves at unit speed under the exact polar factor."""
    a = np.asarray(target, float)
    return np.sign(a) * np.minimum(np.abs(a), t)


def descent_spread(rate: ArrayLike) -> float:
    """κ_max/κ_min: latest over earliest time at which a mode covers a given fraction of its target."""
    k = np.abs(np.asarray(rate, float))
    return float(k.max() / k.min())


def muon_spread(target: ArrayLike) -> float:
    """|a*|_max/|a*|_min: the same ratio under Muon. The curvatures drop out."""
    a = np.abs(np.asarray(target, float))
    return float(a.max() / a.min())


def newton_schulz(x: ArrayLike, iterations: int = ITERATIONS) -> Array:
    """What the Newton–Schulz iteration does to a singular value x ∈ [0, 1] (any shape)."""
    a, b, c = QUINTIC
    y = np.asarray(x, float)
    for _ in range(iterations):
        y = a * y + b * y**3 + c * y**5
    return y


def newton_schulz_slope() -> float:
    """A⁵ = 484.88: gain of an infinitesimal singular value."""
    return QUINTIC[0] ** ITERATIONS


# Image of [0.005, 1] under `newton_schulz`; a claim checks it.
BAND = (0.682, 1.154)
BAND_FROM = 0.005
