"""Simulate one-pass minibatch least mean squares; every sample of every batch is drawn."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from theory.values import Array


def step(rng: np.random.Generator, error: Array, lam: Array, eta: float, batch: int) -> Array:
    """Advance R independent runs one step.

    e ← e − (η/B) Σ_b x_b (x_b·e), x_b ~ N(0, diag λ). (R, d) → (R, d).

    >>> step(np.random.default_rng(0), np.ones((5, 2)), np.ones(2), eta=0.1, batch=4).shape
    (5, 2)
    """
    runs, d = error.shape
    x = rng.standard_normal((runs, batch, d)) * np.sqrt(lam)
    return error - eta / batch * np.einsum("rbd,rb->rd", x, np.einsum("rbd,rd->rb", x, error))


def squared_errors(
    rng: np.random.Generator, lam: ArrayLike, start: ArrayLike, eta: float, batch: int, steps: int, runs: int
) -> Array:
    """Simulate e_j² (runs, d) after some steps from ``start`` (d,).

    >>> squared_errors(np.random.default_rng(0), [1.0], [2.0], eta=0.1, batch=4, steps=0, runs=3).ravel()
    array([4., 4., 4.])
    """
    lam = np.asarray(lam, float)
    error = np.tile(np.asarray(start, float), (runs, 1))
    for _ in range(steps):
        error = step(rng, error, lam, eta, batch)
    return error**2


def growth_rates(
    rng: np.random.Generator, lam: ArrayLike, eta: float, batch: int, steps: int, particles: int
) -> Array:
    """Estimate the growth of E‖e‖² per step, by resampling.

    (steps,) estimates of E‖e⁺‖²/E‖e‖² along a population resampled in proportion to ‖e‖².

    Near the boundary the second moment depends on rare runs that a plain average misses; resampling includes
    them. The first steps are a transient: discard them.

    >>> growth_rates(np.random.default_rng(0), [1.0], eta=0.1, batch=4, steps=3, particles=50).shape
    (3,)
    """
    lam = np.asarray(lam, float)
    error = rng.standard_normal((particles, len(lam)))
    error /= np.linalg.norm(error, axis=1, keepdims=True)
    out = np.empty(steps)
    for t in range(steps):
        error = step(rng, error, lam, eta, batch)
        weight = (error**2).sum(1)
        out[t] = weight.mean()
        # Systematic resampling: one uniform, lowest variance.
        ladder = (rng.random() + np.arange(particles)) / particles
        chosen = np.searchsorted(np.cumsum(weight) / weight.sum(), ladder).clip(max=particles - 1)
        error = error[chosen] / np.sqrt(weight[chosen])[:, None]
    return out


@dataclass(frozen=True)
class Crossing:
    """Hold the learning rate at which the growth of E‖e‖² crosses 1, with its standard error.

    >>> Crossing(eta=0.66, stderr=0.01).eta
    0.66
    """

    eta: float
    stderr: float


def critical_rate(
    rng: np.random.Generator, lam: ArrayLike, batch: int, bracket: tuple[float, float], particles: int
) -> Crossing:
    """Measure the learning rate at which E‖e‖² stops decaying.

    Where ln growth, measured at seven rates in ``bracket`` and interpolated linearly, crosses 0.

    Interpolation is local on purpose: growth has a kink where the fastest mode takes over from the slowest, often
    just below the crossing, and a polynomial through both sides misses it by 2 %. Error: standard deviation over
    eight blocks of steps, divided by √8.

    Raises:
        ValueError: no crossing in the bracket.

    >>> found = critical_rate(np.random.default_rng(0), [1.0], 1, (0.5, 0.8), particles=40)
    >>> abs(found.eta - 2 / 3) < 0.1
    True
    """
    etas = np.linspace(*bracket, 7)
    blocks, length, burn = 8, 25, 40
    rates = np.array([growth_rates(rng, lam, eta, batch, burn + blocks * length, particles) for eta in etas])
    by_block = np.log(rates[:, burn:]).reshape(len(etas), blocks, length).mean(2)
    roots = [_crossing(etas, by_block[:, b], bracket) for b in range(blocks)]
    return Crossing(
        _crossing(etas, by_block.mean(1), bracket), float(np.std(roots, ddof=1) / np.sqrt(blocks))
    )


def _crossing(etas: Array, growth: Array, bracket: tuple[float, float]) -> float:
    rising = np.flatnonzero((growth[:-1] < 0) & (growth[1:] >= 0))
    if len(rising) == 0:
        raise ValueError(f"growth does not cross 1 for η in {bracket}; widen the bracket")
    i = rising[-1]
    return float(etas[i] - growth[i] * (etas[i + 1] - etas[i]) / (growth[i + 1] - growth[i]))


def floor_samples(
    rng: np.random.Generator, eta: float, kappa: float, variance: float, batch: int, steps: int, runs: int
) -> Array:
    """Simulate the squared error of a noisy mode.

    (runs,) e² after ``steps`` of e ← (1−ηκ)e − η·(mean of B noises of variance C), from 0; all B noises are drawn.

    >>> floor_samples(np.random.default_rng(0), 0.5, 1.0, 1.0, batch=2, steps=10, runs=4).shape
    (4,)
    """
    error = np.zeros(runs)
    for _ in range(steps):
        noise = np.sqrt(variance) * rng.standard_normal((runs, batch)).mean(1)
        error = (1 - eta * kappa) * error - eta * noise
    return error**2


def learned_energies(
    rng: np.random.Generator,
    lam: ArrayLike,
    teacher: ArrayLike,
    eta: float,
    batch: int,
    steps: int,
    runs: int,
) -> Array:
    """Simulate ŵ_j² (runs, d) after some steps from ŵ = 0 towards ``teacher`` (d,).

    >>> learned_energies(np.random.default_rng(0), [1.0], [2.0], 0.1, batch=4, steps=0, runs=2).ravel()
    array([0., 0.])
    """
    lam, w = np.asarray(lam, float), np.asarray(teacher, float)
    error = np.tile(w, (runs, 1))
    for _ in range(steps):
        error = step(rng, error, lam, eta, batch)
    return (w - error) ** 2
