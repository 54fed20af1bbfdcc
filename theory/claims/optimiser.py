"""Claim T9: gradient descent against Muon, mode by mode."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from theory.claim import Assumption, Claim, Domain, Effort, Mutant
from theory.claims.draws import SEEDS, generator, log_uniform, reals, record
from theory.derivations import optimiser as derivations
from theory.formulas import optimiser
from theory.simulate.flows import (
    MatrixProblem,
    hitting_times,
    matrix_descent,
    matrix_muon,
    newton_schulz_matrix,
)
from theory.values import Array, Case, Measurement, Sampling, Tolerance

MUON_STEPS = 400
_MODES = record(
    modes=st.integers(2, 6),
    extra=st.integers(0, 6),
    time=reals(0.1, 3.0),
    spread=reals(1.5, 20.0),
    seed=SEEDS,
)


def problem(case: Case) -> MatrixProblem:
    """Draw a matrix problem with spread curvatures and signed targets.

    Targets lie between 0.3 and 2 in size.
    """
    rng, k = generator(case), case["modes"]
    rate = log_uniform(rng, 1.0 / case["spread"], 1.0, k)
    target = rng.choice([-1.0, 1.0], k) * log_uniform(rng, 0.3, 2.0, k)
    return MatrixProblem.draw(rng, k + case["extra"], k + case["extra"] // 2, target, rate)


def _amplitudes(case: Case) -> Array:
    p = problem(case)
    t = case["time"]
    return np.concatenate(
        [optimiser.descent_amplitude(p.target, p.rate, t), optimiser.muon_amplitude(p.target, t)]
    )


def _flows(case: Case, _: Sampling) -> Measurement:
    p = problem(case)
    descent = matrix_descent(p, [case["time"]])[0]
    path = matrix_muon(p, case["time"], MUON_STEPS)[1]
    # A finished mode chatters within one step of its target: that is the error of the discretisation.
    return Measurement(
        np.concatenate([descent, path[-1]]), np.repeat([0.0, case["time"] / MUON_STEPS], len(p.target))
    )


def _unsigned(case: Case) -> Array:
    p = problem(case)
    return np.concatenate(
        [
            optimiser.descent_amplitude(p.target, p.rate, case["time"]),
            np.minimum(np.abs(p.target), case["time"]),
        ]
    )


def _curved(case: Case) -> Array:
    p = problem(case)
    return np.concatenate(
        [
            optimiser.descent_amplitude(p.target, p.rate, case["time"]),
            np.sign(p.target) * np.minimum(np.abs(p.target), p.rate * case["time"]),
        ]
    )


FLOW = Claim(
    id="T9",
    title="Amplitudes under gradient descent and under Muon",
    statement="Gradient −Σ κ_r(a*_r−a_r)u_r v_rᵀ with fixed u, v, exact polar factor, from 0: gradient descent gives "
    "a*_r(1−e^{−κ_r t}), Muon sign(a*_r)·min(|a*_r|, t).",
    meaning="Gradient descent brings each mode to its target at a pace set by its curvature; ideal Muon moves "
    "all modes at one speed until each arrives. Under Muon the order of arrival shows the sizes of "
    "the targets, not the curvatures.",
    latex=r"$a_r^{\mathrm{GD}}=a_r^*(1-e^{-\kappa_rt}),\qquad a_r^{\mathrm{Muon}}"
    r"=\mathrm{sign}(a_r^*)\,\min(|a_r^*|,t)$",
    source="the polar factor of Σ g_r u_r v_rᵀ is Σ sign(g_r) u_r v_rᵀ",
    quantity="amplitudes u_rᵀWv_r, first gradient descent, then Muon",
    domain=Domain(_MODES),
    predicted=_amplitudes,
    measured=_flows,
    tolerance=Tolerance(
        "fourth-order Runge–Kutta for descent; one and a half steps of chatter for Muon",
        absolute=1e-7,
        relative=1e-7,
        sigmas=1.5,
    ),
    mutants=(
        Mutant("Muon without the sign of the target", predicted=_unsigned),
        Mutant("Muon at speed κ_r", predicted=_curved),
    ),
    derivation=derivations.amplitudes,
    quick=Effort(15),
    full=Effort(200),
)


def _spreads(case: Case) -> Array:
    p = problem(case)
    return np.array([optimiser.descent_spread(p.rate), optimiser.muon_spread(p.target)])


def _measured_spreads(case: Case, _: Sampling) -> Measurement:
    p, share = problem(case), 0.6
    times = np.linspace(0, 1.05 * np.log(1 / (1 - share)) / p.rate.min(), 500)
    descent = hitting_times(times, matrix_descent(p, times, substeps=1), share * p.target)
    horizon = 1.05 * share * np.abs(p.target).max()
    muon = hitting_times(*matrix_muon(p, horizon, MUON_STEPS), share * p.target)
    return Measurement.exact([descent.max() / descent.min(), muon.max() / muon.min()])


SPREAD = Claim(
    id="T9.spread",
    title="Spread of mode hitting times",
    statement="The latest over the earliest time at which a mode covers a given share of its target is κ_max/κ_min "
    "under gradient descent and |a*|_max/|a*|_min under Muon: Muon forgets curvature.",
    meaning="How far apart in time modes are learned depends on the range of curvatures under gradient "
    "descent and on the range of target sizes under Muon. Muon brings them closer together only where "
    "targets vary less than curvatures.",
    latex=r"$\frac{t_{\max}}{t_{\min}}=\frac{\kappa_{\max}}{\kappa_{\min}}\ \mathrm{(GD)},\qquad "
    r"\frac{|a^*|_{\max}}{|a^*|_{\min}}\ \mathrm{(Muon)}$",
    source="T9",
    quantity="ratio of times to 60 % of the target: gradient descent, Muon",
    domain=Domain(_MODES),
    predicted=_spreads,
    measured=_measured_spreads,
    tolerance=Tolerance("interpolation of hitting times on 400–500 grid points", relative=5e-3),
    mutants=(
        Mutant("the two optimisers exchanged", predicted=lambda x: _spreads(x)[::-1]),
        Mutant("Muon equalises everything: spread 1", predicted=lambda x: np.array([_spreads(x)[0], 1.0])),
    ),
    derivation=derivations.amplitudes,
    quick=Effort(8),
    full=Effort(100),
)


def _gain_and_band(_: Case) -> Array:
    return np.array([optimiser.newton_schulz_slope(), *optimiser.BAND])


def _image(case: Case, sampling: Sampling, start: float | None = None) -> Measurement:
    """Gain of a tiny singular value of a matrix, and extremes of the iterated polynomial on a random grid."""
    low = optimiser.BAND_FROM if start is None else start
    x = np.concatenate([[low, 1.0], sampling.rng.uniform(low, 1.0, sampling.draws)])
    y = optimiser.newton_schulz(x)
    return Measurement.exact([_tiny_gain(case), y.min(), y.max()])


def _tiny_gain(case: Case) -> float:
    """Return the gain of a singular value of 1e-6 next to one of nearly 1, in a rotated matrix."""
    rng, d = generator(case), case["d"]
    u, v = (np.linalg.qr(rng.standard_normal((d, 2)))[0] for _ in range(2))
    tiny = 1e-6
    out = newton_schulz_matrix(np.outer(u[:, 0], v[:, 0]) + tiny * np.outer(u[:, 1], v[:, 1]))
    return float(u[:, 1] @ out @ v[:, 1] / tiny)


NEWTON_SCHULZ = Claim(
    id="T9.newton",
    title="What Newton–Schulz equalises",
    statement="Five steps with (3.4445, −4.7750, 2.0315): the slope at 0 is 3.4445⁵ = 484.88, and singular values "
    "≥ .005 after Frobenius normalisation land in [.682, 1.154].",
    meaning="Muon’s five iterations bring every gradient direction above half a percent of the gradient’s "
    "norm to nearly one size. Directions below about a tenth of a percent stay smaller, so that not "
    "everything is made equal.",
    latex=r"$p^{(5)\prime}(0)=3.4445^5=484.88,\qquad p^{(5)}([.005,1])=[.682,\,1.154]$",
    source="Muon's quintic coefficients; interval image by dense sampling",
    quantity="gain at 1e-6, smallest and largest image of [.005, 1]",
    domain=Domain(record(d=st.integers(2, 12), seed=SEEDS)),
    predicted=_gain_and_band,
    measured=_image,
    tolerance=Tolerance(
        "band edges are quoted to three digits; the third-order term moves the gain of 1e-6 by 1.5e-5",
        absolute=(1e-4, 5e-4, 5e-4),
    ),
    mutants=(
        Mutant("four iterations", predicted=lambda x: np.array([3.4445**4, *optimiser.BAND])),
        Mutant(
            "the band from .001 on (below about .001 nothing is equalised)",
            measured=lambda x, s: _image(x, s, 0.001),
        ),
    ),
    derivation=derivations.newton_schulz,
    quick=Effort(10, 200_000),
    full=Effort(50, 2_000_000),
    remark="The upper edge is attained at .005 itself; between .0033 and .005 images lie above it, up to 1.20. Images "
    "below .0015 lie under the band, and .001 maps to .47.",
)


def _first_arrival(p: MatrixProblem) -> float:
    return 0.6 * float(np.abs(p.target).min())


def _all_in_band(case: Case) -> bool:
    """Every normalised singular value of the gradient stays ≥ .005 up to the time of the check."""
    p = problem(case)
    # Bound: residuals lie between |a*| − 1.2 t and |a*| + 0, so the smallest share is at least this.
    t = _first_arrival(p)
    low = p.rate * (np.abs(p.target) - 1.21 * t)
    return bool(low.min() / np.linalg.norm(p.rate * p.target) >= optimiser.BAND_FROM)


def _speeds(case: Case) -> Array:
    return np.sign(problem(case).target) * sum(optimiser.BAND) / 2


def _measured_speeds(case: Case, _: Sampling) -> Measurement:
    p = problem(case)
    t = _first_arrival(p)
    path = matrix_muon(p, t, 120, newton_schulz_matrix)[1]
    return Measurement.exact(path[-1] / t)


ITERATED = Claim(
    id="T9.iterated",
    title="Muon with Newton–Schulz: every mode at nearly one speed",
    statement="With the iteration in place of the exact polar factor, every mode whose normalised gradient singular "
    "value stays ≥ .005 moves at a speed between .682 and 1.154, whatever its curvature.",
    meaning="With Muon’s real iteration in place of the ideal one, modes move at speeds within a factor of "
    "two of each other, whatever their curvature, as long as no direction of the gradient becomes "
    "tiny. Up to there the ideal account is a fair guide.",
    latex=r"$.682\leq \left|\frac{da_r}{dt}\right|\leq 1.154$",
    source="T9.newton",
    quantity="mean signed speed of each mode before the first arrives; the claim is the band around its middle .918",
    domain=Domain(_MODES, (Assumption("normalised singular values stay ≥ .005", _all_in_band),)),
    predicted=_speeds,
    measured=_measured_speeds,
    tolerance=Tolerance("half the width of the band, and its rounding", absolute=0.237),
    mutants=(
        Mutant(
            "speeds in proportion to curvature",
            predicted=lambda x: _speeds(x) * problem(x).rate / problem(x).rate.max(),
        ),
    ),
    derivation=derivations.newton_schulz,
    quick=Effort(15),
    full=Effort(150),
)

CLAIMS = (FLOW, SPREAD, NEWTON_SCHULZ, ITERATED)
