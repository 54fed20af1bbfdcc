"""Derive T5 (replicator identity), T6 (power-law loss), T7 (exponents) and T8 (moments) by sympy."""

# sympy's annotations do not describe what its functions return.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# pyright: reportOperatorIssue=false, reportReturnType=false

from __future__ import annotations

import numpy as np
import sympy as sp

from theory.claim import Derivation
from theory.derivations.tools import agree, step, vanishes
from theory.formulas import dynamics, lms


def replicator() -> Derivation:
    """Derive the replicator form of dH_S/dt, and its limits.

    d/dt of M_S/(M_S+M_R) by the chain rule, and the two limits of a flow from zero.
    """
    t = sp.symbols("t", positive=True)
    inside, outside = sp.Function("M_S", positive=True)(t), sp.Function("M_R", positive=True)(t)
    h = inside / (inside + outside)
    right = h * (1 - h) * sp.diff(sp.log(inside / outside), t)
    a, b, k, l2 = sp.symbols("a b kappa lambda", positive=True)
    flow = (a * (1 - sp.exp(-k * t))) ** 2
    rest = (b * (1 - sp.exp(-l2 * t))) ** 2
    ratio = flow / (flow + rest)
    early = sp.limit(ratio, t, 0, "+")
    # Masses converge one by one; sympy needs seconds for the limit of the ratio itself.
    late = sp.limit(flow, t, sp.oo) / (sp.limit(flow, t, sp.oo) + sp.limit(rest, t, sp.oo))
    g = sp.symbols("g", positive=True)
    curve = (g + flow) / (2 * g + flow + rest)
    curvature = sp.simplify(sp.diff(curve, t, 2).subs(t, 0) / 2)
    mode = np.array([True, False])
    points = [(1.0, 2.0, 0.5, 1.5), (0.3, 0.7, 2.0, 0.1), (5.0, 1.0, 1.0, 3.0)]
    return Derivation(
        (
            step("H_S(1−H_S) d/dt log(M_S/M_R)", sp.together(right.doit())),
            step("H_S(0⁺), one mode each side", sp.factor(early)),
            step("H_S(∞)", sp.factor(late)),
            step("½H_S''(0) with background g", sp.factor(curvature)),
        ),
        (
            vanishes("dH_S/dt equals the replicator form", sp.diff(h, t) - right),
            agree(
                "H_S(0⁺)",
                early,
                (a, b, k, l2),
                lambda a, b, k, l2: dynamics.early_share([a, b], [k, l2], mode),
                points,
            ),
            agree(
                "H_S(∞)", late, (a, b, k, l2), lambda a, b, k, l2: dynamics.late_share([a, b], mode), points
            ),
            agree(
                "curvature at 0 with a background",
                curvature,
                (a, b, k, l2, g),
                lambda a, b, k, l2, g: dynamics.initial_curvature([a, b], [k, l2], mode, g),
                [(*p, 0.2) for p in points],
            ),
        ),
    )


def power_law_loss() -> Derivation:
    """Derive the loss of power-law spectra.

    ½∫₀^∞ j^{−b} e^{−2t j^{−a}} dj after u = 2t j^{−a}.
    """
    t, a, u, j = sp.symbols("t a u j", positive=True)
    s = sp.symbols("s", positive=True)
    b = 1 + a * s  # b > 1 becomes s = (b−1)/a > 0, which lets sympy decide convergence
    old = sp.Integral(j ** (-b) * sp.exp(-2 * t * j ** (-a)) / 2, (j, 0, sp.oo))
    where = (2 * t / u) ** (1 / a)
    integrand = sp.powsimp(
        sp.expand_power_base(sp.simplify(old.function.subs(j, where) * -sp.diff(where, u))), force=True
    )
    closed = sp.simplify(sp.integrate(sp.powdenest(sp.simplify(integrand), force=True), (u, 0, sp.oo)))
    points = [(30.0, 1.0, 1.0), (100.0, 0.5, 2.0), (7.0, 2.0, 0.75)]
    return Derivation(
        (step("sum over modes as an integral", old), step("its value", closed)),
        (
            agree(
                "closed form against power_law_loss",
                closed,
                (t, a, s),
                lambda t, a, s: dynamics.power_law_loss(a, 1 + a * s, t),
                points,
            ),
        ),
    )


def exponents() -> Derivation:
    """Derive scale invariance and the pairwise form of exponents.

    Least-squares slope on four symbolic log-energies.
    """
    n = 4
    x = sp.symbols("x0:4", real=True)
    y = sp.symbols("y0:4", real=True)
    shift = sp.symbols("s", real=True)

    def slope(values: tuple[sp.Expr, ...]) -> sp.Expr:
        mean = sum(x) / n
        return sum((x[i] - mean) * values[i] for i in range(n)) / sum((x[i] - mean) ** 2 for i in range(n))

    scaled = sp.simplify(slope(tuple(v + shift for v in y)) - slope(y))
    mean = sum(x) / n
    pairs = sum((x[k] - x[i]) * (y[k] - y[i]) for i in range(n) for k in range(i + 1, n))
    pairwise = pairs / (n * sum((v - mean) ** 2 for v in x))
    logs = {x[i]: sp.log(i + 3) for i in range(n)}
    h = sp.symbols("h0:3", real=True)
    norm = sp.sqrt(sum(v**2 for v in h) / 3)
    trace = sp.simplify(sum((v / norm) ** 2 for v in h))
    points = [(0.1, 0.2, 0.5, 0.9), (-1.0, 0.0, 0.3, 0.3)]
    return Derivation(
        (
            step("slope after λ → κλ minus slope", scaled),
            step("slope of ln(λ'/λ) as a sum over pairs", pairwise),
            step("‖h‖² after RMSNorm at d = 3", trace),
        ),
        (
            vanishes("the exponent ignores scale", scaled),
            vanishes("the pairwise sum is the slope", sp.expand(sp.together(slope(y) - pairwise))),
            agree(
                "pairwise sum against exponent_drop",
                pairwise.subs(logs),
                y,
                lambda *v: dynamics.exponent_drop(np.exp(v), 3),
                points,
            ),
            agree(
                "−slope against exponent",
                -slope(y).subs(logs),
                y,
                lambda *v: dynamics.exponent(np.exp([0.0, 0.0, *v]), 3, 6),
                points,
            ),
            vanishes("RMSNorm fixes the squared norm at d", trace - 3),
        ),
    )


def _gaussian_mean(polynomial: sp.Expr, variables: dict[sp.Symbol, sp.Expr]) -> sp.Expr:
    """Return the expectation of a polynomial in independent centred Gaussians with the given variances."""
    poly = sp.Poly(sp.expand(polynomial), *variables)
    total = sp.Integer(0)
    for powers, coefficient in poly.terms():
        if all(p % 2 == 0 for p in powers):
            moments = [
                v ** (p // 2) * sp.factorial2(p - 1)
                for p, v in zip(powers, variables.values(), strict=True)
                if p
            ]
            total += coefficient * sp.prod(moments)
    return sp.expand(total)


def moment_recursion() -> Derivation:
    """Derive the moment recursion and its stability condition.

    E e_1⁺² for d = 2 and B = 1, 2, 3 from Gaussian moments, and the rate at which a fixed point exists.
    """
    lam = sp.symbols("lambda1 lambda2", positive=True)
    e = sp.symbols("e1 e2", real=True)
    eta = sp.symbols("eta", positive=True)
    steps, checks = [], []
    points = [(0.7, 0.3, 1.0, -2.0, 0.4), (1.0, 0.5, 0.3, 0.8, 0.9)]
    for batch in (1, 2, 3):
        x = sp.symbols(f"x0:{2 * batch}", real=True)
        new = e[0] - eta / batch * sum(
            x[2 * b] * (x[2 * b] * e[0] + x[2 * b + 1] * e[1]) for b in range(batch)
        )
        mean = _gaussian_mean(new**2, {v: lam[i % 2] for i, v in enumerate(x)})
        steps.append(step(f"mean of the squared error after one step, batch {batch}", sp.collect(mean, eta)))
        checks.append(
            agree(
                f"one step at batch {batch} against moment_step",
                mean,
                (*lam, *e, eta),
                lambda l1, l2, e1, e2, h, n=batch: float(lms.moment_step([e1**2, e2**2], [l1, l2], h, n)[0]),
                points,
            )
        )
    b = sp.symbols("B", positive=True)
    keep = [(1 - eta * v) ** 2 + eta**2 * v**2 / b for v in lam]
    # p = (1 − D)⁻¹ (η²/B) λ (λ·p): a fixed point exists iff Σ (η²/B) λ²/(1 − D) = 1.
    total = sp.simplify(sum(eta**2 / b * v**2 / (1 - k) for v, k in zip(lam, keep, strict=True)))
    steps.append(step("sum that reaches 1 at the boundary", total))
    checks.append(
        agree(
            "boundary sum against stability_sum",
            total,
            (*lam, eta, b),
            lambda l1, l2, h, n: lms.stability_sum([l1, l2], h, n),
            [(0.7, 0.3, 0.4, 2), (1.0, 0.5, 0.9, 8)],
        )
    )
    return Derivation(tuple(steps), tuple(checks))
