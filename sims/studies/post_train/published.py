"""What was published of post-training, beside what these runs show (arXiv 2509.23024).

The published models have 1 to 7 billion parameters, so that claims are compared in kind. Here each kind is set against
the same number of plain steps from the same weights.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from sims.analysis.intervals import t_test
from sims.analysis.paired import SIGNIFICANT
from sims.analysis.resampling import holm
from sims.analysis.verdicts import LEAST_SEEDS
from sims.pages.number import interval
from sims.studies.claims import NOT_SHOWN, OPEN, SHOWN, Claim
from sims.studies.post_train.answers import PLAIN, RATIOS, PostAnswers
from sims.studies.post_train.measured import BEFORE
from theory.decision import side, why_undecided


class Expected(NamedTuple):
    """Hold one published claim: kind, quantity, its direction, in words, and the published figure."""

    arm: str
    quantity: str
    sign: int
    claim: str
    published: str


EXPECTED = (
    Expected("sft", "rankme", 1, "SFT raises RankMe", "rises"),
    Expected("dpo", "rankme", 1, "DPO raises RankMe", "rises"),
    Expected("rlvr", "rankme", -1, "RLVR lowers RankMe", "falls"),
    Expected("rlvr", "pass@16", 1, "RLVR raises pass@16", "rises"),
    Expected("rlvr", "pass@256", -1, "RLVR lowers pass@256", "falls"),
)


def claims(answers: PostAnswers) -> Iterator[Claim]:
    """Yield every claim for every set of runs; their tests are corrected for the number of all of them."""
    asked = [(expected, cell) for expected in EXPECTED for cell in answers.data.cells]
    tests = [t_test(answers.seeds(cell, e.arm, PLAIN, e.quantity)) for e, cell in asked]
    corrected = holm(np.array(tests))
    for (expected, cell), p in zip(asked, corrected.tolist(), strict=True):
        yield _claim(answers, cell, expected, p)


def _claim(answers: PostAnswers, cell: str, expected: Expected, p: float) -> Claim:
    arm, quantity = expected.arm, expected.quantity
    found = answers.change(cell, arm, PLAIN, quantity)
    since, plain = (answers.change(cell, name, BEFORE, quantity) for name in (arm, PLAIN))
    told = told_change(found, quantity)
    which = side(found["low"], found["high"])
    if found["n"] < LEAST_SEEDS:
        outcome, reason = OPEN, f"{found['n']} seeds, and the rule needs {LEAST_SEEDS}"
    elif which == 0:
        outcome, reason = OPEN, why_undecided(found["low"], found["high"])
    elif not p <= SIGNIFICANT:
        outcome, reason = OPEN, f"{told}, but p = {p:.2g} after Holm's correction for all claims"
    else:
        outcome = SHOWN if which == expected.sign else NOT_SHOWN
        reason = f"{told}; p = {p:.2g} after Holm's correction for all claims"
    return Claim(
        expected.claim,
        cell,
        expected.published,
        f"{told} against plain steps; {told_change(since, quantity)} since before",
        f"plain steps: {told_change(plain, quantity)} since before",
        outcome,
        reason,
    )


def told_change(found: Mapping[str, Any], quantity: str) -> str:
    """Write a change with its interval: in per cent for ratios; a dash where there is none."""
    mean, low, high = (float(found[name]) for name in ("mean", "low", "high"))
    if math.isnan(mean):
        return "–"
    if quantity in RATIOS:
        mean, low, high = (100 * math.expm1(x) for x in (mean, low, high))
        return interval(mean, low, high, write=lambda v: _signed(v, 1)) + " %"
    return interval(mean, low, high, write=lambda v: _signed(v, 3))


def _signed(value: float, digits: int) -> str:
    return f"{value:+.{digits}f}".replace("-", "−")
