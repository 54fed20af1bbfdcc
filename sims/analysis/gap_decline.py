"""Ask whether the eigenvalue gap g23 = σ₂² − σ₃² of update windows declines towards grokking, more than in controls.

Sources: arXiv 2604.07380 and 2603.28964 (the decline). Weight decay and the end of learning make updates smaller, and
g23 with them, in runs that never grok too; hence the same measure on controls.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from sims.analysis.segmentation import DRAWS, LEAST_POINTS, segment
from sims.analysis.verdicts import Verdict, require_columns, require_labels
from sims.system.errors import MeasureError

NULL_DRAWS = 9_999
SIGNIFICANT = 0.05
# Grokking before this look leaves no early part.
FIRST_LOOK = 3
# Of each class: three and three have only 20 arrangements.
LEAST_RUNS = 4
GROKS = "groks"


@dataclass(frozen=True, eq=False)
class GapDecline:
    """Hold the decline of g23 in each run, and its comparison with each type of control.

    Attributes:
        runs: one row a run: run, kind, looks, t_90, decline (ln of its largest g23 up to t_0.9 over that at t_0.9; NaN
            for controls), changes (steps of changes of slope of ln g23 against ln step), falls_from (the step from
            which the slope is below 0 after a significant change; NaN without), status, reason.
        controls: one row a type of control: control, runs, falling (share of its runs that fall after a significant
            change), falling_groks (the same of the runs that grok), ratio (median over runs that grok of
            g23(early)/g23(t_0.9)), null_ratio (the same of controls, at the times of
            grokking), p.
        verdict: on the claim.
    """

    runs: pd.DataFrame
    controls: pd.DataFrame
    verdict: Verdict

    @property
    def sentence(self) -> str:
        """Return the verdict as one sentence."""
        return self.verdict.sentence


def gap_decline(
    looks: pd.DataFrame,
    *,
    value: str = "g23",
    null_draws: int = NULL_DRAWS,
    draws: int = DRAWS,
    seed: int = 0,
) -> GapDecline:
    """Compare the decline of g23 until grokking with that of controls until the same times.

    All runs are cut at the last step of the shortest, so that longer ones have no more time to decline. The statistic
    is the median over runs that grok of ln(largest g23 up to t_0.9 / g23 at t_0.9). Its null gives the times t_0.9 to
    as many runs at random, drawn from the runs that grok and the controls of a type together: exact if neither the
    classes nor the times have anything to do with g23. Shown if p < 0.05 against every type.

    Args:
        looks: one row a window, about W/2 updates apart: run, kind ("groks" or the type of control), step, t_90 (NaN
            for controls), g23.
        value: the column.
        null_draws: of the null; the smallest p-value is 1/(draws + 1).
        draws, seed: of the bootstrap of `sims.analysis.segmentation.segment`; the seed also of the null.

    Returns:
        `GapDecline`, not resolved with fewer than four runs that grok or four of a type of control.

    Raises:
        MeasureError: a missing column, two windows of a run at a step, or a run that groks without t_90.
    """
    require_columns(looks, ["run", "kind", "step", "t_90", value])
    require_labels(looks, ["run", "kind", "step"])
    if looks.empty or looks.duplicated(["run", "step"]).any():
        raise MeasureError(
            "there are no windows, or a run has two at a step; pass one group of parameters and one W"
        )
    end = float(looks.groupby("run")["step"].max().min())
    curves: dict[Any, tuple[np.ndarray, np.ndarray]] = {}
    rows = []
    for run, own in looks[looks["step"] <= end].sort_values("step").groupby("run", sort=False):
        kind, t_90 = str(own["kind"].iloc[0]), float(own["t_90"].iloc[0])
        if kind == GROKS and not math.isfinite(t_90):
            raise MeasureError(f"run {run} groks and has no t_90; give its step of 90 % test accuracy")
        row = {"run": run, "kind": kind, "looks": len(own), "t_90": t_90}
        row |= _one(own["step"].to_numpy(float), own[value].to_numpy(float), kind == GROKS, t_90, draws, seed)
        rows.append(row)
        if row["status"] == "ok":
            curves[run] = own["step"].to_numpy(float), _declines(np.log(own[value].to_numpy(float)))
    runs = pd.DataFrame(rows)
    good = runs[runs["status"] == "ok"]
    grok = good[good["kind"] == GROKS]
    kinds = sorted(set(runs["kind"]) - {GROKS})
    claim = "g23 declines more until grokking than in controls"
    lacking = [
        f"{k}: {n} runs" for k in (GROKS, *kinds) if (n := int((good["kind"] == k).sum())) < LEAST_RUNS
    ]
    if lacking or not kinds:
        told = [f"run {r['run']}: {r['reason']}" for r in rows if r["reason"]]
        reason = (
            "; ".join([*(lacking or ["there are no controls"]), *told[:1]]) + f"; {LEAST_RUNS} are needed"
        )
        return GapDecline(runs, pd.DataFrame(), Verdict(claim, "not resolved", reason))
    generator = np.random.default_rng(seed)
    controls = pd.DataFrame(
        [_against(kind, grok, good[good["kind"] == kind], curves, null_draws, generator) for kind in kinds]
    )
    told = "; ".join(
        f"{c['control']}: ratio {c['ratio']:.3g} against {c['null_ratio']:.3g} in controls, p = {c['p']:.3g}"
        for c in controls.to_dict("records")
    )
    shown = bool((controls["p"] < SIGNIFICANT).all())
    return GapDecline(runs, controls, Verdict(claim, "shown" if shown else "not shown", told))


def _one(
    steps: np.ndarray, values: np.ndarray, grok: bool, t_90: float, draws: int, seed: int
) -> dict[str, Any]:
    row: dict[str, Any] = {
        "decline": math.nan,
        "changes": (),
        "falls_from": math.nan,
        "status": "not resolved",
    }
    if len(steps) < LEAST_POINTS or steps[0] <= 0:
        return row | {"reason": f"{len(steps)} windows after step 0, and a segmentation needs {LEAST_POINTS}"}
    if not (np.isfinite(values).all() and (values > 0).all()):
        return row | {"reason": "g23 is not finite or not positive in a window"}
    if grok and not steps[FIRST_LOOK - 1] <= t_90 <= steps[-1]:
        return row | {
            "reason": f"t_90 = {t_90:g} is not between the third window and the end of the shortest run"
        }
    y = np.log(values)
    if grok:
        row["decline"] = float(_at(steps, _declines(y), np.array([t_90]))[0])
    if y.max() - y.min() > 1e-12:
        found = segment(np.log(steps), y, draws=draws, seed=seed)
        row["changes"] = tuple(float(c) for c in np.exp(found.changes))
        falls = [
            change
            for change, slope, p in zip(row["changes"], found.slopes[1:], found.p, strict=True)
            if slope < 0 and p < SIGNIFICANT
        ]
        row["falls_from"] = falls[0] if falls else math.nan
    return row | {"status": "ok", "reason": ""}


def _declines(y: np.ndarray) -> np.ndarray:
    """Return at each look how far it lies below the largest value so far."""
    return np.maximum.accumulate(y) - y


def _against(
    kind: str,
    grok: pd.DataFrame,
    own: pd.DataFrame,
    curves: dict[Any, tuple[np.ndarray, np.ndarray]],
    draws: int,
    generator: np.random.Generator,
) -> dict[str, object]:
    times = grok["t_90"].to_numpy(float)
    # (runs, times): the decline of each run, those that grok first, at each time of grokking.
    declines = np.stack([_at(*curves[run], times) for run in [*grok["run"], *own["run"]]])
    places = np.arange(len(times))
    observed = float(np.median(declines[places, places]))
    orders = generator.permuted(np.tile(np.arange(len(declines)), (draws, 1)), axis=1)[:, : len(times)]
    null = np.median(declines[orders, places], axis=1)
    return {
        "control": kind,
        "runs": len(own),
        "falling": float(own["falls_from"].notna().mean()),
        "falling_groks": float(grok["falls_from"].notna().mean()),
        "ratio": math.exp(observed),
        "null_ratio": math.exp(float(np.median(declines[len(times) :]))),
        "p": (1 + int((null >= observed - 1e-12).sum())) / (1 + draws),
    }


def _at(steps: np.ndarray, declines: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Return the decline at the last look up to each time; 0 before the first."""
    place = np.searchsorted(steps, times, side="right") - 1
    return np.where(place >= 0, declines[np.maximum(place, 0)], 0.0)
