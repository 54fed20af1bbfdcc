"""T2 and T7: inequalities and an identity that every checkpoint must obey, and how tight they are."""

from __future__ import annotations

import pandas as pd

from sims.studies.theory.checkpoint_tables import CheckpointTables
from sims.studies.theory.figures import outcomes as figures
from sims.studies.theory.outcome import Outcome, Question
from theory.predictions import PREDICTIONS

# Shares carry rounding of about 1e-13; anything beyond this is a violation.
ROUNDING = 1e-9
RANKME_ROUNDING = 1e-6
# float32 states, and the ε inside RMSNorm, which takes a share ε/(mean x² + ε).
TRACE_SLACK = 1e-3


def head_bound(evidence: CheckpointTables) -> tuple[Outcome, ...]:
    """Judge T2(b), T2(c) and the trace of T7 by the worst checkpoint; the reason says how tight they are."""
    table = evidence.bounds
    questions = (
        (Question(PREDICTIONS["head-of-means"], "≥ 0 exactly"), table["head"], table["h_s"]),
        (
            Question(PREDICTIONS["head-bound"], "≥ 0 exactly"),
            table["total_head"],
            table["bound"],
        ),
    )
    found = [_inequality(question, table, larger, smaller) for question, larger, smaller in questions]
    return (*found, _rankme(table), _trace(table))


def _inequality(question: Question, table: pd.DataFrame, larger: pd.Series, smaller: pd.Series) -> Outcome:
    if table.empty:
        return question.untestable("no checkpoints with a probe band; train with --measure.checkpoints")
    slack = larger - smaller
    broken = int((slack < -ROUNDING).sum())
    trained = table["step"] > 0
    tight = (smaller / larger)[trained] if trained.any() else smaller / larger
    reason = (
        f"{broken} of {len(slack)} inequalities violated by more than {ROUNDING:g}; after step 0 the bound is "
        f"{tight.mean():.0%} of what it bounds on average, {tight.max():.1%} at best"
    )
    drawn = table.assign(larger=larger, smaller=smaller)
    figure = figures.scatter(drawn, "smaller", "larger", "bound", "share of the first |S|", identity=True)
    missing = int(slack.isna().sum())
    return question.exact(float(slack.min()), broken == 0, reason, table, figure, missing=missing)


def _rankme(table: pd.DataFrame) -> Outcome:
    question = Question(PREDICTIONS["rankme-bound"], "≤ 0 exactly")
    if table.empty:
        return question.untestable("no checkpoints with a probe band; train with --measure.checkpoints")
    one = table.drop_duplicates(["run_id", "step", "band"])
    excess = one["rankme"] - one["entropy"]
    broken = int((excess > RANKME_ROUNDING).sum())
    share = (one["rankme"] / one["entropy"]).mean()
    reason = f"{broken} of {len(one)} bounds violated; RankMe is {share:.0%} of its bound on average"
    figure = figures.scatter(
        one, "entropy", "rankme", "exp(entropy of the modes)", "RankMe(Σ_B)", identity=True
    )
    missing = int(excess.isna().sum())
    return question.exact(float(excess.max()), broken == 0, reason, one, figure, missing=missing)


def _trace(table: pd.DataFrame) -> Outcome:
    question = Question(PREDICTIONS["rms-trace"], "0")
    if table.empty:
        return question.untestable("no checkpoints with a probe band; train with --measure.checkpoints")
    one = table.drop_duplicates(["run_id", "step", "band"])
    away = (one["trace"] - 1).abs()
    worst = float(away.max())
    reason = f"largest deviation {worst:.1e} against {TRACE_SLACK:g} at {len(one)} checkpoints and bands"
    return question.exact(worst, worst <= TRACE_SLACK, reason, one, missing=int(away.isna().sum()))
