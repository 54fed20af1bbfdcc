"""Give closed forms of one-pass minibatch least mean squares on x ~ N(0, diag λ)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from theory.roots import bracketed_root
from theory.values import Array


def moment_step(p: ArrayLike, lam: ArrayLike, eta: float, batch: int) -> Array:
    """Advance the second moments of the weight error one step.

    p⁺ = [(1−ηλ_j)² + η²λ_j²/B] p_j + (η²/B) λ_j Σ_i λ_i p_i, with p_j = E e_j², e the weight error (d,).

    >>> moment_step([1.0], [1.0], eta=0.5, batch=1)
    array([0.75])
    """
    p, lam = np.asarray(p, float), np.asarray(lam, float)
    return ((1 - eta * lam) ** 2 + eta**2 * lam**2 / batch) * p + eta**2 / batch * lam * (lam @ p)


def stability_sum(lam: ArrayLike, eta: float, batch: int) -> float:
    """Return the sum that stays below 1 in stable training.

    Σ_j (η/B)λ_j/(2 − ηλ_j(1+1/B)); below 1, with every denominator positive, p_j → 0.

    >>> stability_sum([1.0], eta=0.5, batch=1)
    0.5
    """
    lam = np.asarray(lam, float)
    return float((eta / batch * lam / (2 - eta * lam * (1 + 1 / batch))).sum())


def critical_rate(lam: ArrayLike, batch: int) -> float:
    """Return the learning rate at which second moments stop contracting.

    The root η_c of `stability_sum` = 1.

    Raises:
        ValueError: an eigenvalue ≤ 0 (a mode without input is never learned, so no rate is critical for it).

    >>> round(critical_rate([1.0], batch=1), 9)
    0.666666667
    """
    lam = np.asarray(lam, float)
    if lam.min() <= 0:
        raise ValueError("every λ_j must be positive; drop the modes without input")
    pole = 2 / (lam.max() * (1 + 1 / batch))
    # The sum rises from 0 to +∞ on (0, pole), so the root is unique.
    return bracketed_root(lambda eta: stability_sum(lam, eta, batch) - 1, 0.0, pole * (1 - 1e-13))


def noise_floor(eta: float, kappa: float, variance: float, batch: int) -> float:
    """Return the stationary squared error of a noisy mode.

    E e² → ηC/(Bκ(2−ηκ)): one mode of curvature κ under additive gradient noise of variance C per sample.

    Raises:
        ValueError: ηκ ≥ 2, where the mode diverges and has no floor.

    >>> noise_floor(eta=1.0, kappa=1.0, variance=4.0, batch=2)
    2.0
    """
    if not 0 < eta * kappa < 2:
        raise ValueError(f"ηκ = {eta * kappa:.3g}; a floor exists only for 0 < ηκ < 2")
    return eta * variance / (batch * kappa * (2 - eta * kappa))


def second_moments(
    lam: ArrayLike, teacher: ArrayLike, eta: float, batch: int, steps: int
) -> tuple[Array, Array]:
    """Return E e_j² and E ŵ_j² after some steps.

    (d,), (d,) from ŵ = 0, e = w* − ŵ, by the exact recursions.

    E e_j = w*_j(1−ηλ_j)^t, so E ŵ_j² = w*_j² − 2 w*_j E e_j + E e_j².

    >>> second_moments([1.0], [1.0], eta=0.5, batch=1, steps=1)
    (array([0.75]), array([0.75]))
    """
    lam, w = np.asarray(lam, float), np.asarray(teacher, float)
    p = w**2
    for _ in range(steps):
        p = moment_step(p, lam, eta, batch)
    return p, w**2 - 2 * w**2 * (1 - eta * lam) ** steps + p


def steps_to_loss(
    lam: ArrayLike, teacher: ArrayLike, eta: float, batch: int, target: float, limit: int = 200_000
) -> int:
    """Count the expected steps to a target loss.

    First step with E L = ½ Σ λ_j E e_j² ≤ target, started at ŵ = 0.

    Raises:
        ValueError: not reached within ``limit`` steps (target below the floor, or η above `critical_rate`).

    >>> steps_to_loss([1.0], [1.0], eta=0.5, batch=1, target=0.25)
    3
    """
    lam = np.asarray(lam, float)
    p = np.asarray(teacher, float) ** 2
    for step in range(limit):
        if 0.5 * (lam @ p) <= target:
            return step
        p = moment_step(p, lam, eta, batch)
    raise ValueError(
        f"loss {target} not reached in {limit} steps at η={eta}, B={batch}; lower η or raise the target"
    )
