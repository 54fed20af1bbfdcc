"""Derive T12 (where a spike appears above noise) by sympy."""

# sympy's annotations do not describe what its functions return.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# pyright: reportOperatorIssue=false, reportReturnType=false

from __future__ import annotations

import sympy as sp

from theory.claim import Derivation
from theory.derivations.tools import agree, step
from theory.formulas import matrices


def covariance_spike() -> Derivation:
    """Derive the position, threshold and overlap of a spike.

    Silverstein's equation x = −1/m + γ/(1+m) at m = −1/ℓ; threshold where the map stops increasing.
    """
    ell, gamma = sp.symbols("ell gamma", positive=True)
    m = sp.symbols("m")
    silverstein = -1 / m + gamma / (1 + m)
    position = sp.factor(silverstein.subs(m, -1 / ell))
    slope = sp.factor(sp.diff(position, ell))
    threshold = next(s for s in sp.solve(slope, ell) if sp.simplify(s - 1 - sp.sqrt(gamma)) == 0)
    overlap = sp.factor(ell * slope / position)
    points = [(3.0, 0.125), (1.5, 0.05), (10.0, 0.9)]
    return Derivation(
        (
            step("position of the detached eigenvalue", position),
            step("threshold, where its slope vanishes", threshold),
            step("squared overlap ℓ x'(ℓ)/x(ℓ)", overlap),
        ),
        (
            agree("position", position, (ell, gamma), matrices.spike_position, points),
            agree("threshold", threshold, (gamma,), matrices.covariance_threshold, [(0.125,), (0.5,)]),
            agree("overlap", overlap, (ell, gamma), matrices.spike_overlap, points),
        ),
    )


def mean_gradient() -> Derivation:
    """Derive the energy of a common mean gradient.

    Dyson equations z = 1/G₁ + P G₂ = 1/G₂ + M G₁ of unit noise, with the outlier where θ G₁ G₂ = 1.
    """
    theta, rows, columns = sp.symbols("theta M P", positive=True)
    z2 = sp.symbols("x", positive=True)
    # Multiplying each Dyson equation by its G and using G₁G₂ = 1/θ gives zG₁ = 1 + P/θ and zG₂ = 1 + M/θ.
    energy = sp.solve(sp.Eq(z2 / theta, (1 + columns / theta) * (1 + rows / theta)), z2)[0]
    best = next(s for s in sp.solve(sp.diff(energy, theta), theta) if s.is_positive)
    points = [(700.0, 64, 300), (90.0, 16, 40)]
    return Derivation(
        (step("energy of the outlier", sp.factor(energy)), step("threshold, where it meets the edge", best)),
        (
            agree("σ₁²", energy, (theta, rows, columns), matrices.mean_gradient_energy, points),
            agree("threshold", best, (rows, columns), matrices.mean_gradient_threshold, [(64, 300)]),
        ),
    )
