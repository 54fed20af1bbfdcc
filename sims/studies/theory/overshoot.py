"""T5: does concentration overshoot and decline?

The highest of many looks is high by chance, in noise too: it is compared with the highest of as many looks at noise,
and whether a band concentrates at all is decided by most of its seeds, never by the one run that is then tested.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import pandas as pd
from scipy import optimize, stats

from sims.analysis.concentration import named_bands
from sims.studies.theory.checkpoint_tables import CheckpointTables
from sims.studies.theory.figures import outcomes as figures
from sims.studies.theory.outcome import Outcome, Question
from theory.predictions import PREDICTIONS

# A band is tested where more than this share of its seeds exceeds the null.
MOST = 0.5
# Of noise lies above the stored level.
NULL_TAIL = 0.025


def overshoot(evidence: CheckpointTables) -> tuple[Outcome, ...]:
    """Make one outcome a stage, over its runs and unseen bands (all bands where training has every one).

    The premise, that something concentrated which could decline, is that of a band at a batch size, and all of its
    seeds are then tested: the seeds that exceed their null by chance would be those whose top is too high.
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
        else:
            chosen = own[own["tested"]]
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
    """Return a row a run and band: value, concentrated, and tested (whether most seeds of its cell are concentrated).

    value is top − end − margin. The margin is the distance from the null's mean to the 97.5 % level of the highest of
    as many looks at noise (`highest_of_noise`): a maximum over measurements is biased upward by less. concentrated says
    whether the top exceeds that level. A cell is a band of a stage at a batch size.
    """
    rows = []
    for (run, band), own in trajectories(evidence).groupby(["run_id", "band"], sort=False):
        own = own.sort_values("step")
        if len(own) < 3:
            continue
        top = own.iloc[int(own["value"].to_numpy().argmax())]
        level = highest_of_noise(float(top["null"]), float(top["null_high"]), len(own))
        rows.append(
            {
                "run_id": run,
                "stage": top["stage"],
                "batch_size": top["batch_size"],
                "seed": top["seed"],
                "band": band,
                "value": top["value"] - own["value"].iloc[-1] - (level - top["null"]),
                "concentrated": bool(top["value"] > level),
            }
        )
    columns = ["run_id", "stage", "batch_size", "seed", "band", "value", "concentrated"]
    found = pd.DataFrame(rows, columns=columns)
    cells = found.groupby(["stage", "batch_size", "band"], sort=False)["concentrated"]
    return found.assign(tested=cells.transform("mean") > MOST if rows else False)


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
