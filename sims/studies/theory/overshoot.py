"""T5: does concentration overshoot and decline?"""

from __future__ import annotations

import pandas as pd

from sims.analysis.concentration import named_bands
from sims.studies.theory.checkpoint_tables import CheckpointTables
from sims.studies.theory.figures import outcomes as figures
from sims.studies.theory.outcome import Outcome, Question
from theory.predictions import PREDICTIONS


def overshoot(evidence: CheckpointTables) -> tuple[Outcome, ...]:
    """Make one outcome a stage, over its runs and unseen bands (all bands where training has every one)."""
    table = falls(evidence)
    found = []
    for stage in evidence.runs.runs["stage"].unique():
        question = Question(PREDICTIONS["overshoot-beyond-noise"], "≥ 0 (rise, then decline)", of=stage)
        own = table[table["stage"] == stage]
        if own.empty:
            found.append(question.untestable("H_S of a task band was measured fewer than three times"))
        elif not own["concentrated"].any():
            reason = "H_S never exceeds the 97.5 % level of its null: nothing concentrated that could decline"
            found.append(question.untestable(reason, own))
        else:
            chosen = own[own["concentrated"]]
            figure = figures.trajectories(
                trajectories(evidence).query("stage == @stage"),
                "million",
                "value",
                "band",
                "million tokens",
                "H_S (task band)",
                null="null",
            )
            found.append(question.over_seeds(chosen, figure=figure))
    return tuple(found)


def trajectories(evidence: CheckpointTables) -> pd.DataFrame:
    """Return the stored H_S (task) of the probe bands with its null, unseen bands only where there are any."""
    rows = evidence.runs.values("h_s", "probe", set="task")
    unseen = rows[rows["seen"].eq(False)]
    rows = named_bands(rows if unseen.empty else unseen)
    return rows.assign(million=rows["tokens"] / 1e6)


def falls(evidence: CheckpointTables) -> pd.DataFrame:
    """Return a row a run and band: value (top − end − margin), concentrated (whether the top exceeds its null).

    The margin is the distance from the null's mean to its 97.5 % level at the top: a maximum over measurements is
    biased upward by about as much.
    """
    rows = []
    for (run, band), own in trajectories(evidence).groupby(["run_id", "band"], sort=False):
        own = own.sort_values("step")
        if len(own) < 3:
            continue
        top = own.iloc[int(own["value"].to_numpy().argmax())]
        margin = top["null_high"] - top["null"]
        rows.append(
            {
                "run_id": run,
                "stage": top["stage"],
                "batch_size": top["batch_size"],
                "seed": top["seed"],
                "band": band,
                "value": top["value"] - own["value"].iloc[-1] - margin,
                "concentrated": bool(top["value"] > top["null_high"]),
            }
        )
    columns = ["run_id", "stage", "batch_size", "seed", "band", "value", "concentrated"]
    return pd.DataFrame(rows, columns=columns)
