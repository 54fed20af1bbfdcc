"""Derive T17, T19 and T20 (entropies of a copy, the Fisher metric of the head) by sympy."""

# sympy's annotations do not describe what its functions return.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# pyright: reportOperatorIssue=false, reportReturnType=false

from __future__ import annotations

import numpy as np
import sympy as sp

from theory.claim import Derivation
from theory.derivations.tools import agree, step, vanishes
from theory.formulas import markov


def copy_entropies() -> Derivation:
    """Derive the divergences of a token and its copy from two independent tokens, with three tokens.

    The joint law has p_w on the diagonal, the product p_w p_v everywhere.
    """
    p = sp.symbols("p_1:4", positive=True)
    a = sp.symbols("a", positive=True)
    pairs = [(p[i] if i == j else 0, p[i] * p[j]) for i in range(3) for j in range(3)]
    renyi = sp.log(sum(x**a * y ** (1 - a) for x, y in pairs if x != 0)) / (a - 1)
    variation = sum(sp.Abs(x - y) for x, y in pairs) / 2
    points = [(0.5, 0.3, 0.2, 0.5), (0.1, 0.2, 0.7, 2.0), (0.25, 0.25, 0.5, 3.0)]

    def numeric(index: int):
        return lambda *v: float(markov.copy_entropies(v[:3], v[3])[index])

    return Derivation(
        (step("Rényi divergence of order a", sp.powsimp(renyi)), step("total variation", variation)),
        (
            agree("Rényi entropy of order 2 − a", renyi, (*p, a), numeric(3), points),
            agree("1 − Σp²", variation, (*p, a), numeric(1), points),
            agree("Shannon", sp.limit(renyi.subs(_values(p)), a, 1), (), lambda: _shannon(), [()]),
        ),
    )


def _values(p: tuple[sp.Symbol, ...]) -> dict[sp.Symbol, sp.Rational]:
    return dict(zip(p, (sp.Rational(1, 2), sp.Rational(3, 10), sp.Rational(1, 5)), strict=True))


def _shannon() -> float:
    return float(markov.copy_entropies([0.5, 0.3, 0.2], 1.0)[0])


def local_divergence() -> Derivation:
    """Derive the second derivative of KL(q_{h+εv} ‖ q_h) at ε = 0, with three tokens and logits z + εu."""
    z, u = sp.symbols("z_1:4", real=True), sp.symbols("u_1:4", real=True)
    epsilon = sp.symbols("epsilon", real=True)

    def log_law(at: sp.Expr) -> list[sp.Expr]:
        logits = [a + at * b for a, b in zip(z, u, strict=True)]
        total = sp.log(sum(sp.exp(x) for x in logits))
        return [x - total for x in logits]

    before, after = log_law(sp.Integer(0)), log_law(epsilon)
    divergence = sum(sp.exp(b) * (b - a) for a, b in zip(before, after, strict=True))
    second = sp.diff(divergence, epsilon, 2).subs(epsilon, 0)
    q = [sp.exp(x) for x in before]
    metric = (
        sum(a * b**2 for a, b in zip(q, u, strict=True)) - sum(a * b for a, b in zip(q, u, strict=True)) ** 2
    )
    points = [(0.3, -0.2, 0.5, 1.0, -2.0, 0.5), (0.0, 1.0, 2.0, 0.1, 0.2, 0.9)]

    def numeric(*v: float) -> float:
        # Logits z are a head with one further direction, along which the state is 1.
        head = np.array([v[3:], v[:3]]).T
        return float(markov.fisher_metric(head, [0.0, 1.0])[0, 0])

    first = sp.diff(divergence, epsilon).subs(epsilon, 0)
    return Derivation(
        (step("half the second derivative is half the variance of the logits", metric),),
        (
            vanishes("first derivative", first),
            agree("second derivative", second, (*z, *u), numeric, points),
            agree("Fisher metric", metric, (*z, *u), numeric, points),
        ),
    )


def two_tokens() -> Derivation:
    """Derive that with two tokens the Fisher length of a path is the Fisher–Rao distance of its ends."""
    s = sp.symbols("s", real=True)
    q = 1 / (1 + sp.exp(-s))
    angle = 2 * sp.asin(sp.sqrt(q))
    speed = sp.sqrt(q * (1 - q))
    difference = sp.diff(angle, s) - speed
    length = angle - angle.subs(s, 0)
    head = [[1.0], [0.0]]
    points = [(0.5,), (2.0,), (-1.5,)]
    return Derivation(
        (step("length from 0 to s", length),),
        (
            agree("its derivative is the speed", difference, (s,), lambda _: 0.0, points),
            agree("length", sp.Abs(length), (s,), lambda x: markov.path_length(head, [0.0], [x]), points),
        ),
    )
