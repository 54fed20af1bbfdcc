"""Ask whether a signal separates the runs that grok from their controls at equal times before it (ROC curves).

The table of looks is that of `sims.analysis.alarms`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd

from sims.analysis.alarms import DIVERGED, GROKS, LABELS, NOT_DELAYED, Leave, controls_of, outcomes
from sims.analysis.roc import RESAMPLES, roc_auc
from sims.analysis.verdicts import require_columns
from sims.system.errors import MeasureError

Clock = Literal["step", "memorised"]

# A run counts as one that has not generalised yet below this test accuracy.
BELOW = 0.1


def scores_at(
    looks: pd.DataFrame, signals: Sequence[str], times: Sequence[float], *, clock: Clock = "memorised"
) -> pd.DataFrame:
    """Read signals at equal times, of the runs that have not generalised by then.

    Args:
        looks: see `sims.analysis.alarms`.
        signals: columns.
        times: steps, or steps after memorisation.
        clock: "step" for equal step, "memorised" for equal time after t_mem. A run is read at its last look up to the
            time; one that ended before it is left out, as is one whose test accuracy there is 0.1 or more, or missing.

    Returns:
        One row for each time, run and signal: clock, time, run, group, control, outcome, step, signal, value, reason
        (why it is left out, and its value then NaN; "" otherwise).

    Raises:
        MeasureError: as `outcomes`, no signals or times, or an unknown clock.
    """
    if not (len(signals) and len(times)):
        raise MeasureError(
            f"there are {len(signals)} signals and {len(times)} times; name at least one of each"
        )
    require_columns(looks, signals)
    if clock not in get_args(Clock):
        raise MeasureError(f"clock is {clock!r}; choose {' or '.join(get_args(Clock))}")
    found = outcomes(looks)
    by_run = {run: own.sort_values("step") for run, own in looks.groupby("run")}
    rows: list[dict[str, Any]] = []
    for record in found.to_dict("records"):
        own = by_run[record["run"]]
        for time in times:
            row, reason = _look(own, record, time, clock)
            head = {"clock": clock, "time": time, **{name: record[name] for name in (*LABELS, "outcome")}}
            for signal in signals:
                value = math.nan if row is None else float(row[signal])
                why = reason or ("" if math.isfinite(value) else f"{signal} is missing or not finite")
                step = math.nan if row is None else float(row["step"])
                rows.append(
                    {
                        **head,
                        "step": step,
                        "signal": signal,
                        "value": math.nan if why else value,
                        "reason": why,
                    }
                )
    return pd.DataFrame(rows)


def _look(
    own: pd.DataFrame, record: dict[Any, Any], time: float, clock: Clock
) -> tuple[pd.Series | None, str]:
    """Return the last look up to a time, or why there is none to be read."""
    if clock == "memorised":
        if math.isnan(record["t_mem"]):
            return None, "the run never memorises"
        time = record["t_mem"] + time
    if record["outcome"] in (DIVERGED, NOT_DELAYED):
        return None, f"the run is {record['outcome']}"
    if time > record["last"]:
        return None, "the run ends before"
    upto = own[own["step"] <= time]
    if upto.empty:
        return None, "the run was not looked at before"
    row = upto.iloc[-1]
    if not row["test"] < BELOW:
        return None, "its test accuracy is " + ("missing" if math.isnan(row["test"]) else f"{BELOW} or more")
    return row, ""


def alarm_rocs(
    scores: pd.DataFrame, *, leave: Leave = "run", resamples: int = RESAMPLES, seed: int = 0
) -> pd.DataFrame:
    """Compare the runs that grok with each type of control, and with all of them, at each time and for each signal.

    `auc` is that of the raw signal: above 0.5, it is larger before grokking, and below, smaller. `auc_others` is that
    of the score s_i·(x_i − median), s_i the direction that the other runs show: without a difference it lies somewhat
    below 0.5, and if the direction is not the same among the runs, far below.

    Args:
        scores: the result of `scores_at`.
        leave: "run" takes the direction of a run from all others of the comparison; "group" from those of other
            groups, which a claim of transfer needs.
        resamples, seed: of the bootstrap.

    Returns:
        One row for each clock, time, signal and control ("all" last): positives, negatives, left_out (runs), auc, low,
        high, boot_low, boot_high, direction (of all runs), auc_others, others_low (the smaller bound of both
        intervals), others_high, status, reason, sentence.
    """
    if leave not in get_args(Leave):
        raise MeasureError(f"leave is {leave!r}; choose {' or '.join(get_args(Leave))}")
    rows = []
    for (clock, time, signal), own in scores.groupby(["clock", "time", "signal"], sort=False):
        kinds = controls_of(own)
        for control in [*sorted(set(kinds.dropna())), "all"]:
            chosen = own[(own["outcome"] == GROKS) & (own["control"] == "")]
            other = own[kinds.notna() if control == "all" else kinds == control]
            both = pd.concat([chosen.assign(positive=True), other.assign(positive=False)])
            left = int((both["reason"] != "").sum())
            both = both[both["reason"] == ""]
            head = {"clock": clock, "time": time, "signal": signal, "control": control, "left_out": left}
            row = {**head, **_compared(both, leave, resamples, seed)}
            rows.append({**row, "sentence": _roc_sentence(row)})
    return pd.DataFrame(rows)


def time_of(clock: str, time: float) -> str:
    """Return a time of a clock in words."""
    return f"at step {time:g}" if clock == "step" else f"{time:g} steps after memorisation"


def _roc_sentence(row: dict[str, Any]) -> str:
    head = f"{row['signal']} {time_of(row['clock'], row['time'])}, against {row['control']} controls"
    if row["status"] != "ok":
        return f"{head}: not resolved ({row['reason']})."
    return (
        f"{head}: AUC {row['auc']:.2f} [{row['low']:.2f}, {row['high']:.2f}], with the direction of other runs "
        f"{row['auc_others']:.2f} [{row['others_low']:.2f}, {row['others_high']:.2f}] ({row['positives']} and "
        f"{row['negatives']} runs)."
    )


def _compared(both: pd.DataFrame, leave: Leave, resamples: int, seed: int) -> dict[str, object]:
    positive, values = both["positive"].to_numpy(bool), both["value"].to_numpy(float)
    whole = roc_auc(values[positive], values[~positive], resamples=resamples, seed=seed)
    row: dict[str, object] = {**whole.row(), "direction": math.nan}
    row |= {"auc_others": math.nan, "others_low": math.nan, "others_high": math.nan}
    if whole.status != "ok":
        return row
    folds = both[leave].to_numpy()
    directions = np.full(len(both), math.nan)
    for fold in pd.unique(folds):
        out = folds == fold
        directions[out] = _direction(values[~out & positive], values[~out & ~positive])
    if np.isnan(directions).any():
        reason = f"without one {leave}, the others have one class only, and show no direction"
        return {**row, "status": "not resolved", "reason": reason}
    scores = directions * (values - np.median(values))
    others = roc_auc(scores[positive], scores[~positive], resamples=resamples, seed=seed)
    return {
        **row,
        "direction": _direction(values[positive], values[~positive]),
        "auc_others": others.auc,
        "others_low": others.lowest,
        "others_high": max(others.high, others.boot_high),
    }


def _direction(positive: np.ndarray, negative: np.ndarray) -> float:
    """Return 1 where the first class is larger, −1 where it is smaller, 0 for neither; NaN without one of them."""
    if not (len(positive) and len(negative)):
        return math.nan
    return float(np.sign(np.sign(positive[:, None] - negative[None, :]).sum()))
