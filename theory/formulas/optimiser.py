"""Give closed forms of gradient descent and Muon on a matrix with fixed singular directions."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from theory.values import Array

# Muon's quintic: p(x) = A x + B x³ + C x⁵, applied five times (Jordan et al. 2024).
QUINTIC = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5


def descent_amplitude(target: ArrayLike, rate: ArrayLike, t: float) -> Array:
    """Return the amplitudes of gradient flow from 0.

    (k,) a*_r(1 − e^{−κ_r t}).

    >>> descent_amplitude([2.0], [1.0], np.log(2)).round(6)
    array([1.])
    """
    return np.asarray(target, float) * -np.expm1(-np.asarray(rate, float) * t)


def muon_amplitude(target: ArrayLike, t: float) -> Array:
    """Return the amplitudes of the exact Muon flow.

    (k,) sign(a*_r)·min(|a*_r|, t): every unfinished mode moves at unit speed under the exact polar factor.

    >>> muon_amplitude([3.0, -0.5], 1.0)
    array([ 1. , -0.5])
    """
    a = np.asarray(target, float)
    return np.sign(a) * np.minimum(np.abs(a), t)


def descent_spread(rate: ArrayLike) -> float:
    """Return κ_max/κ_min: the latest over the earliest time at which a mode covers a given share of its target.

    >>> descent_spread([1.0, 4.0])
    4.0
    """
    k = np.abs(np.asarray(rate, float))
    return float(k.max() / k.min())


def muon_spread(target: ArrayLike) -> float:
    """Return |a*|_max/|a*|_min, the same ratio under Muon.

    The curvatures drop out.

    >>> muon_spread([1.0, -3.0])
    3.0
    """
    a = np.abs(np.asarray(target, float))
    return float(a.max() / a.min())


def newton_schulz(x: ArrayLike, iterations: int = ITERATIONS) -> Array:
    """Apply the Newton–Schulz iteration to singular values.

    x ∈ [0, 1], any shape.

    >>> low, high = BAND
    >>> bool(((newton_schulz([0.01, 0.5, 1.0]) > low) & (newton_schulz([0.01, 0.5, 1.0]) < high)).all())
    True
    """
    a, b, c = QUINTIC
    y = np.asarray(x, float)
    for _ in range(iterations):
        y = a * y + b * y**3 + c * y**5
    return y


def newton_schulz_slope() -> float:
    """Return A⁵ = 484.88, the gain of a small singular value.

    >>> round(newton_schulz_slope(), 2)
    484.88
    """
    return QUINTIC[0] ** ITERATIONS


# Image of [0.005, 1] under `newton_schulz`; a claim checks it.
BAND = (0.682, 1.154)
BAND_FROM = 0.005
