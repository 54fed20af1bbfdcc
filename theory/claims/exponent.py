"""Claim T7: the calculus of rank-window exponents."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from theory.claim import Assumption, Claim, Domain, Effort, Mutant
from theory.claims.draws import SEEDS, generator, log_uniform, reals, record
from theory.compare import equal_and_positive
from theory.derivations import dynamics as derivations
from theory.formulas import dynamics
from theory.values import Array, Case, Measurement, Sampling, Tolerance

ROUNDING = Tolerance(
    "float64 rounding of a least-squares fit on up to 80 points", absolute=1e-9, relative=1e-9
)
_WINDOW = record(
    low=st.integers(1, 60),
    length=st.integers(2, 80),
    scale=reals(1e-3, 1e3),
    bumps=st.integers(0, 5),
    seed=SEEDS,
)


def _spectrum(case: Case) -> Array:
    """Descending energies down to the end of the window, irregular."""
    steps = generator(case).exponential(0.05, case["low"] + case["length"])
    return np.exp(-np.cumsum(steps))


def _fit(energies: Array, case: Case) -> float:
    """α by numpy's polynomial fit on the window."""
    low, high = case["low"], case["low"] + case["length"] - 1
    ranks = np.arange(low, high + 1)
    return float(-np.polyfit(np.log(ranks), np.log(energies[low - 1 : high]), 1)[0])


def _alpha(case: Case) -> Array:
    return np.array([dynamics.exponent(_spectrum(case), case["low"], case["low"] + case["length"] - 1)])


SCALE = Claim(
    id="T7.scale",
    title="Exponents ignore scale",
    statement="The rank-window exponent α(I) is unchanged by λ → κλ, κ > 0.",
    meaning="Multiplying a whole spectrum by a constant does not change the exponent fitted to it. Exponents "
    "of layers or checkpoints can be compared in the same window of ranks without scaling them first; "
    "adding a constant does change them.",
    latex=r"$\alpha_I(\kappa\lambda)=\alpha_I(\lambda)$",
    source="least squares in log–log coordinates",
    quantity="α(I) after scaling",
    domain=Domain(_WINDOW),
    predicted=_alpha,
    measured=lambda x, _: Measurement.exact([_fit(x["scale"] * _spectrum(x), x)]),
    tolerance=ROUNDING,
    mutants=(
        Mutant(
            "unchanged by a shift λ → λ + κ",
            measured=lambda x, _: Measurement.exact([_fit(x["scale"] + _spectrum(x), x)]),
        ),
        Mutant(
            "the same on singular values",
            measured=lambda x, _: Measurement.exact([_fit(np.sqrt(_spectrum(x)), x)]),
        ),
    ),
    derivation=derivations.exponents,
    quick=Effort(50),
    full=Effort(300),
)


def _ratio(case: Case) -> Array:
    """(length,) non-decreasing factor on the window with ``bumps`` jumps; constant when there are none."""
    rng = generator(case, 1)
    jumps = np.zeros(case["length"])
    where = rng.choice(np.arange(1, case["length"]), min(case["bumps"], case["length"] - 1), replace=False)
    jumps[where] = log_uniform(rng, 0.01, 1.0, len(where))
    return case["scale"] * np.exp(np.cumsum(jumps))


def _drop(case: Case) -> Array:
    return np.array([dynamics.exponent_drop(_ratio(case), case["low"])])


def _measured_drop(reverse: bool = False, level: bool = False):
    def measured(case: Case, _: Sampling) -> Measurement:
        lam, ratio = _spectrum(case), _ratio(case)
        changed = lam.copy()
        window = slice(case["low"] - 1, case["low"] - 1 + case["length"])
        changed[window] *= ratio[::-1] if reverse else ratio[0] if level else ratio
        return Measurement.exact([_fit(lam, case) - _fit(changed, case)])

    return measured


DROP = Claim(
    id="T7.flatter",
    title="A ratio that rises with rank lowers α",
    statement="If λ'_j/λ_j is non-decreasing and not constant on the window I, then α'(I) < α(I), by the pairwise sum "
    "Σ_{i<j}(x_j−x_i)(y_j−y_i)/(n Σ(x−x̄)²) with x = ln j, y = ln(λ'/λ).",
    meaning="If eigenvalues in a window of ranks grow by factors that increase with rank, the exponent fitted "
    "there falls. A tail that gains on the head reads as a smaller exponent; a smaller exponent alone "
    "does not say which of the two moved.",
    latex=r"$\alpha-\alpha'=\frac{\sum_{i<j}(x_j-x_i)(y_j-y_i)}{n\sum_i(x_i-\bar x)^2}>0$",
    source="Chebyshev's sum inequality",
    quantity="α(I) − α'(I)",
    domain=Domain(_WINDOW, (Assumption("the ratio is not constant on I", lambda x: x["bumps"] > 0),)),
    predicted=_drop,
    measured=_measured_drop(),
    tolerance=ROUNDING,
    mutants=(
        Mutant("a ratio that falls with rank", measured=_measured_drop(reverse=True)),
        Mutant("a constant ratio", measured=_measured_drop(level=True)),
        Mutant("the sum not divided by the window length", predicted=lambda x: _drop(x) * x["length"]),
    ),
    compare=equal_and_positive,
    derivation=derivations.exponents,
    quick=Effort(50),
    full=Effort(300),
)


def _states(case: Case, stream: int) -> Array:
    rng = generator(case, stream)
    d = case["d"]
    raw = rng.standard_normal((case["n"], d)) * np.arange(1, d + 1) ** -case["power"] + case[
        "mean"
    ] * rng.random(d)
    return raw / np.sqrt((raw**2).mean(1, keepdims=True))


def _zero_sum(case: Case) -> Array:
    d = case["d"]
    first, second = (dynamics.rms_trace(d, _states(case, s).mean(0)) for s in (1, 2))
    return np.array([first, second, second - first])


def _head_and_tail(divisor_loss: int = 0):
    def measured(case: Case, _: Sampling) -> Measurement:
        spectra = [np.linalg.eigvalsh(np.cov(_states(case, s).T, ddof=divisor_loss))[::-1] for s in (1, 2)]
        cut = case["d"] // 3
        head, tail = (spectra[1][:cut] - spectra[0][:cut]).sum(), (spectra[1][cut:] - spectra[0][cut:]).sum()
        return Measurement.exact([spectra[0].sum(), spectra[1].sum(), head + tail])

    return measured


TRACE = Claim(
    id="T7.trace",
    title="RMSNorm makes head and tail a zero-sum game",
    statement="RMS-normalised states have tr Σ = d − ‖h̄‖² (divisor n), so between two checkpoints the changes of head "
    "and tail energy add up to −Δ‖h̄‖²: nearly zero-sum when the mean moves little.",
    meaning="RMSNorm fixes the total energy of the states: what the head of their spectrum gains the tail "
    "loses, apart from changes of the mean state. A stronger tail and a weaker head are then one "
    "finding, not two.",
    latex=r"$\mathrm{tr}\,\Sigma=d-\Vert\bar h\Vert^2,\qquad \Delta_{\mathrm{head}}+\Delta_{\mathrm{tail}}"
    r"=-\Delta\Vert\bar h\Vert^2$",
    source="‖h‖² = d for every normalised state",
    quantity="two traces, and the sum of head and tail changes between them",
    domain=Domain(
        record(
            d=st.integers(4, 24),
            n=st.integers(30, 60),
            power=reals(0.0, 1.5),
            mean=reals(0.2, 2.0),
            seed=SEEDS,
        )
    ),
    predicted=_zero_sum,
    measured=_head_and_tail(),
    tolerance=ROUNDING,
    mutants=(
        Mutant("the mean forgotten: tr Σ = d", predicted=lambda x: np.array([x["d"], x["d"], 0.0])),
        Mutant("divisor n − 1", measured=_head_and_tail(1)),
    ),
    derivation=derivations.exponents,
    quick=Effort(25),
    full=Effort(300),
    remark="Exact only without gain and ε; an RMSNorm with ε replaces d by d·(1 − ε/mean square).",
)

CLAIMS = (SCALE, DROP, TRACE)
