"""Claim T5: H_S along gradient flow."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from theory.claim import Assumption, Claim, Domain, Effort, Mutant
from theory.claims.draws import SEEDS, generator, log_uniform, reals, record
from theory.derivations import dynamics as derivations
from theory.formulas import dynamics
from theory.simulate.flows import mode_flow
from theory.values import Array, Case, Measurement, Sampling, Tolerance

Members = NDArray[np.bool_]

_FLOW = record(
    inside=st.integers(1, 5),
    outside=st.integers(1, 5),
    background=reals(0.0, 0.5),
    time=reals(0.05, 4.0),
    seed=SEEDS,
)


def modes(case: Case) -> tuple[Array, Array, Members]:
    """Draw targets a*, rates κ and membership of S.

    (k,) each; rates within a factor of 10.
    """
    k, rng = case["inside"] + case["outside"], generator(case)
    return log_uniform(rng, 0.3, 3.0, k), log_uniform(rng, 0.3, 3.0, k), np.arange(k) < case["inside"]


def ordered_modes(case: Case) -> tuple[Array, Array, Members]:
    """Draw modes with every in-band rate at least twice the others."""
    target, rate, inside = modes(case)
    rate = np.where(inside, 2.0 + rate / 3, 0.4 + rate / 5)
    return target, rate, inside


# A rise is looked for at this time: later the fast modes of a band that is hardly favoured have lost their lead.
FIRST = 0.01
FAVOURED = 1.05


def _share_path(path: Array, inside: Members, background: float) -> Array:
    mass = background + path**2
    return mass[:, inside].sum(1) / mass.sum(1)


def _replicator(case: Case, power: int = 1) -> Array:
    target, rate, inside = modes(case)
    a = dynamics.amplitude(target, rate, case["time"])
    growth = 2 * a * rate * (target - a)
    mass = case["background"] + a**2
    h = dynamics.share(mass, inside)
    return np.array([dynamics.replicator_rate(mass, growth, inside)]) * (h * (1 - h)) ** (power - 1)


def _slope(case: Case, _: Sampling) -> Measurement:
    target, rate, inside = modes(case)
    # Four points and a finely integrated path: near a turning point of H_S its slope is smaller than their errors.
    h = 2e-4 * case["time"]
    path = mode_flow(target, rate, [case["time"] + k * h for k in (-2, -1, 1, 2)], substeps=256)
    far_before, before, after, far_after = _share_path(path, inside, case["background"])
    return Measurement.exact([(8 * (after - before) - (far_after - far_before)) / (12 * h)])


REPLICATOR = Claim(
    id="T5",
    title="Replicator identity for H_S",
    statement="For positive smooth masses, dH_S/dt = H_S(1−H_S)·d/dt log(M_S/M_{S^c}): H_S rises exactly while the "
    "in-band mass grows at the larger relative rate.",
    meaning="H_S rises exactly while the energy on the task’s frequencies grows at the larger relative rate. "
    "A falling H_S does not mean that this energy shrinks: the rest may simply be growing faster.",
    latex=r"$\frac{dH_S}{dt}=H_S(1-H_S)\,\frac{d}{dt}\log\frac{M_S}{M_{S^c}}$",
    source="chain rule; replicator equation of evolutionary dynamics",
    quantity="dH_S/dt along mode-wise gradient flow",
    domain=Domain(_FLOW),
    predicted=_replicator,
    measured=_slope,
    tolerance=Tolerance(
        "fourth-order central difference over steps of 2e-4 of the time: rounding of order 1e-12", 1e-9, 1e-5
    ),
    mutants=(
        Mutant("without the factor H_S(1−H_S)", predicted=lambda x: _replicator(x, 0)),
        Mutant("with the factor squared", predicted=lambda x: _replicator(x, 2)),
    ),
    derivation=derivations.replicator,
    quick=Effort(30),
    full=Effort(500),
)


def _limits(case: Case) -> Array:
    target, rate, inside = modes(case)
    return np.array([dynamics.early_share(target, rate, inside), dynamics.late_share(target, inside)])


def _ends(case: Case, _: Sampling) -> Measurement:
    target, rate, inside = modes(case)
    path = mode_flow(target, rate, [1e-4 / rate.max(), 14 / rate.min()], substeps=400)
    return Measurement.exact(_share_path(path, inside, 0.0))


def _limits_without_rates(case: Case) -> Array:
    target, _, inside = modes(case)
    return np.array([dynamics.late_share(target, inside)] * 2)


LIMITS = Claim(
    id="T5.limits",
    title="Where H_S starts and ends",
    statement="With a_r = a*_r(1−e^{−κ_r t}) and m = a²: H_S(0⁺) = Σ_S κ²a*²/Σ κ²a*² and H_S(∞) = Σ_S a*²/Σ a*².",
    meaning="Early in training H_S depends on how fast the modes learn and how large they become, at the end "
    "only on how large they are. An early value can lie above or below the final one and does not "
    "foretell it.",
    latex=r"$H_S(0^+)=\frac{\sum_S\kappa_r^2a_r^{*2}}{\sum\kappa_r^2a_r^{*2}},\qquad "
    r"H_S(\infty)=\frac{\sum_S a_r^{*2}}{\sum a_r^{*2}}$",
    source="Taylor expansion of the flow at 0 and at ∞",
    quantity="H_S just after the start and after 14/κ_min",
    domain=Domain(_FLOW),
    predicted=_limits,
    measured=_ends,
    tolerance=Tolerance("first-order remainder at t = 1e-4/κ_max and e^{−14} at the end", absolute=2e-4),
    mutants=(
        Mutant("rates not squared at the start", predicted=lambda x: _unsquared(x)),
        Mutant("H_S constant in time", predicted=_limits_without_rates),
    ),
    derivation=derivations.replicator,
    quick=Effort(20),
    full=Effort(300),
)


def _unsquared(case: Case) -> Array:
    target, rate, inside = modes(case)
    return np.array([dynamics.share(rate * target**2, inside), dynamics.late_share(target, inside)])


def _shape(case: Case) -> Array:
    """Signs (always falling without background; first rise and last fall with one) and the initial curvature."""
    target, rate, inside = ordered_modes(case)
    return np.array([-1.0, 1.0, -1.0, dynamics.initial_curvature(target, rate, inside, case["background"])])


def _measured_shape(make=ordered_modes, background: float | None = None):
    def measured(case: Case, _: Sampling) -> Measurement:
        target, rate, inside = make(case)
        b = case["background"] if background is None else background
        tiny = 1e-4 * np.sqrt(case["background"]) / (rate * target).max()
        times = np.concatenate([[0.0, tiny / 2, tiny], np.linspace(FIRST, 8 / rate[~inside].min(), 80)])
        path = mode_flow(target, rate, times, substeps=8)
        bare = _share_path(path[1:], inside, 0.0)
        lifted = _share_path(path, inside, b) if b else np.concatenate([bare[:1], bare])
        signs = np.sign([np.diff(bare).max(), lifted[3] - lifted[0], lifted[-1] - lifted.max()])
        half, whole = ((lifted[i] - lifted[0]) / times[i] ** 2 for i in (1, 2))
        # Where the band is hardly favoured the curvature nearly cancels; a term linear in t does not, and is removed.
        return Measurement.exact([*signs, 2 * half - whole])

    return measured


def _favoured(case: Case) -> bool:
    target, rate, inside = ordered_modes(case)
    push = (target * rate) ** 2
    return bool(push[inside].mean() > FAVOURED * push[~inside].mean())


def _swapped(case: Case) -> tuple[Array, Array, Members]:
    """In-band modes slow, the others fast."""
    target, rate, inside = modes(case)
    return target, np.where(inside, 0.4 + rate / 5, 2.0 + rate / 3), inside


SHAPE = Claim(
    id="T5.shape",
    title="Overshoot and decline; a rise needs a background",
    statement="If every in-band mode is faster than every other, H_S falls at all times when there is no background; "
    "with masses b + a_r², b > 0, and a larger mean κ²a*² in the band it first rises and ends below its peak.",
    meaning="If the task’s modes are learned before all others, H_S only falls, unless energy present from "
    "the start hides the early part: then it rises first and falls again. A decline after a peak need "
    "not mean that anything was forgotten.",
    latex=r"$m_r=b+a_r^2:\ H_S(t)-H_S(0)\simeq \frac{t^2}{kb}\left(\sum_S\kappa^2a^{*2}"
    r"-\frac{|S|}{k}\sum\kappa^2a^{*2}\right)$",
    source="2κ/(e^{κt}−1) is decreasing in κ; Taylor expansion at 0",
    quantity="sign of the largest step without background; of the first and last step with one; initial curvature",
    domain=Domain(
        _FLOW,
        (
            Assumption("there is a background", lambda x: x["background"] >= 0.01),
            Assumption("mean κ²a*² is larger in the band", _favoured),
        ),
    ),
    predicted=_shape,
    measured=_measured_shape(),
    tolerance=Tolerance(
        "signs exactly; the curvature is extrapolated from t/2 and t, where a_r² is 1e-8·b at most", 0.0, 1e-4
    ),
    mutants=(
        Mutant("an initial rise without background", measured=_measured_shape(background=0.0)),
        Mutant("slow in-band modes overshoot too", measured=_measured_shape(_swapped)),
    ),
    derivation=derivations.replicator,
    quick=Effort(25),
    full=Effort(300),
)

CLAIMS = (REPLICATOR, LIMITS, SHAPE)
