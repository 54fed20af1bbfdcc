"""Derive T13 (what gradient flow of free features keeps, growth of modes) and T14 (entropy of a spectrum) by sympy."""

# sympy's annotations do not describe what its functions return.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# pyright: reportOperatorIssue=false, reportReturnType=false

from __future__ import annotations

import numpy as np
import sympy as sp

from theory.claim import Derivation
from theory.derivations.tools import agree, step, vanishes
from theory.formulas import entropy, features


def _symbols(name: str, rows: int, columns: int) -> sp.Matrix:
    return sp.Matrix(rows, columns, lambda i, j: sp.Symbol(f"{name}_{i + 1}{j + 1}", real=True))


def conserved_balance() -> Derivation:
    """Derive the balance of free features, n = 3, d = 2, V = 2: exact under flow, of second order in one step.

    The gradient G in the logits is left free, so that the loss can be any function of them; a row of cross-entropy is
    compared with the formula in use.
    """
    theta, head, gradient = _symbols("theta", 3, 2), _symbols("W", 2, 2), _symbols("G", 3, 2)
    rate = sp.symbols("eta", positive=True)

    def balance(a: sp.Matrix, b: sp.Matrix) -> sp.Matrix:
        return a.T * a - b * b.T

    moved = balance(theta - rate * gradient * head.T, head - rate * theta.T * gradient)
    change = (moved - balance(theta, head)).applyfunc(sp.expand)
    first = change.applyfunc(lambda x: x.coeff(rate, 1))
    second = change.applyfunc(lambda x: x.coeff(rate, 2))
    names = (*gradient, *theta, *head)
    points = [tuple(np.random.default_rng(seed).uniform(-1, 1, len(names))) for seed in (1, 2)]

    def drift(*v: float) -> float:
        g, a, b = np.reshape(v[:6], (3, 2)), np.reshape(v[6:12], (3, 2)), np.reshape(v[12:], (2, 2))
        return float(features.balance_drift(g, a, b)[0, 1])

    z, y = sp.symbols("z_1:3", real=True), sp.symbols("y_1:3", positive=True)
    loss = sp.log(sum(sp.exp(x) for x in z)) * sum(y) - sum(a * b for a, b in zip(z, y, strict=True))
    laws = [(0.3, -0.2, 0.25, 0.75), (1.0, 2.0, 0.9, 0.1)]

    def slope(*v: float) -> float:
        return float(
            features.logit_gradient(np.ones(1), np.array([v[2:]]), np.array([v[:2]]), np.eye(2))[0, 0]
        )

    return Derivation(
        (
            step("change of θᵀθ − WWᵀ in one step, part of first order in η", first),
            step("one entry of the part of second order", second[0, 1]),
        ),
        (
            vanishes("first order", sum(x**2 for x in first)),
            agree("second order", second[0, 1], names, drift, points),
            agree("gradient in the logits", sp.diff(loss, z[0]), (*z, *y), slope, laws),
        ),
    )


def balanced_modes() -> Derivation:
    """Derive dσ_1/dt = g_1 σ_1 at a balanced point with n = d = V = 2, singular vectors being rotations."""
    a, b, c = sp.symbols("a b c", real=True)
    s = sp.symbols("sigma_1:3", positive=True)
    gradient = _symbols("G", 2, 2)
    time = sp.symbols("t", real=True)

    def rotation(angle: sp.Symbol) -> sp.Matrix:
        return sp.Matrix([[sp.cos(angle), -sp.sin(angle)], [sp.sin(angle), sp.cos(angle)]])

    left, right, turn = rotation(a), rotation(b), rotation(c)
    theta, head = left * sp.diag(*s) * turn.T, turn * sp.diag(*s) * right.T
    moving = theta - time * gradient * head.T
    # Trace and determinant of the Gram matrix of the features.
    trace, det = sum(x**2 for x in moving), moving.det() ** 2
    # The larger eigenvalue of a 2 × 2 matrix and its derivative at 0, with the eigenvalues σ² put in.
    gap = s[0] ** 2 - s[1] ** 2
    slope = (s[0] ** 2 * sp.diff(trace, time) - sp.diff(det, time)).subs(time, 0) / gap
    speed = slope / (2 * s[0])
    names = (a, b, c, *s, *gradient)
    points = [
        (0.3, 1.1, -0.4, 2.0, 0.7, 0.2, -0.5, 0.9, 0.4),
        (2.0, -0.3, 0.8, 1.5, 1.2, -1.0, 0.3, 0.6, 0.1),
    ]

    def numeric(*v: float) -> float:
        def turned(angle: float) -> np.ndarray:
            return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])

        return v[3] * float(features.mode_growth(np.reshape(v[5:], (2, 2)), turned(v[0]), turned(v[1]))[0])

    closed = -s[0] * (left.col(0).T * gradient * right.col(0))[0, 0]
    return Derivation(
        (step("−σ₁ u₁ᵀ G q₁ with u₁, q₁ at the angles a, b", closed),),
        (
            agree("derivative of the larger singular value", speed, names, numeric, points),
            agree("growth of a mode", closed, names, numeric, points),
        ),
    )


def entropy_balance() -> Derivation:
    """Derive dS/dt = −Cov_p(g, ln p) for three eigenvalues that are any functions of time."""
    t = sp.symbols("t", real=True)
    values = [sp.Function(f"lambda_{i}", positive=True)(t) for i in (1, 2, 3)]
    total = sum(values)
    p = [v / total for v in values]
    growth = [sp.diff(sp.log(v), t) for v in values]
    mean = sum(a * b for a, b in zip(p, growth, strict=True))
    covariance = sum(a * (g - mean) * sp.log(a) for a, g in zip(p, growth, strict=True))
    entropy_slope = sp.diff(-sum(a * sp.log(a) for a in p), t)
    v, g = sp.symbols("lambda_1:4", positive=True), sp.symbols("g_1:4", real=True)
    share = [x / sum(v) for x in v]
    centre = sum(a * b for a, b in zip(share, g, strict=True))
    rate = -sum(a * (b - centre) * sp.log(a) for a, b in zip(share, g, strict=True))
    points = [(3.0, 1.0, 0.2, 0.5, -1.0, 2.0), (1.0, 0.9, 0.8, -0.3, 0.1, 0.0)]
    return Derivation(
        (step("−Cov_p(g, ln p)", rate),),
        (
            vanishes("dS/dt by the chain rule equals it", entropy_slope + covariance),
            agree(
                "entropy_rate", rate, (*v, *g), lambda *x: entropy.entropy_rate(x[:3], x[3:]), points, 1e-12
            ),
        ),
    )
