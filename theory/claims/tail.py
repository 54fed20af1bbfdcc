"""Claim T6: flatter spectra, loss curves and tokens to a target."""

from __future__ import annotations

from math import lgamma

import numpy as np
from hypothesis import strategies as st

from theory.claim import Assumption, Claim, Domain, Effort, Mutant
from theory.claims.draws import SEEDS, generator, log_uniform, reals, record
from theory.compare import at_most
from theory.derivations import dynamics as derivations
from theory.formulas import dynamics
from theory.roots import bracketed_root
from theory.simulate.flows import hitting_times, runge_kutta
from theory.values import Array, Case, Measurement, Sampling, Tolerance

# --- T6.order ---------------------------------------------------------------------------------------------


def _problem(case: Case) -> tuple[Array, Array, Array]:
    """Loss weights c_j, slower rates λ_j and rates λ'_j ≥ λ_j, (n,) each."""
    rng, n = generator(case), case["modes"]
    j = np.arange(1, n + 1.0)
    weights = {
        "first": np.where(j == 1, 1.0, 0.0),
        "flat": np.ones(n),
        "random": log_uniform(rng, 0.01, 1.0, n),
    }[case["weights"]]
    if case["kind"] == "power":
        return weights, j ** -case["steep"], j ** -(case["steep"] * (1 - case["boost"]))
    slow = np.sort(log_uniform(rng, 0.05, 1.0, n))[::-1]
    return weights, slow, slow * (1 + 3 * case["boost"] * rng.random(n))


def _closed_time(weights: Array, rates: Array, share: float) -> float:
    target = share * float(dynamics.loss(weights, rates, [0.0])[0])
    latest = np.log(1 / share) / (2 * rates[weights > 0].min())
    return bracketed_root(
        lambda t: float(dynamics.loss(weights, rates, [t])[0]) - target, 0.0, latest * 1.001
    )


def _simulated_time(weights: Array, rates: Array, share: float) -> float:
    """Time at which ½Σe_j² reaches ``share`` of its start, by integrating ė = −λ'e."""
    latest = np.log(1 / share) / (2 * rates[weights > 0].min()) * 1.02
    times = np.linspace(0, latest, 1000)
    residual = runge_kutta(lambda e: -rates * e, np.sqrt(weights), times, substeps=1)
    curve = 0.5 * (residual**2).sum(1, keepdims=True)
    # hitting_times looks for a rise; the drop of the loss rises.
    return float(hitting_times(times, curve[0] - curve, (1 - share) * curve[0])[0])


def _base_time(case: Case) -> Array:
    weights, slow, _ = _problem(case)
    return np.array([_closed_time(weights, slow, case["share"])])


def _faster_time(case: Case, _: Sampling) -> Measurement:
    weights, _slow, fast = _problem(case)
    return Measurement.exact([_simulated_time(weights, fast, case["share"])])


def _normalised_time(case: Case, _: Sampling) -> Measurement:
    weights, slow, fast = _problem(case)
    return Measurement.exact([_simulated_time(weights, fast * slow.sum() / fast.sum(), case["share"])])


ORDER = Claim(
    id="T6.order",
    title="Larger rates, fewer tokens",
    statement="L(t) = ½Σ c_j e^{−2λ_j t}, c_j ≥ 0. With the same c_j and λ'_j ≥ λ_j for all j, L' ≤ L at all t ≥ 0, so "
    "a target is reached no later. This contains λ' = j^{−a'} against j^{−a}, a' < a, with λ_1 pinned.",
    meaning="In a linear model, if every direction is learned at least as fast and the errors to remove are "
    "the same, the loss is never higher and no more tokens are needed. Nothing follows where some "
    "directions are faster and others slower.",
    latex=r"$\lambda'_j\geq\lambda_j\ \forall j\ \Rightarrow\ L'(t)\leq L(t)\ \ \forall t$",
    source="monotonicity of the exponential",
    quantity="time to reach a given share of the initial loss",
    domain=Domain(
        record(
            modes=st.integers(2, 40),
            kind=st.sampled_from(["power", "random"]),
            weights=st.sampled_from(["first", "flat", "random"]),
            steep=reals(0.5, 2.0),
            boost=st.sampled_from([0.0, 0.1, 0.5, 0.9]),
            share=reals(0.05, 0.7),
            seed=SEEDS,
        )
    ),
    predicted=_base_time,
    measured=_faster_time,
    tolerance=Tolerance(
        "linear interpolation of the loss on a grid of 1,000 times, whose error was at most 7e-5 in 4,000 cases",
        relative=2e-4,
    ),
    mutants=(
        Mutant("the same after trace normalisation (false: weights on j = 1)", measured=_normalised_time),
        Mutant(
            "the order reversed",
            predicted=lambda x: _faster_time(x, None).value,  # type: ignore[arg-type]
            measured=lambda x, _: Measurement.exact(_base_time(x)),
        ),
    ),
    compare=at_most(lambda x: x["boost"] == 0 or (x["kind"] == "power" and x["weights"] == "first")),
    quick=Effort(40),
    full=Effort(300),
)

# --- T6.law -----------------------------------------------------------------------------------------------


def _law(case: Case, shift: float = 0.0) -> Array:
    return np.array([dynamics.power_law_loss(case["a"], case["b"] + shift, case["t"])])


def _direct_sum(terms: int, tail: bool):
    """½Σ_j j^{−b} e^{−2t j^{−a}}: ``terms`` of them, then (``tail``) the rest by Euler–Maclaurin."""

    def measured(case: Case, _: Sampling) -> Measurement:
        a, b, t = case["a"], case["b"], case["t"]
        j = np.arange(1, terms + 1.0)
        total = float((j**-b * np.exp(-2 * t * j**-a)).sum())
        if tail:
            n = float(terms)
            k = np.arange(120)
            z = 2 * t * n**-a
            size = np.exp(k * np.log(z) - np.array([lgamma(i + 1) for i in k]))
            rest = float(((-1.0) ** k * size * n ** (1 - b) / (b + a * k - 1)).sum())
            last = n**-b * np.exp(-z)
            total += rest - last / 2 - last * (a * z - b) / n / 12
        return Measurement.exact([total / 2])

    return measured


LAW = Claim(
    id="T6.law",
    title="Power-law loss",
    statement="λ_j = j^{−a}, c_j = j^{−b}, b > 1, 1 ≪ t ≪ d^a: L ≃ (1/2a) Γ((b−1)/a) (2t)^{−(b−1)/a}.",
    meaning="When learning speeds and errors both fall as powers of the rank, the loss falls as a power of "
    "training time, with an exponent set by both. This holds after the first steps and before the "
    "slowest modes are reached.",
    latex=r"$L(t)\simeq\frac{1}{2a}\,\Gamma\left(\frac{b-1}{a}\right)(2t)^{-(b-1)/a}$",
    source="substitution u = 2t j^{−a} in the integral over modes",
    quantity="loss, against the sum over modes",
    domain=Domain(
        record(a=reals(0.4, 1.6), b=reals(1.1, 4.0), t=reals(1.0, 600.0)),
        (Assumption("1 ≪ t: t ≥ 60", lambda x: x["t"] >= 60),),
    ),
    predicted=_law,
    measured=_direct_sum(200_000, tail=True),
    tolerance=Tolerance(
        "sum against integral: the integrand is flat to all orders at 0, so the difference falls faster than any power "
        "of t",
        relative=1e-6,
    ),
    mutants=(
        Mutant("b in place of b − 1 in the exponent", predicted=lambda x: _law(x, 1.0)),
        Mutant("t in place of 2t", predicted=lambda x: _law({**x, "t": x["t"] / 2})),
        Mutant("t ≪ d^a dropped: 30 modes only", measured=_direct_sum(30, tail=False)),
    ),
    derivation=derivations.power_law_loss,
    quick=Effort(40),
    full=Effort(400),
    remark="d is infinite here (200,000 modes summed, the rest by Euler–Maclaurin). At finite d the relative error is "
    "about (2t/d^a)^{(b−1)/a}, far above 1e-6 for widths of a few hundred.",
)

# --- T6.normalised ----------------------------------------------------------------------------------------


def _time_ratio(case: Case) -> Array:
    steep, flat = case["flat"] + case["gap"], case["flat"]
    d = case["d"]
    return np.array([dynamics.normalised_head_rate(flat, d) / dynamics.normalised_head_rate(steep, d)])


def _simulated_ratio(case: Case, _: Sampling) -> Measurement:
    j = np.arange(1, case["d"] + 1.0)
    weights = np.where(j == 1, 1.0, 0.0)
    times = []
    for a in (case["flat"] + case["gap"], case["flat"]):
        rates = j**-a
        times.append(_simulated_time(weights, rates / rates.sum(), 0.3))
    return Measurement.exact([times[0] / times[1]])


NORMALISED = Claim(
    id="T6.normalised",
    title="After trace normalisation, steeper can be faster",
    statement="With rates normalised to trace 1 and the loss on the first mode alone, the steeper spectrum reaches any "
    "target sooner, by the factor of the first normalised rates: T6.order does not survive normalisation.",
    meaning="Among spectra scaled to the same total, the steeper one can learn faster, for example when all "
    "the error lies in the first direction. The slope of a normalised spectrum alone does not tell "
    "which model learns faster.",
    latex=r"$\frac{t_{\mathrm{steep}}}{t_{\mathrm{flat}}}=\frac{\sum_j j^{-a_{\mathrm{steep}}}}"
    r"{\sum_j j^{-a_{\mathrm{flat}}}}<1$",
    source="counterexample to the normalised form of T6.order",
    quantity="ratio of times to 30 % of the initial loss, steeper over flatter",
    domain=Domain(record(d=st.integers(2, 200), flat=reals(0.0, 1.5), gap=reals(0.05, 1.5))),
    predicted=_time_ratio,
    measured=_simulated_ratio,
    tolerance=Tolerance(
        "float64; both times are interpolated on one grid, so that its error cancels", relative=1e-9
    ),
    mutants=(Mutant("flatter is faster", predicted=lambda x: 1 / _time_ratio(x)),),
    quick=Effort(15),
    full=Effort(100),
)

CLAIMS = (ORDER, LAW, NORMALISED)
