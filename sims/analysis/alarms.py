"""Ask whether a signal warns of late generalisation (grokking) before it happens, against controls.

Every function takes one row a look: run, group (such as the operation that is learnt), control ("" for the runs that
are meant to generalise, else the type of control), step, train and test (accuracies), and a column for each signal. No
threshold, direction or outcome of a run enters its own prediction.

Source of the published alarm: arXiv 2602.16746 and 2602.16967.
"""

from __future__ import annotations

import math
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd

from sims.analysis.conformal import largest_held
from sims.analysis.grokking import timing
from sims.analysis.resampling import LEAST_SEEDS
from sims.analysis.roc import RESAMPLES, clopper_pearson
from sims.analysis.verdicts import require_columns, require_labels
from sims.system.errors import MeasureError

Leave = Literal["run", "group"]

LABELS = ("run", "group", "control")
GROKS, NOT_DELAYED, NEVER, DIVERGED = "groks", "not delayed", "does not grok", "diverged"
# Runs that were meant to generalise and did not make a class of controls of this name.
FAILED = "did not grok"
BUDGET = 0.1


def outcomes(looks: pd.DataFrame) -> pd.DataFrame:
    """Return when each run memorises and generalises, and whether it groks.

    The times are those of `sims.analysis.grokking.timing`; a run groks if its generalisation is delayed. Looks without
    both accuracies are left out.

    Returns:
        One row a run: run, group, control, looks, last (its last step), t_mem, t_10, t_50, t_90 (NaN where never),
        outcome: "groks", "not delayed" (it generalises, but not late), "diverged" (its last look has no finite
        accuracy, and 0.9 was not reached before), or "does not grok" within its looks.

    Raises:
        MeasureError: a column is missing, a look has no run or step, a run has two groups or controls, or two looks at
            a step, or an accuracy outside [0, 1].
    """
    _check(looks)
    rows = []
    for run, own in looks.sort_values("step").groupby("run", sort=False):
        known = own[np.isfinite(own[["train", "test"]].to_numpy(float)).all(axis=1)]
        found = timing(
            known["step"].to_numpy(), known["train"].to_numpy(float), known["test"].to_numpy(float)
        )
        times = {f"t_{round(100 * q)}": math.nan if t is None else float(t) for q, t in found.reached.items()}
        t_mem = math.nan if found.memorised is None else float(found.memorised)
        outcome = GROKS if found.delayed else NEVER if math.isnan(times["t_90"]) else NOT_DELAYED
        last = float(own["step"].iloc[-1])
        if outcome == NEVER and (known.empty or float(known["step"].iloc[-1]) < last):
            outcome = DIVERGED
        head = {"run": run, **{name: own[name].iloc[0] for name in LABELS[1:]}}
        rows.append({**head, "looks": len(own), "last": last, "t_mem": t_mem, **times, "outcome": outcome})
    return pd.DataFrame(rows)


def controls_of(runs: pd.DataFrame) -> pd.Series:
    """Return the type of control of each row: None for runs that grok, that generalise at once, or that diverged."""
    failed = runs["outcome"] == NEVER
    named = runs["control"].where(runs["control"] != "", FAILED)
    return named.where(failed, None)


def alarms(looks: pd.DataFrame, signal: str, *, leave: Leave = "run", budget: float = BUDGET) -> pd.DataFrame:
    """Give each run an alarm whose threshold and direction come from other runs.

    The alarm is the second of two looks in a row at which the signal lies beyond the threshold; looks without the
    signal do not count for it, and for the times of a run all do. In each direction the threshold is the smallest at
    which at most 10 % of the other controls have an alarm anywhere in their whole run; the direction is
    that with the larger mean lead among the other runs that grok (a run without an alarm before t_0.9 has lead 0).

    Args:
        looks: see the module.
        signal: the column.
        leave: "run", or "group" for thresholds from other groups.
        budget: share of control runs that may have an alarm.

    Returns:
        One row a run that groks, or is a control that does not: run, group, kind ("groks" or the type of control),
        t_mem, t_90, direction, threshold, alarm (step, NaN without), lead (t_90 − alarm of runs that grok, 0 if
        missed; NaN for controls), status, reason (no threshold: the others have no control, or no run that groks; or
        fewer than two looks have the signal).

    Raises:
        MeasureError: as `outcomes`, or a budget outside [0, 1).
    """
    require_columns(looks, [signal])
    if leave not in get_args(Leave) or not 0 <= budget < 1:
        raise MeasureError(
            f"leave is {leave!r} and budget {budget:g}; choose {' or '.join(get_args(Leave))}, and a budget in [0, 1)"
        )
    found = outcomes(looks)
    kinds = controls_of(found)
    grok = (found["outcome"] == GROKS) & (found["control"] == "")
    found = found.assign(kind=kinds.where(~grok, GROKS)).dropna(subset=["kind"])
    series = series_of(looks, signal)
    known = {run for run, (steps, _) in series.items() if len(steps) > 1}
    usable = found[found["run"].isin(known)]
    rows = []
    chosen: dict[Any, tuple[float, float, str]] = {}
    for record in found.to_dict("records"):
        fold = record[leave]
        if fold not in chosen:
            chosen[fold] = _rule(usable[usable[leave] != fold], series, budget)
        direction, threshold, reason = chosen[fold]
        if record["run"] not in known:
            reason = f"{signal} was measured at fewer than two looks"
        alarm = _alarm(*series[record["run"]], direction, threshold)
        head = {name: record[name] for name in ("run", "group", "kind", "t_mem", "t_90")}
        lead = lead_of(alarm, record["t_90"]) if record["kind"] == GROKS and not reason else math.nan
        status = "not resolved" if reason else "ok"
        rows.append(
            {**head, "direction": direction, "threshold": threshold, "alarm": alarm, "lead": lead}
            | {"status": status, "reason": reason}
        )
    names = [
        "run",
        "group",
        "kind",
        "t_mem",
        "t_90",
        "direction",
        "threshold",
        "alarm",
        "lead",
        "status",
        "reason",
    ]
    return pd.DataFrame(rows, columns=names)


def series_of(looks: pd.DataFrame, signal: str) -> dict[Any, tuple[np.ndarray, np.ndarray]]:
    """Return the steps and the values of a signal by run, in the order of steps; looks without it are left out."""
    found = {}
    for run, own in looks.sort_values("step").groupby("run"):
        own = own.dropna(subset=[signal])
        found[run] = own["step"].to_numpy(float), own[signal].to_numpy(float)
    return found


def lead_of(alarm: float, t_90: float) -> float:
    """Return t_0.9 − alarm, and 0 for an alarm that is missing or late."""
    return max(t_90 - alarm, 0.0) if math.isfinite(alarm) else 0.0


def _rule(
    others: pd.DataFrame, series: dict[Any, tuple[np.ndarray, np.ndarray]], budget: float
) -> tuple[float, float, str]:
    """Return direction and threshold of an alarm from some runs, or why there is none."""
    grok = others[others["kind"] == GROKS]
    controls = others.loc[others["kind"] != GROKS, "run"]
    if grok.empty or controls.empty:
        lacking = "that grok" if grok.empty else "of controls"
        return math.nan, math.nan, f"there are no other runs {lacking}"
    best = (-math.inf, 1.0, math.nan)
    for direction in (1.0, -1.0):
        # An alarm needs a threshold below both of two looks in a row.
        tops = sorted(largest_held(direction * series[run][1]) for run in controls)
        threshold = tops[math.ceil((1 - budget) * len(tops) - 1e-9) - 1]
        leads = [
            lead_of(_alarm(*series[run], direction, direction * threshold), t_90)
            for run, t_90 in zip(grok["run"], grok["t_90"], strict=True)
        ]
        best = max(best, (float(np.mean(leads)), direction, direction * threshold), key=lambda b: b[0])
    return best[1], best[2], ""


def _alarm(steps: np.ndarray, values: np.ndarray, direction: float, threshold: float) -> float:
    """Return the step of the second of two looks in a row beyond the threshold; NaN without."""
    beyond = direction * values > direction * threshold
    hits = np.flatnonzero(beyond[1:] & beyond[:-1])
    return float(steps[hits[0] + 1]) if hits.size else math.nan


def lead_summary(found: pd.DataFrame, *, resamples: int = RESAMPLES, seed: int = 0) -> pd.DataFrame:
    """Summarise alarms: lead times of the runs that grok, and false alarms of each type of control.

    Args:
        found: the result of `alarms` or `published_alarms`.
        resamples, seed: of the bootstrap over runs.

    Returns:
        One row a kind ("groks", each type of control, "all" controls): runs, alarms (of runs that grok, those before
        t_0.9), share with its exact 95 % interval share_low, share_high; for "groks" median_lead with median_low,
        median_high (95 % bootstrap; NaN with fewer than three runs), lead_10, lead_90 (missed runs count as 0), status,
        reason (NaN and not resolved where no run has a threshold), sentence.
    """
    rows = []
    kinds = [GROKS, *sorted(set(found["kind"]) - {GROKS}), "all"]
    for kind in kinds:
        own = found[(found["kind"] != GROKS) if kind == "all" else (found["kind"] == kind)]
        told = own.loc[own["status"] != "ok", "reason"]
        own = own[own["status"] == "ok"]
        head = {"kind": kind, "runs": len(own)}
        if own.empty:
            reason = told.iloc[0] if len(told) else "there are no such runs"
            told = f"Alarms of {kind}: not resolved ({reason})."
            rows.append({**head, "alarms": 0, "status": "not resolved", "reason": reason, "sentence": told})
            continue
        lead = own["lead"].to_numpy(float)
        hits = int((lead > 0).sum() if kind == GROKS else own["alarm"].notna().sum())
        low, high = clopper_pearson(hits, len(own))
        row = {**head, "alarms": hits, "share": hits / len(own), "share_low": low, "share_high": high}
        if kind == GROKS:
            drawn = np.random.default_rng(seed).integers(len(lead), size=(resamples, len(lead)))
            low, high = np.quantile(np.median(lead[drawn], axis=1), [0.025, 0.975])
            if len(lead) < LEAST_SEEDS:
                low = high = math.nan
            row |= {"median_lead": float(np.median(lead)), "median_low": low, "median_high": high}
            row |= {"lead_10": float(np.quantile(lead, 0.1)), "lead_90": float(np.quantile(lead, 0.9))}
        rows.append({**row, "status": "ok", "reason": "", "sentence": _lead_sentence(row)})
    names = [
        "kind",
        "runs",
        "alarms",
        "share",
        "share_low",
        "share_high",
        "median_lead",
        "median_low",
        "median_high",
    ]
    names += ["lead_10", "lead_90", "status", "reason", "sentence"]
    return pd.DataFrame(rows, columns=names)


def _lead_sentence(row: dict[str, Any]) -> str:
    told = f"{row['alarms']} of {row['runs']}"
    if row["kind"] != GROKS:
        return f"False alarms: {told} controls ({row['kind']}) [{row['share_low']:.0%}, {row['share_high']:.0%}]."
    low, high = row["median_low"], row["median_high"]
    bounds = "" if math.isnan(low) else f" [{low:g}, {high:g}]"
    return (
        f"{told} runs that grok have an alarm before; median lead {row['median_lead']:g} steps{bounds}, 10 to 90 % "
        f"{row['lead_10']:g} to {row['lead_90']:g}."
    )


def _check(looks: pd.DataFrame) -> None:
    require_columns(looks, [*LABELS, "step", "train", "test"])
    require_labels(looks, ["run", "step"])
    if looks.empty:
        raise MeasureError("there are no looks; record accuracies of at least one run")
    if looks.duplicated(["run", "step"]).any():
        row = looks[looks.duplicated(["run", "step"])].iloc[0]
        raise MeasureError(f"run {row['run']} has two looks at step {row['step']}; leave out one of them")
    if looks[["group", "control"]].isna().to_numpy().any():
        raise MeasureError('a group or control is missing; the control of runs that are meant to grok is ""')
    for name in ("group", "control"):
        several = looks.groupby("run")[name].nunique()
        if (several > 1).any():
            raise MeasureError(
                f"run {several.idxmax()} has {several.max()} values of {name}; give each run one"
            )
