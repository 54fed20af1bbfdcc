"""Ask trained models what the claims predict: questions that are fixed before anything is measured.

A `Prediction` names the quantity to measure and its limit; `judge` compares a measured interval with the limit. This
module measures nothing and knows no run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from theory.decision import decide, has_width, why_undecided
from theory.ranges import CORRELATION, REAL, SHARE, Range

Relation = Literal["equal", "at most", "at least"]
Outcome = Literal["holds", "fails", "not testable"]


@dataclass(frozen=True)
class Prediction:
    """State one question that a claim asks of trained models.

    Attributes:
        name: permanent name of the question.
        claim: id of the claim that it follows from; a remark in parentheses may follow.
        relation: how the measured quantity must relate to the limit.
        question: what is asked, in words.
        measured: the quantity to measure, with its unit or normalisation.
        limit: the predicted value, or the bound on it.
        margin: of an equality: a value this far from the limit is still called equal; its reason stands beside it.
        range: the values that the quantity can take.

    >>> PREDICTIONS["token-order"].relation, PREDICTIONS["token-order"].limit
    ('at most', 0.0)
    """

    name: str
    claim: str
    relation: Relation
    question: str
    measured: str
    limit: float = 0.0
    margin: float = 0.0
    range: Range = REAL

    @property
    def limits(self) -> tuple[float, ...]:
        """Return the values at which the verdict changes.

        >>> PREDICTIONS["token-order"].limits, PREDICTIONS["null-h-s"].limits
        ((0.0,), (0.362, 0.638))
        """
        if self.relation == "equal":
            return (self.limit - self.margin, self.limit + self.margin)
        return (self.limit,)


@dataclass(frozen=True)
class Judgement:
    """Hold the outcome of a comparison, its effect and its reason.

    Attributes:
        outcome: "holds", "fails" or "not testable".
        effect: measured value minus limit.
        reason: the comparison in words.

    >>> Judgement("holds", 0.1, "[0.05, 0.15] lies inside [0, inf]").outcome
    'holds'
    """

    outcome: Outcome
    effect: float
    reason: str


def judge(prediction: Prediction, low: float, value: float, high: float) -> Judgement:
    """Compare a measured interval with the limit of a prediction.

    A bound *holds* when the whole interval [low, high] obeys it, *fails* when the whole interval breaks it, and is *not
    testable* when the interval contains the limit, which is often what chance alone would give. An equality holds when
    the whole interval lies within its margin around the limit, and fails when all of it lies outside: an interval wide
    enough to contain anything is no evidence of equality. An interval that is not finite, or has no width because the
    seeds agree, tests nothing (see `theory.decision.decide`).

    >>> judge(PREDICTIONS["token-order"], -0.3, -0.2, -0.1).outcome
    'holds'
    >>> judge(PREDICTIONS["token-order"], -0.3, -0.1, 0.1).outcome
    'not testable'
    """
    limit = prediction.limit
    effect = value - limit
    if not np.isfinite([low, value, high]).all() or not low <= value <= high:
        return Judgement(
            "not testable", effect, f"no finite interval around the value: [{low}, {high}] ∋ {value}"
        )
    measured = f"[{low:.4g}, {high:.4g}]"
    if not has_width(low, high):
        return Judgement("not testable", effect, why_undecided(low, high))
    margin = prediction.margin
    floor, ceiling = {
        "at most": (-np.inf, limit),
        "at least": (limit, np.inf),
        "equal": (limit - margin, limit + margin),
    }[prediction.relation]
    accepted = f"[{floor:.4g}, {ceiling:.4g}]"
    decided = decide(low, high, floor, ceiling)
    if decided == "undecided":
        return Judgement("not testable", effect, f"{measured} straddles a limit of {accepted}")
    return Judgement(
        "holds" if decided == "inside" else "fails", effect, f"{measured} lies {decided} {accepted}"
    )


PREDICTIONS: Mapping[str, Prediction] = {
    p.name: p
    for p in (
        Prediction(
            "head-of-means",
            "T2.head",
            "at least",
            "Do the first |S| eigenvalues of the state means carry at least H_S?",
            "smallest slack: share of the first |S| eigenvalues of Σ_B minus H_S",
        ),
        Prediction(
            "head-bound",
            "T2.total",
            "at least",
            "Does the covariance head carry what H_S says?",
            "smallest slack: share of the first |S| eigenvalues of Σ minus (tr Σ_B/tr Σ)·H_S",
        ),
        Prediction(
            "rankme-bound",
            "T2.head",
            "at most",
            "Is RankMe of the state means within the entropy of the modes?",
            "largest excess: RankMe(Σ_B) − exp(entropy of m)",
        ),
        Prediction(
            "null-h-s",
            "T3",
            "equal",
            "Is H_S at step 0 that of noise?",
            "mean upper-tail probability of H_S at step 0",
            limit=0.5,
            # What a shift by half a standard deviation of the null makes of it: Φ(½/√2) − ½.
            margin=0.138,
            range=SHARE,
        ),
        Prediction(
            "overshoot-beyond-noise",
            "T5.shape",
            "at least",
            "Does H_S of the task band rise and fall again?",
            "H_S at its top − H_S at the end, at a moment that other seeds choose, share",
            range=SHARE.change,
        ),
        Prediction("token-order", "T6.order", "at most", "Do larger rates save tokens?", "ln(D'/D)"),
        Prediction(
            "flatter-faster",
            "T6.order, T7.flatter",
            "at least",
            "Does the flatter tail need fewer tokens to the common loss?",
            "mean of +1 (the flatter is faster) and −1 over pairs",
            range=CORRELATION,
        ),
        Prediction(
            "rms-trace",
            "T7.trace",
            "equal",
            "Is the trace of the states fixed?",
            "largest |tr Σ + ‖h̄‖² − d|/d of the final states, divisor n",
        ),
        Prediction(
            "batch-tail",
            "T8.order",
            "at least",
            "At matched loss, is the larger batch steeper? (The published figure says no.)",
            "α at the larger minus α at the smaller batch, mean over matched losses",
        ),
        Prediction(
            "relative-spread",
            "T9.spread",
            "at most",
            "Do modes arrive closer together under Muon than under AdamW?",
            "ln(spread under Muon / under AdamW)",
        ),
        Prediction(
            "initial-loss-tied",
            "T10.tied",
            "equal",
            "Where does the loss start?",
            "loss at step 0 − √(2d)Γ((d+1)/2)/Γ(d/2), nats",
        ),
        Prediction(
            "initial-loss",
            "T10.zero",
            "equal",
            "Where does the loss start?",
            "largest |loss − ln V|, nats",
        ),
        Prediction(
            "head-gradient",
            "T10.zero",
            "at most",
            "Has anything but a zero head a gradient at step 1?",
            "matrices other than the head with a non-zero gradient",
        ),
        Prediction(
            "direct-path",
            "T10.symmetric (N1)",
            "at least",
            "Does the untied direct path take up the antisymmetric part of the bigrams?",
            "correlation ρ of L − Lᵀ with B − Bᵀ, end of training",
            range=CORRELATION,
        ),
        Prediction(
            "fading",
            "T11.known",
            "at most",
            "Does the preference for low frequencies fade along the sequence?",
            "H_task of the class means by state, last position minus first",
            range=SHARE.change,
        ),
        Prediction(
            "fading-at-fixed-step",
            "T11.known (N2a)",
            "at most",
            "At fixed step, does the preference for low frequencies fade along the sequence?",
            "H_task at fixed step, last position minus first",
            range=SHARE.change,
        ),
        Prediction(
            "kernel-in-class-means",
            "T11.known (N2b)",
            "at most",
            "Do class means by state, which average over steps, fade less than energies at fixed step?",
            "fading at fixed step minus fading by state",
            range=SHARE.change.change,
        ),
        Prediction(
            "above-noise",
            "T12.null",
            "at least",
            "Is α more than noise of the same shape reads?",
            "share of exponents above the noise exponent",
            limit=0.95,
            range=SHARE,
        ),
        Prediction(
            "entropy-gap-bound",
            "T18",
            "at most",
            "Does the gap of entropies between predictions and the exact law keep its bound?",
            "largest |E H(q) − E H(p)| over its bound",
            limit=1.0,
        ),
        Prediction(
            "entropy-gap-falls",
            "T18",
            "at most",
            "Does training bring the entropy of the predictions closer to that of the exact law?",
            "|E H(q) − E H(p)|, last look minus first, nats",
        ),
        Prediction(
            "states-hold-the-law",
            "T22",
            "at least",
            "Does training raise the share of the exact law that the states hold?",
            "share of √p that an affine map of the final state explains, last look minus first",
        ),
    )
}
