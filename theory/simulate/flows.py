"""Gradient flow, integrated numerically: mode by mode, and on a whole matrix with exact or iterated polar factor."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from theory.values import Array

# The coefficients are repeated here on purpose: the simulator iterates matrices and shares nothing with the
# scalar formula it is compared with.
_A, _B, _C = 3.4445, -4.7750, 2.0315


def runge_kutta(field: Callable[[Array], Array], start: Array, times: ArrayLike, substeps: int = 64) -> Array:
    """States at ``times`` (T,) of ẋ = field(x), x(0) = start, by classical fourth-order Runge–Kutta.

    Every interval is cut into ``substeps``; local error is O(step⁵). Returns (T, *start.shape).
    """
    x, now, out = np.array(start, float), 0.0, []
    for t in np.asarray(times, float):
        h = (t - now) / substeps
        for _ in range(substeps if h > 0 else 0):
            k1 = field(x)
            k2 = field(x + h / 2 * k1)
            k3 = field(x + h / 2 * k2)
            k4 = field(x + h * k3)
            x = x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        now = t
        out.append(x.copy())
    return np.array(out)


def mode_flow(target: ArrayLike, rate: ArrayLike, times: ArrayLike, substeps: int = 64) -> Array:
    """(T, k) amplitudes of ȧ_r = κ_r(a*_r − a_r) from 0."""
    a, k = np.asarray(target, float), np.asarray(rate, float)
    return runge_kutta(lambda x: k * (a - x), np.zeros_like(a), times, substeps)


@dataclass(frozen=True, eq=False)
class MatrixProblem:
    """W (m×n) with gradient −Σ_r κ_r(a*_r − uᵀ_r W v_r) u_r v_rᵀ, u and v orthonormal columns."""

    left: Array
    right: Array
    target: Array
    rate: Array

    @classmethod
    def draw(
        cls, rng: np.random.Generator, m: int, n: int, target: ArrayLike, rate: ArrayLike
    ) -> MatrixProblem:
        """Random orthonormal directions for the k given targets and curvatures; k ≤ min(m, n)."""
        a, kappa = np.asarray(target, float), np.asarray(rate, float)
        left = np.linalg.qr(rng.standard_normal((m, len(a))))[0]
        right = np.linalg.qr(rng.standard_normal((n, len(a))))[0]
        return cls(left, right, a, kappa)

    def gradient(self, w: Array) -> Array:
        """(m, n) gradient at ``w``."""
        residual = self.rate * (self.target - self.amplitudes(w))
        return -(self.left * residual) @ self.right.T

    def amplitudes(self, w: Array) -> Array:
        """(k,) a_r = u_rᵀ W v_r."""
        return np.einsum("mr,mn,nr->r", self.left, w, self.right)


def polar_factor(g: Array, rtol: float = 1e-10) -> Array:
    """U Vᵀ of the thin SVD restricted to singular values above rtol·σ_1; the zero matrix for g = 0."""
    u, s, vt = np.linalg.svd(g, full_matrices=False)
    keep = s > rtol * s[0] if s[0] > 0 else np.zeros(len(s), bool)
    return u[:, keep] @ vt[keep]


def newton_schulz_matrix(g: Array, iterations: int = 5) -> Array:
    """Muon's iteration X ← A X + (B XXᵀ + C (XXᵀ)²) X on g/‖g‖_F; the zero matrix for g = 0."""
    norm = np.linalg.norm(g)
    if norm == 0:
        return np.zeros_like(g)
    x = g / norm
    for _ in range(iterations):
        gram = x @ x.T
        x = _A * x + (_B * gram + _C * gram @ gram) @ x
    return x


def matrix_descent(problem: MatrixProblem, times: ArrayLike, substeps: int = 64) -> Array:
    """(T, k) amplitudes of Ẇ = −∇L from W = 0."""
    start = np.zeros((problem.left.shape[0], problem.right.shape[0]))
    states = runge_kutta(lambda w: -problem.gradient(w), start, times, substeps)
    return np.array([problem.amplitudes(w) for w in states])


def matrix_muon(
    problem: MatrixProblem,
    horizon: float,
    steps: int,
    orthogonalise: Callable[[Array], Array] = polar_factor,
) -> tuple[Array, Array]:
    """Times (steps+1,) and amplitudes (steps+1, k) of W ← W − h·orthogonalise(∇L), h = horizon/steps, from 0.

    A finished mode chatters within ±h of its target, the error of every discretisation of this flow.
    """
    h = horizon / steps
    w = np.zeros((problem.left.shape[0], problem.right.shape[0]))
    path = [problem.amplitudes(w)]
    for _ in range(steps):
        w = w - h * orthogonalise(problem.gradient(w))
        path.append(problem.amplitudes(w))
    return np.linspace(0.0, horizon, steps + 1), np.array(path)


def hitting_times(times: ArrayLike, path: Array, levels: Array) -> Array:
    """(k,) first time at which |path[:, r]| ≥ |levels_r|, linear between grid points; NaN if never."""
    t, out = np.asarray(times, float), np.full(path.shape[1], np.nan)
    for r, level in enumerate(np.abs(levels)):
        y = np.abs(path[:, r])
        reached = np.flatnonzero(y >= level)
        if len(reached) and reached[0] > 0:
            i = reached[0]
            out[r] = t[i - 1] + (level - y[i - 1]) / (y[i] - y[i - 1]) * (t[i] - t[i - 1])
        elif len(reached):
            out[r] = t[0]
    return out
