"""Integrate gradient flow numerically: by modes, and on a matrix with a polar factor."""

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
    """Integrate ẋ = field(x) by fourth-order Runge–Kutta.

    States at ``times`` (T,), x(0) = start.

    Every interval is divided into ``substeps``; local error is O(step⁵). Returns (T, *start.shape).

    >>> runge_kutta(lambda x: -x, np.array([1.0]), [np.log(2)]).round(6)
    array([[0.5]])
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
    """Integrate ȧ_r = κ_r(a*_r − a_r) from 0, and return the amplitudes (T, k).

    >>> mode_flow([2.0], [1.0], [np.log(2)]).round(6)
    array([[1.]])
    """
    a, k = np.asarray(target, float), np.asarray(rate, float)
    return runge_kutta(lambda x: k * (a - x), np.zeros_like(a), times, substeps)


@dataclass(frozen=True, eq=False)
class MatrixProblem:
    """Hold a matrix W with a gradient along fixed directions.

    W (m×n) with gradient −Σ_r κ_r(a*_r − uᵀ_r W v_r) u_r v_rᵀ, u and v orthonormal columns.

    >>> problem = MatrixProblem.draw(np.random.default_rng(0), 4, 3, target=[1.0, 2.0], rate=[1.0, 1.0])
    >>> problem.amplitudes(np.zeros((4, 3)))
    array([0., 0.])
    """

    left: Array
    right: Array
    target: Array
    rate: Array

    @classmethod
    def draw(
        cls, rng: np.random.Generator, m: int, n: int, target: ArrayLike, rate: ArrayLike
    ) -> MatrixProblem:
        """Draw random orthonormal directions for given targets and curvatures.

        k ≤ min(m, n) of them.
        """
        a, kappa = np.asarray(target, float), np.asarray(rate, float)
        left = np.linalg.qr(rng.standard_normal((m, len(a))))[0]
        right = np.linalg.qr(rng.standard_normal((n, len(a))))[0]
        return cls(left, right, a, kappa)

    def gradient(self, w: Array) -> Array:
        """Return the (m, n) gradient at ``w``."""
        residual = self.rate * (self.target - self.amplitudes(w))
        return -(self.left * residual) @ self.right.T

    def amplitudes(self, w: Array) -> Array:
        """Return the (k,) amplitudes a_r = u_rᵀ W v_r."""
        return np.einsum("mr,mn,nr->r", self.left, w, self.right)


def polar_factor(g: Array, rtol: float = 1e-10) -> Array:
    """Return the polar factor U Vᵀ of g.

    Of the thin SVD restricted to singular values above rtol·σ_1; the zero matrix for g = 0.

    >>> polar_factor(np.diag([3.0, 0.0])).round(6)
    array([[1., 0.],
           [0., 0.]])
    """
    u, s, vt = np.linalg.svd(g, full_matrices=False)
    keep = s > rtol * s[0] if s[0] > 0 else np.zeros(len(s), bool)
    return u[:, keep] @ vt[keep]


def newton_schulz_matrix(g: Array, iterations: int = 5) -> Array:
    """Apply Muon's iteration to a matrix.

    X ← A X + (B XXᵀ + C (XXᵀ)²) X on g/‖g‖_F; the zero matrix for g = 0.

    >>> from theory.formulas.optimiser import newton_schulz
    >>> np.allclose(newton_schulz_matrix(np.diag([3.0, 4.0])).diagonal(), newton_schulz([0.6, 0.8]))
    True
    """
    norm = np.linalg.norm(g)
    if norm == 0:
        return np.zeros_like(g)
    x = g / norm
    for _ in range(iterations):
        gram = x @ x.T
        x = _A * x + (_B * gram + _C * gram @ gram) @ x
    return x


def matrix_descent(problem: MatrixProblem, times: ArrayLike, substeps: int = 64) -> Array:
    """Integrate gradient flow of a matrix problem from W = 0.

    (T, k) amplitudes of Ẇ = −∇L.

    >>> problem = MatrixProblem.draw(np.random.default_rng(0), 3, 2, target=[2.0], rate=[1.0])
    >>> matrix_descent(problem, [np.log(2)]).round(6)
    array([[1.]])
    """
    start = np.zeros((problem.left.shape[0], problem.right.shape[0]))
    states = runge_kutta(lambda w: -problem.gradient(w), start, times, substeps)
    return np.array([problem.amplitudes(w) for w in states])


def matrix_muon(
    problem: MatrixProblem,
    horizon: float,
    steps: int,
    orthogonalise: Callable[[Array], Array] = polar_factor,
) -> tuple[Array, Array]:
    """Run Muon with small steps on a matrix problem.

    Times (steps+1,) and amplitudes (steps+1, k) of W ← W − h·orthogonalise(∇L), h = horizon/steps, from 0.

    A finished mode oscillates within ±h of its target, as in every discretisation of this flow.

    >>> problem = MatrixProblem.draw(np.random.default_rng(0), 3, 2, target=[2.0], rate=[1.0])
    >>> times, path = matrix_muon(problem, horizon=1.0, steps=4)
    >>> path[:, 0].round(6)
    array([0.  , 0.25, 0.5 , 0.75, 1.  ])
    """
    h = horizon / steps
    w = np.zeros((problem.left.shape[0], problem.right.shape[0]))
    path = [problem.amplitudes(w)]
    for _ in range(steps):
        w = w - h * orthogonalise(problem.gradient(w))
        path.append(problem.amplitudes(w))
    return np.linspace(0.0, horizon, steps + 1), np.array(path)


def hitting_times(times: ArrayLike, path: Array, levels: Array) -> Array:
    """Find when each mode first reaches its level.

    (k,) first time with |path[:, r]| ≥ |levels_r|, linear between grid points; NaN if never.

    >>> hitting_times([0.0, 1.0, 2.0], np.array([[0.0], [2.0], [4.0]]), np.array([3.0]))
    array([1.5])
    """
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
