"""T5: does concentration overshoot and decline?

The highest of many looks is high by chance, in noise too. Whether a band concentrates at all is therefore decided by
most of its seeds, each against the highest of as many looks at noise; and the moment of its top is that of a few seeds,
the pilots, so that the fall from there to the end is read on the others without selection.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache

import numpy as np
import pandas as pd
from scipy import optimize, stats

from sims.analysis.comparisons import tops, with_pilots
from sims.analysis.concentration import named_bands
from sims.analysis.runs import Runs
from sims.studies.theory.checkpoint_tables import CheckpointTables, ended
from sims.studies.theory.figures import outcomes as figures
from sims.studies.theory.outcome import Outcome, Question
from theory.predictions import PREDICTIONS

# A band is tested where more than this share of its seeds exceeds the null.
MOST = 0.5
# Of noise lies above the stored level.
NULL_TAIL = 0.025
KEY = ["stage", "batch_size", "seed", "band"]


def overshoot(evidence: CheckpointTables) -> tuple[Outcome, ...]:
    """Make one outcome a stage, over its runs and unseen bands (all bands where training has every one).

    The premise, that something concentrated which could decline, is that of a band at a batch size, and all of its
    seeds but the pilots are then tested: those that exceed their null by chance would be those whose top is too high.
    """
    table = falls(evidence)
    found = []
    for stage in evidence.runs.runs["stage"].unique():
        question = Question(PREDICTIONS["overshoot-beyond-noise"], "≥ 0 (rise, then decline)", of=stage)
        own = table[table["stage"] == stage]
        if own.empty:
            found.append(question.untestable("H_S of a task band was measured fewer than three times"))
        elif not own["tested"].any():
            reason = (
                "no band exceeds the highest of as many looks at noise in most seeds: nothing concentrated"
            )
            found.append(question.untestable(f"{reason} that could decline", own))
        elif (chosen := own[own["tested"]].dropna(subset=["value"])).empty:
            found.append(question.untestable("the only seed of a band chooses the moment of its top", own))
        else:
            figure = figures.trajectories(
                trajectories(evidence).query("stage == @stage"),
                "million",
                "value",
                "band",
                "million tokens",
                "H_S (task band)",
                null="null",
            )
            found.append(question.over_seeds(chosen, figure=figure, trained=with_pilots))
    return tuple(found)


def trajectories(evidence: CheckpointTables) -> pd.DataFrame:
    """Return the stored H_S (task) of the probe bands with its null, unseen bands only where there are any."""
    rows = named_bands(_rows(evidence.runs))
    return rows.assign(million=rows["tokens"] / 1e6)


def _rows(runs: Runs) -> pd.DataFrame:
    rows = runs.values("h_s", "probe", set="task")
    unseen = rows[rows["seen"].eq(False)]
    return rows if unseen.empty else unseen


def falls(evidence: CheckpointTables) -> pd.DataFrame:
    """Return a row a run and band: value, concentrated, and tested (whether most seeds of its cell are concentrated).

    value is H_S at the moment of the top less that at the end (`sims.analysis.comparisons.tops`), 0 on average where
    nothing happens; NaN of the pilots, which choose the moment. concentrated says whether the top of the run exceeds
    the 97.5 % level of the highest of as many looks at noise (`highest_of_noise`). A cell is a band of a stage at a
    batch size.
    """
    table, rows = named_bands(ended(evidence.runs, _rows(evidence.runs))), []
    for _, own in table.groupby(["run_id", "band"], sort=False):
        if len(own) < 3:
            continue
        top = own.iloc[int(own["value"].to_numpy().argmax())]
        level = highest_of_noise(float(top["null"]), float(top["null_high"]), len(own))
        rows.append({**{n: top[n] for n in [*KEY, "run_id"]}, "concentrated": bool(top["value"] > level)})
    found = pd.DataFrame(rows, columns=[*KEY, "run_id", "concentrated"])
    cells = found.groupby(["stage", "batch_size", "band"], sort=False)["concentrated"]
    found = found.assign(tested=cells.transform("mean") > MOST if rows else False)
    if not rows:
        return found.assign(value=[])
    read = tops(replace(evidence.runs, rows=_rows(evidence.runs)), "H_S task").rename(
        columns={"fall": "value"}
    )
    return found.merge(read[[*KEY, "value"]], on=KEY, how="left")


@lru_cache(maxsize=4096)
def highest_of_noise(null: float, null_high: float, looks: int) -> float:
    """Return the level that the highest H_S of so many independent looks at noise exceeds in 2.5 %.

    H_S of noise has a Beta law, of which rows store the mean and the 97.5 % level. Looks at one run are alike: their
    highest is lower.

    Args:
        null, null_high: mean and 97.5 % level of one look.
        looks: how many.

    Returns:
        NaN where no Beta law has such a mean and level.

    >>> round(highest_of_noise(0.4, 0.45, 1), 6), round(highest_of_noise(0.4, 0.45, 40), 3)
    (0.45, 0.483)
    """
    if not 0 < null < null_high < 1:
        return math.nan

    def beyond(size: float) -> float:
        return float(stats.beta.sf(null_high, null * np.exp(size), (1 - null) * np.exp(size))) - NULL_TAIL

    # The narrowest law: a share that is seldom anything but 0 or 1 has such a level too.
    sizes = np.linspace(25, -5, 121)
    wide = next((k for k, size in enumerate(sizes) if beyond(size) > 0), 0)
    if not wide:
        return math.nan
    # A tuple comes with full_output alone.
    root = optimize.brentq(beyond, sizes[wide], sizes[wide - 1])
    size = math.exp(root)  # pyright: ignore[reportArgumentType]
    return float(stats.beta.ppf((1 - NULL_TAIL) ** (1 / looks), null * size, (1 - null) * size))
