"""Gains of consecutive records of a speed-run, from their training logs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from sims.analysis.cells import at_losses, common_loss, crossing, loss_levels
from sims.analysis.intervals import student
from sims.analysis.ranges import GAIN
from sims.analysis.taxonomy import CANNOT_TELL, Evidence, Thresholds, outcome_label, point_label
from sims.studies.speedruns.folder import TrainingLogs
from sims.studies.speedruns.target import TARGET
from sims.system.errors import MeasureError

# Runs of one record whose step times differ by more were run with other code or machines, not only other seeds.
SAME_SPEED = 0.01


@dataclass(frozen=True)
class Spread:
    """Spread between runs of one record.

    Attributes:
        tokens: standard deviation of ln(tokens to a loss), pooled over records; NaN if no record has two runs.
        throughput: the same for ln(tokens per second), of runs timed together, which excludes changes of the machine.
        freedom: degrees of freedom of both.
        records: the records used.
    """

    tokens: float
    throughput: float
    freedom: int
    records: tuple[int, ...]

    def around(self, ratio: float, deviation: float) -> Evidence:
        """Return ratio − 1 of two single runs with its 95 % interval from the spread between runs."""
        if not (self.freedom and math.isfinite(ratio)):
            return Evidence(ratio - 1, math.nan, math.nan)
        # To first order, the standard deviation of the ratio of two runs is that of its logarithm times the ratio.
        half = student(self.freedom) * math.sqrt(2) * deviation * ratio
        return Evidence(ratio - 1, *GAIN.interval(ratio - 1, half))


def record_table(logs: TrainingLogs, target: float = TARGET) -> pd.DataFrame:
    """Return one row per record, including numbers without a log.

    Args:
        target: validation loss in nats.

    Returns:
        record, name and file (of its run 0), date, change, status, reason, steps, tokens, val_loss (the last),
        tokens_to_target, seconds_to_target and steps_to_target (linear in the loss between the two evaluations around
        the first passage), bracket (tokens between those two), step_avg_ms (at the end), tokens_per_second and
        tokens_from. NaN and a reason if a log is missing, has no times, or never reaches the target.
    """
    counted = {int(row["record"]): row for row in logs.runs.to_dict("records") if row["run"] == 0}
    listed = set(logs.runs["record"])
    missing = {True: "has runs, but no run 0, the one that counts", False: "no log"}
    numbers = range(min(listed), max(listed) + 1)
    return pd.DataFrame(
        [
            _record(logs, counted.get(n), n, target)
            | ({} if n in counted else {"reason": missing[n in listed]})
            for n in numbers
        ]
    )


def run_spread(logs: TrainingLogs) -> Spread:
    """Estimate the spread between runs, pooled over records with several complete runs of equal speed.

    Within a record, tokens are counted to the lowest loss that all of its runs reach.
    """
    squares, freedom, used = np.zeros(2), 0, []
    usable = logs.runs[logs.runs["status"] == "whole"]
    for record, own in usable.groupby("record", sort=True):
        curves = [logs.curve(name) for name in own["name"]]
        if len(curves) < 2 or any(c.empty or c["tokens"].isna().any() for c in curves):
            continue
        speeds = np.array([float(c["step_avg_ms"].iloc[-1]) for c in curves])
        if not speeds.max() <= speeds.min() * (1 + SAME_SPEED):
            continue
        level = common_loss(curves)
        tokens = np.array([crossing(c, level) for c in curves])
        if not (tokens > 0).all():
            continue
        squares += [np.var(np.log(values)) * len(curves) for values in (tokens, speeds)]
        freedom += len(curves) - 1
        used.append(int(str(record)))
    deviations = np.sqrt(squares / freedom) if freedom else np.full(2, math.nan)
    return Spread(float(deviations[0]), float(deviations[1]), freedom, tuple(used))


def record_gains(
    logs: TrainingLogs, target: float = TARGET, limits: Thresholds | None = None
) -> pd.DataFrame:
    """Return token and throughput gain of each record over the previous one, and the outcome.

    A record without a log gives two rows without gains, and one row from its predecessor to its successor.

    Args:
        target: validation loss in nats at which tokens are compared.
        limits: thresholds of the labels; None for the defaults of `Thresholds`.

    Returns:
        before, after, change, token_gain (tokens to the target, before/after − 1), proximal (mean gain over common loss
        quantiles), throughput_gain (tokens per second, after/before − 1), token_gain and throughput_gain with …_low and
        …_high (95 %, from `run_spread`; every record is a single run), outcome (from the point estimates), settled
        (from the intervals: "cannot tell" if one contains a threshold), reason (what is missing).
    """
    table = record_table(logs, target)
    spread = run_spread(logs)
    rows = {int(row["record"]): row for row in table.to_dict("records")}
    read = [n for n, row in rows.items() if row["name"] and math.isfinite(row["val_loss"])]
    pairs = list(pairwise(rows)) + [(a, b) for a, b in pairwise(read) if b > a + 1]
    found = [_transition(logs, rows, pair, spread, limits) for pair in sorted(pairs)]
    return pd.DataFrame(found, columns=list(_GAINS))


def _record(logs: TrainingLogs, run: Mapping[Any, Any] | None, number: int, target: float) -> dict[str, Any]:
    found: dict[str, Any] = {
        "record": number,
        "name": "",
        "file": "",
        "date": "",
        "change": "",
        "status": "missing",
        "reason": "",
        "steps": None,
        "tokens_from": "",
        **dict.fromkeys(_MEASURED, math.nan),
    }
    if run is None:
        return found
    found |= {
        name: run[name] for name in ("name", "file", "date", "change", "status", "reason", "tokens_from")
    }
    curve = logs.curve(run["name"])
    if curve.empty:
        return found
    reasons = [run["reason"]] if run["reason"] else []
    losses, tokens = curve["value"].to_numpy(float), curve["tokens"].to_numpy(float)
    steps = curve["step"].to_numpy(float)
    values = np.column_stack([tokens, curve["seconds"].to_numpy(float), steps])
    reached = at_losses(steps, losses, values, np.array([target]))[0]
    passed = int(np.argmax(losses <= target))
    average = curve["step_avg_ms"].dropna()
    step_ms = float(average.iloc[-1]) if len(average) else math.nan
    if math.isnan(step_ms):
        reasons.append("no times")
    if math.isnan(tokens[-1]):
        shown = f" (found: {run['tokens_from']})" if run["tokens_from"] else ""
        reasons.append(f"tokens a step are not known{shown}")
    if not losses.min() <= target:
        reasons.append(f"never reaches {target:g}")
    elif losses[0] < target:
        reasons.append(f"starts below {target:g}")
    return found | {
        "reason": "; ".join(reasons),
        "steps": int(curve["step"].iloc[-1]),
        "tokens": tokens[-1],
        "val_loss": losses[-1],
        "tokens_to_target": reached[0],
        "seconds_to_target": reached[1],
        "steps_to_target": reached[2],
        "bracket": tokens[passed] - tokens[passed - 1] if math.isfinite(reached[0]) and passed else math.nan,
        "step_avg_ms": step_ms,
        "tokens_per_second": (run["tokens_per_step"] or math.nan) / step_ms * 1e3,
    }


_GAINS = (
    *("before", "after", "change", "token_gain", "token_gain_low", "token_gain_high", "proximal"),
    *("throughput_gain", "throughput_gain_low", "throughput_gain_high", "outcome", "settled", "reason"),
)
_MEASURED = (
    *("tokens", "val_loss", "tokens_to_target", "seconds_to_target", "steps_to_target"),
    *("bracket", "step_avg_ms", "tokens_per_second"),
)


def _transition(
    logs: TrainingLogs,
    rows: Mapping[int, Mapping[Any, Any]],
    pair: tuple[int, int],
    spread: Spread,
    limits: Thresholds | None,
) -> dict[str, Any]:
    before, after = (rows[n] for n in pair)
    reasons = [f"record {r['record']}: {r['reason']}" for r in (before, after) if r["reason"]]
    if pair[1] > pair[0] + 1:
        reasons.append("across " + ", ".join(f"record {n}" for n in range(pair[0] + 1, pair[1])))
    cost, speed = (
        "tokens",
        {name: row["tokens_per_second"] for name, row in (("before", before), ("after", after))},
    )
    # Batches that are set alike are equal, whatever their size: steps stand for tokens.
    if (
        math.isnan(before["tokens"])
        and before["tokens_from"]
        and before["tokens_from"] == after["tokens_from"]
    ):
        cost, speed = (
            "step",
            {name: 1 / row["step_avg_ms"] for name, row in (("before", before), ("after", after))},
        )
        reasons.append(f"batches are set alike ({before['tokens_from']}): gains are of steps")
    to_target = "tokens_to_target" if cost == "tokens" else "steps_to_target"
    token = spread.around(before[to_target] / after[to_target], spread.tokens)
    throughput = spread.around(speed["after"] / speed["before"], spread.throughput)
    measured = before["name"] and after["name"]
    return {
        "before": pair[0],
        "after": pair[1],
        "change": after["change"],
        "token_gain": token.value,
        "token_gain_low": token.low,
        "token_gain_high": token.high,
        "proximal": _proximal(logs, before["name"], after["name"], cost) if measured else math.nan,
        "throughput_gain": throughput.value,
        "throughput_gain_low": throughput.low,
        "throughput_gain_high": throughput.high,
        "outcome": point_label(token.value, throughput.value, limits),
        "settled": outcome_label(token, throughput, limits) if spread.freedom else CANNOT_TELL,
        "reason": "; ".join(reasons),
    }


def _proximal(logs: TrainingLogs, before: str, after: str, cost: str) -> float:
    """Return the mean gain of tokens (or steps) over common loss quantiles; NaN without common losses or tokens."""
    curves = [logs.curve(name) for name in (before, after)]
    if cost != "tokens":
        curves = [curve.assign(tokens=curve[cost]) for curve in curves]
    if any(c.empty or c["tokens"].isna().any() for c in curves):
        return math.nan
    try:
        levels = loss_levels(curves)
    except MeasureError:
        return math.nan
    return float(np.mean([crossing(curves[0], v) / crossing(curves[1], v) - 1 for v in levels]))
