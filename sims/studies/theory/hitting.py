"""T9: do the modes of the next-token rule arrive closer together under Muon than under AdamW?"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pandas as pd

from sims.analysis.cells import crossing
from sims.studies.theory.checkpoint_tables import CheckpointTables, ended
from sims.studies.theory.figures import outcomes as figures
from sims.studies.theory.outcome import Outcome, Question
from theory.predictions import PREDICTIONS

ADAMW, MUON = "rope", "muon"
SHARE = 0.5
# A mode whose amplitude stays below this was never learned; 500 sequences put at most .03 of noise on it.
FLOOR = 0.1
# Spreads over a handful of modes would compare which modes arrived, not when.
LEARNED = 0.5


def hitting(evidence: CheckpointTables) -> tuple[Outcome, ...]:
    """Compare the spread (latest/earliest over common modes) of tokens to half of a mode's maximum.

    Asked of the amplitudes of the next-token rule, and of how far the class means have moved since step 0.
    """
    return (_answer(evidence, "amplitude", FLOOR), _answer(evidence, "moved", 0.0))


def _answer(evidence: CheckpointTables, column: str, floor: float) -> Outcome:
    what = "rule" if column == "amplitude" else "class means"
    question = Question(PREDICTIONS["relative-spread"], "≤ 0", of=f"{MUON} / {ADAMW}, {what}")
    times = hitting_times(ended(evidence.runs, evidence.modes), column, floor)
    if not {ADAMW, MUON} <= set(times["stage"]):
        return question.untestable(f"needs checkpoints of both {ADAMW} and {MUON}")
    table, learned = spreads(times)
    two = times[times["stage"].isin([ADAMW, MUON])]
    if table.empty:
        reason = (
            f"in no pair of runs did at least {LEARNED:.0%} of the modes of a band exceed an amplitude of {floor} in "
            f"both, and reach half of their maximum after the first checkpoint of training; at most {learned:.0%} did"
        )
        figure = figures.trajectories(two, "r", "top", "band", "frequency r", "highest amplitude")
        return replace(question.untestable(reason, two), figure=figure)
    arrived = two[two["arrived"]]
    label = "million tokens to half of the maximum"
    figure = figures.trajectories(arrived, "r", "million", "band", "frequency r", label)
    return question.over_seeds(table, figure=figure)


def hitting_times(modes: pd.DataFrame, column: str = "amplitude", floor: float = FLOOR) -> pd.DataFrame:
    """Return for each run, band and mode: million (tokens to half of its maximum), top, arrived (top > floor).

    Args:
        modes: the table of `CheckpointTables`.
        column: "amplitude" (of the rule) or "moved" (of the class means).
    """
    rows = []
    modes = modes.dropna(subset=[column])
    for (run, band, r), own in modes.groupby(["run_id", "band", "r"], sort=False):
        own = own.sort_values("tokens")
        top = float(own[column].max())
        # `crossing` looks for the first fall below a level: of the negative amplitude.
        falling = own.assign(value=-own[column])
        first = own.iloc[0]
        rows.append(
            {
                "run_id": run,
                "stage": first["stage"],
                "batch_size": first["batch_size"],
                "seed": first["seed"],
                "band": band,
                "r": r,
                "top": top,
                "million": crossing(falling, -SHARE * top) / 1e6,
                "arrived": top > floor,
            }
        )
    columns = ["run_id", "stage", "batch_size", "seed", "band", "r", "top", "million", "arrived"]
    return pd.DataFrame(rows, columns=columns)


def spreads(times: pd.DataFrame) -> tuple[pd.DataFrame, float]:
    """Return ln of Muon's spread over AdamW's for each seed, batch size and band with enough learned modes.

    Returns:
        The table (run_id of both, seed, batch_size, band, value, modes), and the largest share of modes that two
        runs of a pair learned in common.
    """
    rows, best = [], 0.0
    for (size, seed, band), own in times.groupby(["batch_size", "seed", "band"], sort=False):
        arrived = own[own["arrived"] & (own["million"] > 0)]
        wide = arrived.pivot_table(index="r", columns="stage", values="million")
        if not {ADAMW, MUON} <= set(wide.columns):
            continue
        both = wide[[ADAMW, MUON]].dropna()
        share = len(both) / own["r"].nunique()
        best = max(best, share)
        if share < LEARNED or len(both) < 2:
            continue
        spread = both.max() / both.min()
        names = own.loc[own["stage"].isin([ADAMW, MUON]), "run_id"].unique()
        rows.append(
            {
                "run_id": " ".join(names),
                "seed": seed,
                "batch_size": size,
                "band": band,
                "modes": len(both),
                "value": math.log(spread[MUON] / spread[ADAMW]),
            }
        )
    columns = ["run_id", "seed", "batch_size", "band", "modes", "value"]
    return pd.DataFrame(rows, columns=columns), float(np.clip(best, 0, 1))
