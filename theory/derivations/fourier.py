"""Derive T1, T2 (circulant case) and T11 by sympy."""

# sympy's annotations do not describe what its functions return.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# pyright: reportOperatorIssue=false, reportReturnType=false

from __future__ import annotations

import numpy as np
import sympy as sp

from theory.claim import Agreement, Derivation
from theory.derivations.tools import agree, step, vanishes
from theory.formulas import fourier


def shift() -> Derivation:
    """Derive the eigenvalues of shifts, with and without wrap-around.

    S_d χ_r = e^{2πird/c} χ_r for symbolic integers.
    """
    c = sp.symbols("c", integer=True, positive=True)
    r, m, d, e = sp.symbols("r m d e", integer=True)

    def chi(x: sp.Expr) -> sp.Expr:
        return sp.exp(2 * sp.pi * sp.I * r * x / c)

    ratio = sp.simplify(chi(m + d) / chi(m))
    wrapped = sp.simplify(sp.expand(chi(m + d - c) / chi(m), power_exp=True))
    group = sp.simplify(chi(m + d + e) / chi(m) - ratio * ratio.subs(d, e))
    points = [(5, 1, 2), (7, 3, 6), (64, 31, 17)]
    return Derivation(
        (
            step("value of the shifted character over the character, m + d < c", ratio),
            step("the same when the walk wraps round, m + d ≥ c", wrapped),
        ),
        (
            vanishes("wrapping round changes nothing", wrapped - ratio),
            vanishes("S_d S_e and S_(d+e) have the same eigenvalue, so all S_d commute", group),
            vanishes("eigenvalues have modulus 1, so S_d is unitary", ratio * sp.conjugate(ratio) - 1),
            agree(
                "real part of the eigenvalue",
                sp.re(ratio),
                (c, r, d),
                lambda c, r, d: fourier.shift_eigenvalue(c, r, d).real,
                points,
            ),
            agree(
                "imaginary part of the eigenvalue",
                sp.im(ratio),
                (c, r, d),
                lambda c, r, d: fourier.shift_eigenvalue(c, r, d).imag,
                points,
            ),
        ),
    )


def circulant() -> Derivation:
    """Derive that circulant Gram matrices have the mode energies as eigenvalues.

    c = 5: a symmetric circulant Gram matrix acts on χ_r as c·E_r, and E_r = E_{c−r}.
    """
    c = 5
    g = sp.symbols("g0:3", real=True)
    gram = sp.Matrix(c, c, lambda i, j: g[min((i - j) % c, (j - i) % c)])
    root = [sp.exp(2 * sp.pi * sp.I * sp.Rational(k, c)) for k in range(c)]
    steps, checks, energy = [], [], {}
    for r in range(1, c):
        chi = sp.Matrix([root[r * m % c] for m in range(c)])
        energy[r] = sum(gram[0, k] * sp.cos(2 * sp.pi * sp.Rational(r * k, c)) for k in range(c)) / c
        residual = gram * chi - c * energy[r] * chi
        checks.append(Agreement(f"G χ_{r} = c E_{r} χ_{r}", float(_largest(residual, g)), 1e-12))
    for r in (1, 2):
        steps.append(step(f"E_{r} = E_{c - r}, eigenvalue of G/c and so of the covariance", energy[r]))
        checks.append(
            Agreement(f"E_{r} = E_{c - r}", float(_largest(sp.Matrix([energy[r] - energy[c - r]]), g)), 1e-12)
        )
        checks.append(agree(f"E_{r} against mode_energies", energy[r], g, _numeric_energy(r), _gram_points()))
    return Derivation(tuple(steps), tuple(checks))


def _largest(matrix: sp.Matrix, symbols: tuple[sp.Symbol, ...]) -> float:
    """Largest coefficient modulus of a matrix that is linear in ``symbols``: 0 iff it vanishes identically."""
    return max(abs(complex(sp.N(sp.diff(x, s), 30))) for x in matrix for s in symbols)


def _gram_points() -> list[tuple[float, float, float]]:
    return [(4.0, 1.0, -0.5), (3.0, -0.7, 0.2), (10.0, 2.5, 1.5)]


def _numeric_energy(r: int):
    def energy(g0: float, g1: float, g2: float) -> float:
        gram = np.array([[(g0, g1, g2)[min((i - j) % 5, (j - i) % 5)] for j in range(5)] for i in range(5)])
        return float(fourier.mode_energies(np.linalg.cholesky(gram))[r])

    return energy


def bigram() -> Derivation:
    """Derive |k_r|² of an unknown step as a geometric sum."""
    theta = sp.symbols("theta", positive=True)
    q, c, r = sp.symbols("q c r", integer=True, positive=True)
    z = sp.exp(sp.I * theta)
    # Σ_{d=q}^{c−1} z^d = (z^q − z^c)/(1 − z), and z^c = 1 at θ = 2πr/c.
    numerator = (z**q - 1) * (z ** (-q) - 1)
    denominator = (1 - z) * (1 - 1 / z)
    top = sp.simplify(sp.expand(numerator).rewrite(sp.cos))
    bottom = sp.simplify(sp.expand(denominator).rewrite(sp.cos))
    squared = (top / bottom).subs(theta, 2 * sp.pi * r / c) / (c - q) ** 2
    half = sp.sin(sp.pi * r * q / c) ** 2 / sp.sin(sp.pi * r / c) ** 2 / (c - q) ** 2
    points = [(12, 97, 1), (12, 97, 8), (22, 179, 5), (3, 11, 4)]
    return Derivation(
        (
            step("|z^q − 1|²", top),
            step("|1 − z|²", bottom),
            step("|k_r|² at θ = 2πr/c", squared),
        ),
        (
            agree(
                "|k_r|² against bigram_modulus",
                squared,
                (q, c, r),
                lambda q, c, r: float(fourier.bigram_modulus(c, q)[r] ** 2),
                points,
                1e-12,
            ),
            vanishes(
                "half-angle form",
                sp.expand_trig(
                    (top / bottom - sp.sin(q * theta / 2) ** 2 / sp.sin(theta / 2) ** 2).rewrite(sp.exp)
                ),
            ),
            agree("half-angle form, in numbers", half - squared, (q, c, r), lambda *_: 0.0, points, 1e-12),
        ),
    )
