"""Derive T9 (descent against Muon) and T10 (zero head, tied head) by sympy."""

# sympy's annotations do not describe what its functions return.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# pyright: reportOperatorIssue=false, reportReturnType=false

from __future__ import annotations

import numpy as np
import sympy as sp

from theory.claim import Derivation
from theory.derivations.tools import agree, step, vanishes
from theory.formulas import optimiser, tying


def amplitudes() -> Derivation:
    """Solve both flows from 0, and their hitting times.

    Spreads of the times at which a share f is reached.
    """
    t, kappa, target, f = sp.symbols("t kappa a_star f", positive=True)
    a = sp.Function("a")
    descent = sp.dsolve(sp.Eq(a(t).diff(t), kappa * (target - a(t))), a(t), ics={a(0): 0}).rhs
    muon = sp.dsolve(sp.Eq(a(t).diff(t), 1), a(t), ics={a(0): 0}).rhs
    hit_descent = sp.solve(sp.Eq(sp.simplify(descent / target), f), t)[0]
    hit_muon = sp.solve(sp.Eq(muon, f * target), t)[0]
    k1, k2, a1, a2 = sp.symbols("kappa1 kappa2 a1 a2", positive=True)
    spread = sp.simplify(hit_descent.subs(kappa, k1) / hit_descent.subs(kappa, k2))
    spread_muon = sp.simplify(hit_muon.subs(target, a2) / hit_muon.subs(target, a1))
    return Derivation(
        (
            step("gradient descent", sp.factor(descent)),
            step("Muon before it arrives", muon),
            step("ratio of descent hitting times", spread),
            step("ratio of Muon hitting times", spread_muon),
        ),
        (
            agree(
                "descent",
                descent,
                (kappa, target, t),
                lambda k, s, x: float(optimiser.descent_amplitude(s, k, x)),
                [(1.0, 2.0, 0.3), (0.1, 0.5, 4.0)],
            ),
            agree(
                "Muon, t < a*",
                muon,
                (t,),
                lambda x: float(optimiser.muon_amplitude(-3.0, x) / -1.0),
                [(0.3,), (2.9,)],
            ),
            agree(
                "spread of descent",
                spread,
                (k1, k2, f),
                lambda x, y, _: optimiser.descent_spread([x, y]),
                [(1.0, 7.0, 0.5), (0.2, 0.9, 0.1)],
            ),
            agree(
                "spread of Muon",
                spread_muon,
                (a1, a2),
                lambda x, y: optimiser.muon_spread([x, -y]),
                [(1.0, 4.0)],
            ),
        ),
    )


def newton_schulz() -> Derivation:
    """Derive the slope at 0 of the five-fold quintic.

    By the chain rule, from exact rationals.
    """
    x = sp.symbols("x", real=True)
    a, b, c = sp.Rational(34445, 10000), sp.Rational(-47750, 10000), sp.Rational(20315, 10000)
    once = a * x + b * x**3 + c * x**5
    value, slope = sp.Integer(0), sp.Integer(1)
    for _ in range(5):
        slope *= sp.diff(once, x).subs(x, value)
        value = once.subs(x, value)
    return Derivation(
        (step("one iteration", once), step("slope at 0 after five", sp.N(slope, 8))),
        (
            agree("slope", slope, (), optimiser.newton_schulz_slope, [()]),
            agree(
                "one iteration",
                once,
                (x,),
                lambda v: float(optimiser.newton_schulz(v, 1)),
                [(0.1,), (0.7,), (1.0,)],
            ),
        ),
    )


def zero_head() -> Derivation:
    """Derive loss and gradients of softmax at a zero head.

    Three words, two dimensions.
    """
    h = sp.symbols("h0:2", real=True)
    w = sp.Matrix(3, 2, sp.symbols("w0:6", real=True))
    logits = w * sp.Matrix(h)
    loss = sp.log(sum(sp.exp(v) for v in logits)) - logits[0]
    zero = dict.fromkeys(w, 0)
    at_zero = sp.simplify(loss.subs(zero))
    trunk = [sp.simplify(sp.diff(loss, v).subs(zero)) for v in h]
    head = sp.Matrix(3, 2, [sp.simplify(sp.diff(loss, v).subs(zero)) for v in w])
    norm = sp.sqrt(sum(v**2 for v in head))
    return Derivation(
        (step("loss at a zero head", at_zero), step("gradient of the head", head)),
        (
            agree("loss", at_zero, (), lambda: tying.zero_head_loss(3), [()]),
            vanishes("no gradient reaches the trunk", sum(v**2 for v in trunk)),
            agree(
                "gradient norm of the head",
                norm,
                h,
                lambda x, y: tying.zero_head_gradient_norm(np.array([[x, y]]), np.array([0]), 3),
                [(1.0, 2.0), (-0.3, 0.4)],
            ),
        ),
    )


def tied_head() -> Derivation:
    """Derive the mean logit of the current token under tying.

    √d·E‖w‖ for w ~ N(0, I_d), and its expansion in 1/d.
    """
    r, d = sp.symbols("r d", positive=True)
    top = sp.integrate(r**d * sp.exp(-(r**2) / 2), (r, 0, sp.oo))
    bottom = sp.integrate(r ** (d - 1) * sp.exp(-(r**2) / 2), (r, 0, sp.oo))
    mean = sp.simplify(sp.sqrt(d) * top / bottom)
    return Derivation(
        (step("mean logit of the current token", mean),),
        (
            agree("own logit", mean, (d,), tying.tied_initial_loss, [(8,), (64,), (128,)]),
            agree("d − 1/4 to O(1/d)", mean - d + sp.Rational(1, 4), (d,), lambda _: 0.0, [(1000,)], 1e-3),
        ),
    )
