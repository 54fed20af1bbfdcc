"""T11: does the preference for low frequencies fade along the sequence? By state, and at fixed step (N2)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from sims.studies.theory.checkpoint_tables import CheckpointTables, ended
from sims.studies.theory.figures import outcomes as figures
from sims.studies.theory.outcome import Outcome, Question
from theory.predictions import PREDICTIONS

# A model that reads the step predicts the last token much better than the second one.
CONTEXT_GAIN = 0.5


def position(evidence: CheckpointTables) -> tuple[Outcome, ...]:
    """Make one outcome a question and stage, at the end of training."""
    table = fading(ended(evidence.runs, evidence.positions))
    found = []
    for stage in evidence.runs.runs["stage"].unique():
        own = table[table["stage"] == stage]
        for prediction, column, predicted in (
            (PREDICTIONS["fading"], "by_state", "≤ 0"),
            (PREDICTIONS["fading-at-fixed-step"], "given_step", "≤ 0"),
            (PREDICTIONS["kernel-in-class-means"], "filtered", "≤ 0"),
        ):
            question = Question(prediction, predicted, of=stage)
            found.append(_answer(question, own, column, evidence))
    return tuple(found)


def _answer(question: Question, own: pd.DataFrame, column: str, evidence: CheckpointTables) -> Outcome:
    if own.empty:
        return question.untestable(
            "no checkpoint with a probe band of prime modulus above 15 (steps of composite ones have structure)"
        )
    prime = own.dropna(subset=["given_step"])
    if prime.empty:
        return question.untestable(
            "every probe band has a composite modulus, where known steps have structure", own
        )
    reads = prime[prime["context_gain"] >= CONTEXT_GAIN]
    if reads.empty:
        best = prime["context_gain"].max()
        reason = (
            f"no run reads the step: the last position's loss is at most {best:.2f} nats below the first's"
        )
        return question.untestable(reason, prime)
    shown = evidence.positions.merge(reads[["run_id", "band"]], on=["run_id", "band"])
    shown = shown.assign(place=shown["position"] + 1)
    figure = None
    if column != "filtered":
        label = "H_S (task) by state" if column == "by_state" else "H_S (task) at fixed step"
        figure = figures.trajectories(
            shown, "place", column, "band", "position", label, null="null", log_x=True
        )
    outcome = question.over_seeds(reads, column, figure=figure)
    kinds = reads.assign(kind=np.where(reads["seen"], "seen", "unseen")).groupby("kind")[column].mean()
    told = ", ".join(f"{kind} bands {value:+.3f}" for kind, value in kinds.items())
    return replace(outcome, reason=f"{outcome.reason}; {told}")


def fading(positions: pd.DataFrame) -> pd.DataFrame:
    """Return last minus first position for each run and band: by_state, given_step, filtered, context_gain (nats)."""
    rows = []
    for (run, band), own in positions.groupby(["run_id", "band"], sort=False):
        own = own.sort_values("position")
        first, last = own.iloc[0], own.iloc[-1]
        by_state, given = (float(last[c] - first[c]) for c in ("by_state", "given_step"))
        rows.append(
            {
                "run_id": run,
                "band": band,
                "seen": first["seen"],
                "stage": first["stage"],
                "batch_size": first["batch_size"],
                "seed": first["seed"],
                "by_state": by_state,
                "given_step": given,
                "filtered": given - by_state,
                "context_gain": float(first["loss"] - last["loss"]),
            }
        )
    columns = [
        "run_id",
        "band",
        "seen",
        "stage",
        "batch_size",
        "seed",
        "by_state",
        "given_step",
        "filtered",
        "context_gain",
    ]
    return pd.DataFrame(rows, columns=columns)
