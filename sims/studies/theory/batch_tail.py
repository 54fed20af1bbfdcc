"""T8 against the paper's figure 11a: at matched loss, whose tail is flatter, the small batch's or the large one's?"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pandas as pd

from sims.analysis.cells import at_losses
from sims.runs.columns import first_rank
from sims.studies.theory.checkpoint_tables import CheckpointTables, ended
from sims.studies.theory.figures import outcomes as figures
from sims.studies.theory.outcome import Outcome, Question
from theory.predictions import PREDICTIONS

# Losses at which two runs are compared, evenly spaced over what both passed through after their first measurement.
LEVELS = 5
HEAD_END = 10


def batch_tail(evidence: CheckpointTables) -> tuple[Outcome, ...]:
    """Make one outcome a stage and tail window: α(larger) − α(smaller), neighbouring batch sizes, equal seed."""
    differences = matched_differences(evidence)
    drawn = exponents(evidence)
    found = []
    for stage in evidence.runs.runs["stage"].unique():
        names = [str(w) for w in drawn.loc[drawn["stage"] == stage, "window"].unique()]
        windows = sorted(names, key=first_rank)
        if not windows:
            question = Question(PREDICTIONS["batch-tail"], "≥ 0 (figure 11a: < 0)", of=stage)
            found.append(question.untestable("no fitted tail exponent of the final states"))
        for window in windows:
            question = Question(
                PREDICTIONS["batch-tail"], "≥ 0 (figure 11a: < 0)", of=f"{stage}, ranks {window}"
            )
            own = differences[(differences["stage"] == stage) & (differences["window"] == window)]
            if own.empty:
                reason = "no two batch sizes of one seed passed through a common range of losses"
                found.append(question.untestable(reason))
                continue
            shown = drawn[(drawn["stage"] == stage) & (drawn["window"] == window)]
            figure = figures.trajectories(
                shown.assign(panel=f"{stage}, ranks {window}"),
                "loss",
                "alpha",
                "panel",
                "validation loss (nats)",
                "α",
            )
            found.append(question.over_seeds(own, figure=figure))
    return tuple(found)


def exponents(evidence: CheckpointTables) -> pd.DataFrame:
    """Return tail exponents of the final states after step 0 with the loss at the same step.

    Returns:
        run_id, stage, batch_size, seed, step, window, alpha, loss.
    """
    rows = ended(evidence.runs, evidence.runs.values("alpha", "activation", "final"))
    rows = rows[rows["step"] > 0]
    rows = rows[rows["window"].map(first_rank) >= HEAD_END]
    loss = evidence.runs.values("val_loss")[["run_id", "step", "value"]].rename(columns={"value": "loss"})
    rows = rows.rename(columns={"value": "alpha"}).merge(loss, on=["run_id", "step"])
    return rows[["run_id", "stage", "batch_size", "seed", "step", "window", "alpha", "loss"]]


def matched_differences(evidence: CheckpointTables) -> pd.DataFrame:
    """Return α(larger) − α(smaller) at matched losses, a row for each stage, window, seed and pair of batch sizes.

    Each run's α is read at a loss by linear interpolation between the two measurements around the first passage,
    so that no gap in the loss is left between the two.

    Returns:
        run_id (both), stage, window, seed, small, large, value, and loss_low, loss_high (the range compared).
    """
    rows = []
    for (stage, window, seed), own in exponents(evidence).groupby(["stage", "window", "seed"], sort=False):
        runs = {b: own[own["batch_size"] == b].sort_values("step") for b in own["batch_size"].unique()}
        for small, large in pairwise(sorted(runs)):
            one, two = runs[small], runs[large]
            high = min(one["loss"].iloc[0], two["loss"].iloc[0])
            low = max(one["loss"].min(), two["loss"].min())
            if len(one) < 2 or len(two) < 2 or not low < high:
                continue
            levels = np.linspace(high, low, LEVELS)
            first, second = (_read(run, levels) for run in (one, two))
            names = f"{one['run_id'].iloc[0]} {two['run_id'].iloc[0]}"
            rows.append(
                {
                    "run_id": names,
                    "stage": stage,
                    "window": window,
                    "seed": seed,
                    "small": small,
                    "large": large,
                    "value": float(np.mean(second - first)),
                    "loss_low": low,
                    "loss_high": high,
                }
            )
    columns = ["run_id", "stage", "window", "seed", "small", "large", "value", "loss_low", "loss_high"]
    return pd.DataFrame(rows, columns=columns)


def _read(run: pd.DataFrame, levels: np.ndarray) -> np.ndarray:
    steps, loss, alpha = (run[name].to_numpy(float) for name in ("step", "loss", "alpha"))
    return at_losses(steps, loss, alpha, levels)
