"""T18, T22: how do predictions and states of runs that were measured against the exact law stand to it?"""

from __future__ import annotations

from dataclasses import replace

import pandas as pd

from sims.analysis.bounds import ROUNDING, worst_ratio
from sims.analysis.runs import Runs
from sims.studies.theory.checkpoint_tables import LABEL, CheckpointTables, ended
from sims.studies.theory.figures import outcomes as figures
from sims.studies.theory.outcome import Outcome, Question
from theory.predictions import PREDICTIONS

BOUND = Question(PREDICTIONS["entropy-gap-bound"], "≤ 1 exactly")
# By the column that they are asked of.
CHANGES = {
    "size": Question(PREDICTIONS["entropy-gap-falls"], "≤ 0"),
    "share": Question(PREDICTIONS["states-hold-the-law"], "≥ 0"),
}
UNMEASURED = "not measured; train toys with --measure.predictive 2048, or see `speclens markov`"


def predictive(evidence: CheckpointTables) -> tuple[Outcome, ...]:
    """Judge the bound of the entropy gap by its worst case, and ask of each stage what training changes."""
    table = looks(evidence.runs)
    if table.empty:
        return tuple(question.untestable(UNMEASURED) for question in (BOUND, *CHANGES.values()))
    found = [_bound(table)]
    # A bound holds at every look; what training changes is read where it ended.
    table = ended(evidence.runs, table)
    for stage in evidence.runs.runs["stage"].unique():
        own = table[table["stage"] == stage]
        for column, question in CHANGES.items():
            found.append(_change(replace(question, of=stage), own, column))
    return tuple(found)


def looks(runs: Runs) -> pd.DataFrame:
    """Return one row a run, look and position: size of the gap of entropies, its bound (nats), share of √p or NaN."""
    names = {"entropy_gap": "gap", "entropy_gap_bound": "bound", "alignment_bc": "share"}
    key = [*LABEL, "detail"]
    parts = [runs.values(q, "predictive").set_index(key)["value"].rename(name) for q, name in names.items()]
    table = pd.concat(parts, axis=1).dropna(subset=["gap", "bound"], how="all").reset_index()
    return table.assign(size=table["gap"].abs())


def _bound(table: pd.DataFrame) -> Outcome:
    ratio = table["size"] / table["bound"].where(table["bound"] > 0)
    broken = int((table["size"] > table["bound"] + ROUNDING).sum())
    worst, missing = worst_ratio(table["size"], table["bound"])
    reason = (
        f"{broken} of {len(table)} bounds violated; the gap is {ratio.mean():.0%} of its bound on average"
    )
    figure = figures.scatter(table, "bound", "size", "bound (nats)", "gap of entropies (nats)", identity=True)
    return BOUND.exact(worst, broken == 0, reason, table, figure, missing=missing)


def _change(question: Question, table: pd.DataFrame, column: str) -> Outcome:
    """Judge the last look of each run minus its first one, mean over the positions that both have."""
    own = table.dropna(subset=[column])
    if own.empty:
        return question.untestable(f"no look has it: {question.prediction.measured}")
    # Batch sizes have numbers of steps of their own.
    looks_of_run = own.groupby("run_id")["step"]
    if looks_of_run.nunique().max() < 2:
        return question.untestable("one look has no change", own)
    first, last = (own[own["step"] == looks_of_run.transform(end)] for end in ("min", "max"))
    ends = first.merge(last, on=["run_id", "seed", "detail"], suffixes=("_first", "_last"))
    ends = ends[ends["step_last"] > ends["step_first"]]
    if ends.empty:
        return question.untestable("no position was measured at the first look of a run and at its last", own)
    ends = ends.assign(value=ends[f"{column}_last"] - ends[f"{column}_first"], step=ends["step_last"])
    by = ["run_id", "stage", "batch_size", "seed", "tokens"]
    means = own.groupby(by, sort=False)[column].mean().reset_index()
    means = means.assign(million=means["tokens"] / 1e6)
    figure = figures.trajectories(
        means, "million", column, "stage", "training tokens (millions)", "mean over positions"
    )
    return question.over_seeds(ends, figure=figure)
