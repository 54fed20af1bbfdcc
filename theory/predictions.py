"""What each claim says about a trained model, as quantities that measurements can be held against.

A prediction takes what theory needs to know about a run (sizes, spectra, curvatures) and returns an `Expected`;
`judge` compares it with a measured interval. This module measures nothing and knows no run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import stats

from theory.formulas import dynamics, fourier, lms, matrices, optimiser, tying

Relation = Literal["within", "at most", "at least"]
Outcome = Literal["holds", "fails", "not testable"]


class NotTestable(ValueError):
    """The assumptions of a claim are not met by the run it is asked about; the message says which."""


@dataclass(frozen=True)
class Expected:
    """A predicted value; for ``within``, ``low`` and ``high`` bound what the theory accepts."""

    value: float
    low: float
    high: float

    @classmethod
    def exactly(cls, value: float, slack: float = 0.0) -> Expected:
        """``value`` ± ``slack``."""
        return cls(value, value - slack, value + slack)


@dataclass(frozen=True)
class Judgement:
    """Outcome, effect (measured minus predicted) and the reason in words."""

    outcome: Outcome
    effect: float
    reason: str


@dataclass(frozen=True)
class Prediction:
    """One question that a claim lets us ask of a trained model.

    Attributes:
        name: permanent name of the question.
        claim: id of the claim it rests on.
        question: what is asked, in words.
        measured: the quantity to measure, with its unit or normalisation.
        relation: how the measured quantity must stand to the predicted one.
        expected: keyword inputs → `Expected`; raises `NotTestable` where an assumption is not met.
        beyond: whether the paper does not test this (stated here before it is measured).
    """

    name: str
    claim: str
    question: str
    measured: str
    relation: Relation
    expected: Callable[..., Expected]
    beyond: bool = False


def judge(prediction: Prediction, expected: Expected, low: float, value: float, high: float) -> Judgement:
    """Hold a measured interval [low, high] around ``value`` against a prediction.

    ``fails``: the whole interval lies outside what is accepted. ``holds``: the whole interval lies inside.
    ``not testable``: it straddles the limit, or is not finite, so these runs cannot decide.
    """
    effect = value - expected.value
    if not np.isfinite([low, value, high]).all() or not low <= value <= high:
        return Judgement(
            "not testable", effect, f"no finite interval around the value: [{low}, {high}] ∋ {value}"
        )
    floor = -np.inf if prediction.relation == "at most" else expected.low
    ceiling = np.inf if prediction.relation == "at least" else expected.high
    accepted = f"[{floor:.4g}, {ceiling:.4g}]"
    if high < floor or low > ceiling:
        return Judgement("fails", effect, f"[{low:.4g}, {high:.4g}] lies outside {accepted}")
    if low >= floor and high <= ceiling:
        return Judgement("holds", effect, f"[{low:.4g}, {high:.4g}] lies inside {accepted}")
    return Judgement("not testable", effect, f"[{low:.4g}, {high:.4g}] straddles a limit of {accepted}")


def null_h_s(c: int, d: float, folded: int, level: float = 0.95) -> Expected:
    """Mean and central ``level`` interval of H_S for rows without structure; d may be an effective dimension."""
    law = stats.beta(*fourier.null_beta(c, d, folded))
    return Expected(float(law.mean()), *(float(x) for x in law.interval(level)))


def null_h_peak(c: int, d: float, seed: int, draws: int = 20_000, level: float = 0.95) -> Expected:
    """Mean and interval of H_peak (one member of the largest pair) for rows without structure, c odd.

    Monte Carlo over Dirichlet(d,…,d): .0126 at c = 97 and .0069 at c = 179 for d = 128.
    """
    masses = np.random.default_rng(seed).gamma(d, size=(draws, (c - 1) // 2))
    peak = (masses / masses.sum(1, keepdims=True)).max(1) / 2
    low, high = np.quantile(peak, [(1 - level) / 2, (1 + level) / 2])
    return Expected(float(peak.mean()), float(low), float(high))


def head_bound(h_s: float, trace_between: float, trace_total: float) -> Expected:
    """Lower bound on the share of the first |S| eigenvalues of the total covariance."""
    return Expected.exactly(fourier.total_head_bound(h_s, trace_between, trace_total))


def rankme_bound(masses: Sequence[float]) -> Expected:
    """Upper bound exp(entropy of m_r, r ≠ 0) on RankMe of the between-state covariance."""
    return Expected.exactly(fourier.exp_entropy(masses))


def overshoot() -> Expected:
    """H_S(end) − max H_S: at most 0, strictly below when fast in-band modes overshoot."""
    return Expected.exactly(0.0)


def token_ratio(rates: Sequence[float], faster: Sequence[float]) -> Expected:
    """D'/D ≤ 1 at equal loss when every rate is at least as large.

    Raises:
        NotTestable: the rates cross, so the claim says nothing.
    """
    a, b = np.asarray(rates, float), np.asarray(faster, float)
    if a.shape != b.shape or (b < a).any():
        raise NotTestable(
            "the second set of rates does not dominate the first at every rank; T6.order is silent"
        )
    return Expected.exactly(1.0)


def exponent_change(energies: Sequence[float], other: Sequence[float], low: int, high: int) -> Expected:
    """α' − α ≤ −drop for spectra whose ratio rises with rank on the window low..high.

    Raises:
        NotTestable: the ratio is not non-decreasing on the window, or constant.
    """
    ratio = (np.asarray(other, float) / np.asarray(energies, float))[low - 1 : high]
    if (np.diff(ratio) < 0).any() or ratio[-1] == ratio[0]:
        raise NotTestable(f"λ'/λ is not rising on ranks {low}..{high}; T7.flatter is silent")
    return Expected.exactly(-dynamics.exponent_drop(ratio, low), 1e-9)


def trace_of_states(d: int, mean: Sequence[float], slack: float = 0.0) -> Expected:
    """tr Σ = d − ‖h̄‖² (divisor n); ``slack`` allows for the ε inside RMSNorm."""
    return Expected.exactly(dynamics.rms_trace(d, mean), slack)


def batch_tail() -> Expected:
    """α(larger batch) − α(smaller batch) at matched loss: at least 0 in the least-squares model."""
    return Expected.exactly(0.0)


def noise_floor(eta: float, kappa: float, variance: float, batch: int) -> Expected:
    """E e² of a mode at its floor."""
    return Expected.exactly(lms.noise_floor(eta, kappa, variance, batch))


def hitting_spread(
    rates: Sequence[float], targets: Sequence[float], rule: Literal["descent", "muon"], slack: float = 0.0
) -> Expected:
    """Latest over earliest time at which a mode covers a given share of its target; ``slack`` is relative."""
    value = optimiser.descent_spread(rates) if rule == "descent" else optimiser.muon_spread(targets)
    return Expected.exactly(value, slack * value)


def relative_spread() -> Expected:
    """Spread of mode hitting times under Muon over that under AdamW: at most 1 where curvatures spread more."""
    return Expected.exactly(1.0)


def initial_loss(head: Literal["tied", "zero"], vocabulary: int, d: int, slack: float = 0.0) -> Expected:
    """Cross-entropy before the first step, nats."""
    value = tying.tied_initial_loss(d) if head == "tied" else tying.zero_head_loss(vocabulary)
    return Expected.exactly(value, slack)


def task_power(c: int, step_known: bool, r_max: int = 7) -> Expected:
    """Share of next-token power in folded frequencies ≤ r_max: with the step unknown (first position) the kernel's,
    with the step known (from the third token on) the flat 2·r_max/(c−1)."""
    if step_known:
        return Expected.exactly(2 * r_max / (c - 1))
    return Expected.exactly(fourier.power_within(fourier.bigram_modulus(c, fourier.smallest_step(c)), r_max))


def fading(c: int) -> Expected:
    """H_task(last position) − H_task(first position) of a trained model: at most 0.

    Raises:
        NotTestable: a composite modulus, where steps are rounded to multiples of divisors.
    """
    if any(c % k == 0 for k in range(2, int(c**0.5) + 1)):
        raise NotTestable(
            f"c={c} is composite: known steps then have structure of their own; probe a prime modulus"
        )
    return Expected.exactly(0.0)


def null_exponent(d: int, n: int, low: int, high: int, slack: float) -> Expected:
    """α(low:high) that white noise reads, from Marchenko–Pastur quantiles."""
    return Expected.exactly(matrices.null_exponent(d, n, low, high), slack)


def detectable(d: int, n: int) -> Expected:
    """Sample eigenvalue, in units of the bulk, above which a direction is more than noise: (1+√γ)²."""
    return Expected.exactly(float(matrices.covariance_threshold(d / n) ** 2))


def mean_gradient(norm_squared: float, samples: int, parameters: int) -> Expected:
    """σ_1² of per-sample gradients in units of the noise variance of one entry.

    Raises:
        NotTestable: the mean gradient is below the noise, where σ_1² is the edge whatever the mean.
    """
    theta = samples * norm_squared
    if theta <= matrices.mean_gradient_threshold(samples, parameters):
        raise NotTestable(f"M‖ḡ‖² = {theta:.3g} is below √(MP); take more samples before asking for σ_1²")
    value = matrices.mean_gradient_energy(theta, samples, parameters)
    return Expected.exactly(value, 0.03 * value)


def _entry(
    name: str,
    claim: str,
    relation: Relation,
    expected: Callable[..., Expected],
    question: str,
    measured: str,
    beyond: bool = False,
) -> Prediction:
    return Prediction(name, claim, question, measured, relation, expected, beyond)


PREDICTIONS: Mapping[str, Prediction] = {
    p.name: p
    for p in (
        _entry("null-h-s", "T3", "within", null_h_s, "Is H_S at step 0 that of noise?", "H_S, share"),
        _entry(
            "null-h-peak", "T3", "within", null_h_peak, "Is H_peak at step 0 that of noise?", "H_peak, share"
        ),
        _entry(
            "head-bound",
            "T2.total",
            "at least",
            head_bound,
            "Does the covariance head carry what H_S says?",
            "share of the first |S| eigenvalues of Σ",
        ),
        _entry(
            "rankme-bound",
            "T2.head",
            "at most",
            rankme_bound,
            "Is RankMe of the state means within the entropy of the modes?",
            "RankMe(Σ_B)",
        ),
        _entry(
            "overshoot",
            "T5.shape",
            "at most",
            overshoot,
            "Does H_S of the task band peak before the end of training?",
            "H_S(end) − max H_S",
        ),
        _entry(
            "token-order",
            "T6.order",
            "at most",
            token_ratio,
            "Do larger rates save tokens?",
            "D'/D at equal loss",
        ),
        _entry(
            "exponent-sign",
            "T7.flatter",
            "at most",
            exponent_change,
            "Does a ratio of spectra that rises with rank lower α by the pairwise sum?",
            "α' − α on the window",
        ),
        _entry(
            "rms-trace",
            "T7.trace",
            "within",
            trace_of_states,
            "Is the trace of the states fixed?",
            "tr Σ, divisor n",
        ),
        _entry(
            "batch-tail",
            "T8.order",
            "at least",
            batch_tail,
            "At matched loss, is the larger batch steeper? (The published figure says no.)",
            "α(50:128) at the larger minus at the smaller batch",
        ),
        _entry(
            "noise-floor",
            "T8.floor",
            "within",
            noise_floor,
            "Where does a noisy mode settle?",
            "squared error of a mode",
        ),
        _entry(
            "hitting-spread",
            "T9.spread",
            "within",
            hitting_spread,
            "How far apart do the modes arrive?",
            "latest over earliest time to 60 % of the final amplitude",
        ),
        _entry(
            "relative-spread",
            "T9.spread",
            "at most",
            relative_spread,
            "Do modes arrive closer together under Muon than under AdamW?",
            "ratio of spreads of mode hitting times, Muon over AdamW",
        ),
        _entry(
            "initial-loss",
            "T10.zero",
            "within",
            initial_loss,
            "Where does the loss start?",
            "loss before step 1, nats",
        ),
        _entry(
            "task-power",
            "T11.band",
            "within",
            task_power,
            "Which share of next-token power lies in the task band?",
            "share of Σ|k_r|² in r ≤ 7 of the model's own transition matrix",
            beyond=True,
        ),
        _entry(
            "fading",
            "T11.known",
            "at most",
            fading,
            "Does the preference for low frequencies fade along the sequence?",
            "H_task at the last minus at the first position",
            beyond=True,
        ),
        _entry(
            "null-exponent",
            "T12.null",
            "within",
            null_exponent,
            "Is α more than noise reads?",
            "α on the window",
        ),
        _entry(
            "detectable",
            "T12.spike",
            "at least",
            detectable,
            "Is a direction above noise?",
            "λ_i / bulk variance",
        ),
        _entry(
            "mean-gradient",
            "T12.gradient",
            "within",
            mean_gradient,
            "Is σ_1 of the gradients the mean gradient plus noise?",
            "σ_1² / noise variance",
        ),
    )
}
