"""What was published of early warnings of grokking, beside what these runs show (arXiv 2602.16746, 2602.16967).

The published numbers are of other networks (two-layer transformers, p = 97), so that they are compared in kind, not to
the digit.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sims.analysis.alarms import lead_summary
from sims.analysis.early_warning import BOUND
from sims.analysis.gap_decline import GapDecline
from sims.analysis.verdicts import Outcome
from sims.pages.number import ABSENT, interval
from sims.studies.grokking.answers import ARITHMETIC, Answers
from theory.decision import side

# Share of runs that grok with an alarm: every one of twelve, of which 0.9 would be a chance miss.
MOST = 0.9
CHANCE = 0.5


@dataclass(frozen=True)
class Claim:
    """One published claim beside these runs.

    Attributes:
        claim: in plain words.
        published: the published figure.
        here: the same of these runs, with its 95 % interval.
        null: the same where nothing is to be found.
        outcome: "shown", "not shown" or "not resolved".
    """

    claim: str
    published: str
    here: str
    null: str
    outcome: Outcome


def claims(answers: Answers) -> Iterator[Claim]:
    """Yield the claims that these runs can be asked about, in each arithmetic of the defect."""
    for name in answers.published:
        yield _warned(answers, name)
    for name in answers.published:
        yield _only_grokking(answers, name)
    for name in answers.published:
        yield _law(answers, name)
    if answers.decline is not None:
        yield _declines(answers.decline)


def _warned(answers: Answers, name: str) -> Claim:
    own = lead_summary(answers.published[name]).to_dict("records")[0]
    what = f"The published alarm precedes grokking ({ARITHMETIC[name]})"
    figure, null = "12 of 12 runs, 600–1,600 steps before", "a run without an alarm counts as 0 steps"
    if own["status"] != "ok":
        return Claim(what, figure, str(own["reason"]), null, "not resolved")
    lead = interval(own["median_lead"], own["median_low"], own["median_high"], 0)
    outcome: Outcome = "not resolved"
    if side(own["share_low"], own["share_high"], CHANCE) > 0:
        outcome = "shown"
    elif side(own["share_low"], own["share_high"], MOST) < 0:
        outcome = "not shown"
    here = f"{own['alarms']:.0f} of {own['runs']:.0f} runs, median {lead} steps before"
    return Claim(what, figure, here, null, outcome)


def _only_grokking(answers: Answers, name: str) -> Claim:
    row = answers.confusion[name].to_dict("records")[-1]
    what = f"Balanced accuracy of the published alarm against all controls ({ARITHMETIC[name]})"
    figure, null = "0.50 (TP 24, FN 12, FP 12, TN 6)", f"chance {CHANCE}, an early warning above {BOUND}"
    if row["status"] != "ok":
        return Claim(what, figure, str(row["reason"]), null, "not resolved")
    counts = ", ".join(f"{key.upper()} {row[key]}" for key in ("tp", "fn", "fp", "tn"))
    here = f"{interval(row['balanced'], row['low'], row['high'])} ({counts})"
    outcomes: tuple[Outcome, ...] = ("not resolved", "shown", "not shown")
    return Claim(what, figure, here, null, outcomes[side(row["low"], row["high"], BOUND)])


def _declines(decline: GapDecline) -> Claim:
    what = "σ₂² − σ₃² of the update window declines until grokking, and not without it"
    figure = "33- and 43-fold; 24 of 24 runs with weight decay, 0 of 24 without"
    rows = decline.controls.to_dict("records")
    if not rows:
        return Claim(what, figure, decline.verdict.reason, ABSENT, decline.verdict.outcome)
    controls = "; ".join(f"{r['control']} {r['null_ratio']:,.0f}-fold (p = {r['p']:.2g})" for r in rows)
    return Claim(what, figure, f"{rows[0]['ratio']:,.0f}-fold (median)", controls, decline.verdict.outcome)


def _law(answers: Answers, name: str) -> Claim:
    law = answers.laws[name]
    what = f"{law.verdict.claim}: exponent ({ARITHMETIC[name]})"
    figure = "1.13 and 1.18"
    if law.status != "ok":
        return Claim(what, figure, law.reason, ABSENT, "not resolved")
    null = f"T − t_mem {law.b_memorised:.2f}, T − const {law.b_constant:.2f}"
    return Claim(what, figure, interval(law.b, law.low, law.high), null, law.verdict.outcome)
