"""T9: do the modes of the next-token rule arrive closer together under Muon than under AdamW?"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pandas as pd

from sims.against import figures
from sims.against.evidence import Evidence
from sims.against.outcome import Outcome, Question
from sims.analysis import crossing
from theory.predictions import PREDICTIONS

ADAMW, MUON = "rope", "muon"
SHARE = 0.5
# A mode whose amplitude stays below this was never learned; 500 sequences put at most .03 of noise on it.
FLOOR = 0.1
# Spreads over a handful of modes would compare which modes arrived, not when.
LEARNED = 0.5


def hitting(evidence: Evidence) -> tuple[Outcome, ...]:
    """Spread (latest/earliest over the modes both runs learned) of tokens to half of a mode's own maximum."""
    question = Question(
        PREDICTIONS["relative-spread"],
        "≤ 0",
        of=f"{MUON} / {ADAMW}",
        unit="ln(spread under Muon / under AdamW)",
    )
    times = hitting_times(evidence.modes)
    if not {ADAMW, MUON} <= set(times["stage"]):
        return (question.untestable(f"needs checkpoints of both {ADAMW} and {MUON}"),)
    table, learned = spreads(times)
    if table.empty:
        reason = (
            f"in no pair of runs did at least {LEARNED:.0%} of the modes of a band exceed an amplitude of {FLOOR} in "
            f"both; at most {learned:.0%} did"
        )
        figure = figures.trajectories(
            times[times["stage"].isin([ADAMW, MUON])],
            "r",
            "top",
            "band",
            "frequency r",
            "highest amplitude a_r",
        )
        return (replace(question.untestable(reason, times), figure=figure),)
    figure = figures.trajectories(
        times[times["stage"].isin([ADAMW, MUON]) & times["arrived"]],
        "r",
        "million",
        "band",
        "frequency r",
        "million tokens to half of the maximum",
    )
    return (question.over_seeds(table, figure=figure),)


def hitting_times(modes: pd.DataFrame) -> pd.DataFrame:
    """One row for each run, band and mode: million (tokens to half of its maximum), top, arrived (top ≥ .1)."""
    rows = []
    for (run, band, r), own in modes.groupby(["run_id", "band", "r"], sort=False):
        own = own.sort_values("tokens")
        top = float(own["amplitude"].max())
        # `crossing` looks for the first fall below a level: of the negative amplitude.
        falling = own.assign(value=-own["amplitude"])
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
                "arrived": top >= FLOOR,
            }
        )
    columns = ["run_id", "stage", "batch_size", "seed", "band", "r", "top", "million", "arrived"]
    return pd.DataFrame(rows, columns=columns)


def spreads(times: pd.DataFrame) -> tuple[pd.DataFrame, float]:
    """ln of Muon's spread over AdamW's, one row for each seed, batch size and band where enough modes were learned.

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
