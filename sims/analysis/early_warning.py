"""Decide whether a signal is an early warning of grokking, and count what the published alarm does.

Sources: arXiv 2602.16746 and 2602.16967 (the alarm of the commutator defect).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from sims.analysis.alarm_rocs import Clock, alarm_rocs, scores_at, time_of
from sims.analysis.alarms import GROKS, Leave, controls_of, lead_of, outcomes, series_of
from sims.analysis.gain import DRAWS, Gain, signal_gain, wide_scores
from sims.analysis.resampling import holm
from sims.analysis.roc import RESAMPLES
from sims.analysis.verdicts import Verdict, require_columns
from sims.system.errors import MeasureError
from theory.decision import decide, side

# The published alarm: first looks of the base, least base, factor, and least value.
FIRST_LOOKS = 3
LEAST_BASE = 0.1
FACTOR = 10.0
LEAST_DEFECT = 20.0
# The rule: bound of the AUC, runs of each class and control type, level of the gain.
BOUND = 0.7
LEAST_RUNS = 8
# More runs are not asked for.
MOST_RUNS = 500
SIGNIFICANT = 0.05
# Columns of `alarm_rocs` that the rule reads.
NEEDED = (
    *("clock", "time", "signal", "control", "positives", "negatives"),
    *("low", "high", "others_low", "others_high", "direction", "status"),
)


def early_warning(rocs: pd.DataFrame, gain: Gain) -> Verdict:
    """Say whether a signal, read at one time, is an early warning.

    Shown if against every type of control, with at least eight runs that grok and eight controls of the type, the lower
    bound of the AUC with the direction of other runs lies above 0.7, and the gain beyond the baselines has p < 0.05.
    Not shown if against one type of that many runs the AUC of the raw signal lies between 0.3 and 0.7 with its whole
    interval (in neither direction it is larger), or if the signal is larger than in one type of control and smaller
    than in another one, so that no threshold warns of both; not resolved otherwise. An AUC with the direction of other
    runs does not refute: where a signal knows nothing it lies below 0.5, far below in a few runs. All controls pooled
    do not count: a signal may separate them only because one type is easy.

    Args:
        rocs: rows of `sims.analysis.alarm_rocs.alarm_rocs` of one clock, time and signal, fixed beforehand.
        gain: of `sims.analysis.gain.signal_gain` for the same signal and time.

    Raises:
        MeasureError: several signals or times, or a gain of another signal.
    """
    require_columns(rocs, NEEDED)
    kinds = rocs[["clock", "time", "signal"]].drop_duplicates()
    if len(kinds) != 1:
        raise MeasureError(
            f"the table has {len(kinds)} signals and times; pass the rows of one that was fixed beforehand"
        )
    clock, time, signal = kinds.iloc[0]
    if signal != gain.signal:
        raise MeasureError(
            f"the areas are those of {signal}, and the gain that of {gain.signal}; pass one signal"
        )
    claim = f"{signal}, read {time_of(clock, time)}, is an early warning of grokking"
    types = rocs[rocs["control"] != "all"]
    if types.empty:
        return Verdict(claim, "not resolved", "there are no controls that do not grok; train some")
    passing, failing, lacking = _by_outcome(types)
    sides = {row["direction"] for row in types.to_dict("records") if _passes(row)}
    if len(sides) > 1:
        reason = (
            "it is larger than in some types of control and smaller than in others: no threshold warns of all"
        )
        return Verdict(claim, "not shown", reason)
    if failing:
        return Verdict(
            claim, "not shown", f"the area is below {BOUND} in both directions against {'; '.join(failing)}"
        )
    if lacking:
        return Verdict(
            claim, "not resolved", f"it is not above {BOUND} for sure against {'; '.join(lacking)}"
        )
    if gain.status != "ok":
        return Verdict(claim, "not resolved", f"the gain beyond the baselines: {gain.reason}")
    if not gain.p < SIGNIFICANT:
        return Verdict(claim, "not resolved", gain.sentence.rstrip("."))
    return Verdict(claim, "shown", f"{'; '.join(passing)}; {gain.sentence.rstrip('.')}")


@dataclass(frozen=True, eq=False)
class Warnings:
    """Hold what several signals know at one time.

    Attributes:
        rocs: of `sims.analysis.alarm_rocs.alarm_rocs`.
        gains: rows of `sims.analysis.gain.Gain`, with p_holm, adjusted for the number of signals.
        verdicts: one row a signal: signal, claim, outcome, reason. A signal is judged by its own p; of many signals,
            look at p_holm too.
    """

    rocs: pd.DataFrame
    gains: pd.DataFrame
    verdicts: pd.DataFrame


def early_warnings(
    looks: pd.DataFrame,
    signals: Sequence[str],
    baselines: Sequence[str],
    time: float,
    *,
    clock: Clock = "memorised",
    leave: Leave = "run",
    draws: int = DRAWS,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Warnings:
    """Apply the rule to several signals at one time that was fixed beforehand.

    Args:
        looks: see `sims.analysis.alarms`; with a column for each signal and baseline.
        signals: columns.
        baselines: columns; a signal that is one of them is compared with the others.
        time, clock: as in `sims.analysis.alarm_rocs.scores_at`.
        leave: as in `sims.analysis.alarm_rocs.alarm_rocs`.
        draws, resamples, seed: of the permutations and the bootstrap.

    Raises:
        MeasureError: as the functions that it calls, or no signals.
    """
    if not signals:
        raise MeasureError("there are no signals; name at least one column")
    names = list(dict.fromkeys([*signals, *baselines]))
    scores = scores_at(looks, names, [time], clock=clock)
    own = scores[scores["signal"].isin(list(signals))]
    rocs = alarm_rocs(own, leave=leave, resamples=resamples, seed=seed)
    gains, verdicts = [], []
    for signal in signals:
        gains.append(gain_at(scores, signal, baselines, draws=draws, seed=seed))
        verdicts.append({"signal": signal, **early_warning(rocs[rocs["signal"] == signal], gains[-1]).row()})
    table = pd.DataFrame([gain.row() for gain in gains])
    return Warnings(rocs, table.assign(p_holm=holm(table["p"].to_numpy(float))), pd.DataFrame(verdicts))


def gain_at(
    scores: pd.DataFrame, signal: str, baselines: Sequence[str], *, draws: int = DRAWS, seed: int = 0
) -> Gain:
    """Return what a signal adds to the baselines (`signal_gain`), not resolved where no run has one of them.

    Args:
        scores: rows of `sims.analysis.alarm_rocs.scores_at` of one clock and time.
        signal, baselines: among its signals; the signal itself is no baseline.
        draws, seed: of the permutations.

    Raises:
        MeasureError: as `signal_gain`, or several times.
    """
    others = [name for name in baselines if name != signal]
    wide = wide_scores(scores[scores["signal"].isin([signal, *others])])
    absent = [name for name in (signal, *others) if name not in wide.columns]
    if absent:
        clock, time = scores[["clock", "time"]].iloc[0]
        reason = f"no run that counts has {', '.join(absent)} {time_of(clock, time)}"
        return Gain(signal, 0, 0, status="not resolved", reason=reason)
    return signal_gain(wide, signal, others, draws=draws, seed=seed)


def _by_outcome(types: pd.DataFrame) -> tuple[list[str], list[str], list[str]]:
    """Say against which types of control the area is above 0.7, is not in either direction, and cannot be told."""
    passing, failing, lacking = list[str](), list[str](), list[str]()
    # By what they lack: the same is said once for all of them.
    without: dict[str, list[str]] = {}
    for row in types.to_dict("records"):
        text = _told(row)
        few = _missing(row)
        if few or row["status"] != "ok":
            without.setdefault(few or row["reason"], []).append(row["control"])
        elif _passes(row):
            passing.append(text)
        elif decide(row["low"], row["high"], 1 - BOUND, BOUND) == "inside":
            failing.append(text)
        else:
            lacking.append(text + _needed(row))
    lacking += [f"{', '.join(controls)}: {why}" for why, controls in without.items()]
    return passing, failing, lacking


def _passes(row: Mapping) -> bool:
    certain = side(row["others_low"], row["others_high"], BOUND) > 0
    return row["status"] == "ok" and not _missing(row) and certain


def _told(row: Mapping) -> str:
    return (
        f"{row['control']} (area {row['auc_others']:.2f} [{row['others_low']:.2f}, {row['others_high']:.2f}])"
    )


def _missing(row: Mapping) -> str:
    """Return how many more runs a type of control needs; empty where it has enough."""
    short = [
        f"{LEAST_RUNS - n} more {name} (there are {n})"
        for name, n in (("runs that grok", row["positives"]), ("controls", row["negatives"]))
        if n < LEAST_RUNS
    ]
    return "needs " + " and ".join(short) if short else ""


def _needed(row: Mapping) -> str:
    """Return how many runs of each class would bring the bound to 0.7, if the area stayed as it is."""
    auc, runs = row["auc_others"], min(row["positives"], row["negatives"])
    if not auc > BOUND:
        return ""
    times = ((auc - row["others_low"]) / (auc - BOUND)) ** 2
    needed = math.ceil(runs * times)
    return f", {needed} runs of each class would decide if it stayed" if needed <= MOST_RUNS else ""


def published_alarms(looks: pd.DataFrame, signal: str = "defect") -> pd.DataFrame:
    """Apply the published alarm rule to each run.

    base = max(median of the first three looks, 0.1); the alarm is the first look from the third on with a value above
    10·base and above 20. Looks without the signal do not count for it. The rule knows no other run.

    Args:
        looks: see `sims.analysis.alarms`.
        signal: the column, the commutator defect.

    Returns:
        One row a run that groks, or is a control that does not: run, group, kind, t_mem, t_90, base, alarm (step, NaN
        without), lead (of runs that grok, 0 if missed or late; NaN for controls), status, reason (fewer than three
        looks, or one of the first three is not finite).

    Raises:
        MeasureError: as `sims.analysis.alarms.outcomes`.
    """
    require_columns(looks, [signal])
    found = outcomes(looks)
    grok = (found["outcome"] == GROKS) & (found["control"] == "")
    found = found.assign(kind=controls_of(found).where(~grok, GROKS)).dropna(subset=["kind"])
    series = series_of(looks, signal)
    rows = []
    for record in found.to_dict("records"):
        base, alarm, reason = _published(*series[record["run"]])
        lead = math.nan if reason or record["kind"] != GROKS else lead_of(alarm, record["t_90"])
        head = {name: record[name] for name in ("run", "group", "kind", "t_mem", "t_90")}
        status = "not resolved" if reason else "ok"
        rows.append({**head, "base": base, "alarm": alarm, "lead": lead, "status": status, "reason": reason})
    names = ["run", "group", "kind", "t_mem", "t_90", "base", "alarm", "lead", "status", "reason"]
    return pd.DataFrame(rows, columns=names)


def _published(steps: np.ndarray, values: np.ndarray) -> tuple[float, float, str]:
    if len(values) < FIRST_LOOKS or not np.isfinite(values[:FIRST_LOOKS]).all():
        return math.nan, math.nan, f"the rule needs the first {FIRST_LOOKS} looks, with finite values"
    base = max(float(np.median(values[:FIRST_LOOKS])), LEAST_BASE)
    hits = np.flatnonzero((values > FACTOR * base) & (values > LEAST_DEFECT))
    hits = hits[hits >= FIRST_LOOKS - 1]
    return base, float(steps[hits[0]]) if hits.size else math.nan, ""


def alarm_confusion(found: pd.DataFrame) -> pd.DataFrame:
    """Count hits and false alarms of `published_alarms` or `sims.analysis.alarms.alarms`, by type of control.

    An alarm of a run that grokked counts if it comes before t_0.9; `late` are those that do not, part of `fn`.

    Returns:
        One row a type of control, and "all": control, tp, fn, fp, tn, late, left_out (runs without a threshold),
        sensitivity, specificity, balanced (their mean), low, high (95 %: Wilson intervals of both, combined), status,
        reason, sentence. Without runs of one class there is no balanced accuracy, and the row is not resolved.
    """
    grok, rows = found[found["kind"] == GROKS], []
    for control in [*sorted(set(found["kind"]) - {GROKS}), "all"]:
        other = found[(found["kind"] != GROKS) if control == "all" else (found["kind"] == control)]
        left = int((grok["status"] != "ok").sum() + (other["status"] != "ok").sum())
        hit, false = grok[grok["status"] == "ok"], other[other["status"] == "ok"]
        tp, late = int((hit["lead"] > 0).sum()), int((hit["alarm"].notna() & ~(hit["lead"] > 0)).sum())
        fp = int(false["alarm"].notna().sum())
        fn, tn = len(hit) - tp, len(false) - fp
        row: dict[str, Any] = {
            "control": control,
            "tp": tp,
            "fn": fn,
            "fp": fp,
            "tn": tn,
            "late": late,
            "left_out": left,
        }
        row |= _balanced(tp, fn, fp, tn)
        rows.append({**row, "sentence": _confusion_sentence(row)})
    return pd.DataFrame(rows)


def _confusion_sentence(row: Mapping) -> str:
    if row["status"] != "ok":
        return f"Alarms against {row['control']} controls: not resolved ({row['reason']})."
    return (
        f"Against {row['control']} controls: {row['tp']} of {row['tp'] + row['fn']} runs that grok have an alarm "
        f"before, and {row['fp']} of {row['fp'] + row['tn']} controls; balanced accuracy {row['balanced']:.2f} "
        f"[{row['low']:.2f}, {row['high']:.2f}]."
    )


def _balanced(tp: int, fn: int, fp: int, tn: int) -> dict[str, object]:
    if not (tp + fn and fp + tn):
        lacking = "runs that grok" if not tp + fn else "controls"
        empty = dict.fromkeys(("sensitivity", "specificity", "balanced", "low", "high"), math.nan)
        return {**empty, "status": "not resolved", "reason": f"there are no {lacking}"}
    shares = np.array([tp / (tp + fn), tn / (fp + tn)])
    bounds = np.array([_wilson(tp, tp + fn), _wilson(tn, fp + tn)])
    balanced = float(shares.mean())
    low = balanced - float(np.sqrt(((shares - bounds[:, 0]) ** 2).sum()) / 2)
    high = balanced + float(np.sqrt(((bounds[:, 1] - shares) ** 2).sum()) / 2)
    return {
        "sensitivity": float(shares[0]),
        "specificity": float(shares[1]),
        "balanced": balanced,
        "low": low,
        "high": high,
        "status": "ok",
        "reason": "",
    }


def _wilson(hits: int, trials: int) -> tuple[float, float]:
    found = stats.binomtest(hits, trials).proportion_ci(method="wilson")
    return float(found.low), float(found.high)
