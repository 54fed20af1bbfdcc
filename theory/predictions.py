"""Ask trained models what the claims predict: questions that are fixed before anything is measured.

A `Prediction` names the quantity to measure and its limit; `judge` compares a measured interval with the limit. This
module measures nothing and knows no run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

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

    >>> PREDICTIONS["token-order"].relation, PREDICTIONS["token-order"].limit
    ('at most', 0.0)
    """

    name: str
    claim: str
    relation: Relation
    question: str
    measured: str
    limit: float = 0.0


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
    testable* when the interval contains the limit. An equality holds when the interval contains the limit and fails
    otherwise. An interval that is not finite tests nothing.

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
    if prediction.relation == "equal":
        contains = low <= limit <= high
        return Judgement(
            "holds" if contains else "fails",
            effect,
            f"{measured} {'contains' if contains else 'excludes'} {limit:.4g}",
        )
    floor, ceiling = (-np.inf, limit) if prediction.relation == "at most" else (limit, np.inf)
    accepted = f"[{floor:.4g}, {ceiling:.4g}]"
    if high < floor or low > ceiling:
        return Judgement("fails", effect, f"{measured} lies outside {accepted}")
    if low >= floor and high <= ceiling:
        return Judgement("holds", effect, f"{measured} lies inside {accepted}")
    return Judgement("not testable", effect, f"{measured} straddles a limit of {accepted}")


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
        ),
        Prediction(
            "overshoot-beyond-noise",
            "T5.shape",
            "at least",
            "Does H_S of the task band rise and fall again?",
            "highest H_S − H_S at the end − width of the null's upper tail, share",
        ),
        Prediction("token-order", "T6.order", "at most", "Do larger rates save tokens?", "ln(D'/D)"),
        Prediction(
            "flatter-faster",
            "T6.order, T7.flatter",
            "at least",
            "Does the flatter tail need fewer tokens to the common loss?",
            "mean of +1 (the flatter is faster) and −1 over pairs",
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
        ),
        Prediction(
            "fading",
            "T11.known",
            "at most",
            "Does the preference for low frequencies fade along the sequence?",
            "H_task of the class means by state, last position minus first",
        ),
        Prediction(
            "fading-at-fixed-step",
            "T11.known (N2a)",
            "at most",
            "At fixed step, does the preference for low frequencies fade along the sequence?",
            "H_task at fixed step, last position minus first",
        ),
        Prediction(
            "kernel-in-class-means",
            "T11.known (N2b)",
            "at most",
            "Do class means by state, which average over steps, fade less than energies at fixed step?",
            "fading at fixed step minus fading by state",
        ),
        Prediction(
            "above-noise",
            "T12.null",
            "at least",
            "Is α more than noise of the same shape reads?",
            "share of exponents above the noise exponent",
            limit=0.95,
        ),
    )
}
