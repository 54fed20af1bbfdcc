"""Ask whether the lead of an alarm grows with the time of grokking by a law of its own.

Source of the claimed law: arXiv 2602.16967.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
import pandas as pd
from scipy import optimize

from sims.analysis.intervals import student
from sims.analysis.verdicts import Verdict, require_columns
from sims.system.errors import MeasureError
from theory.decision import ROUNDING, has_width, side

LEAST_RUNS = 6
# Times of grokking that are nearer to each other than this factor show no law.
LEAST_RANGE = 1.5


@dataclass(frozen=True)
class LeadLaw:
    """Hold the fit lead = c·T^b and the slopes that two laws without content have on the same runs.

    Attributes:
        runs: with a lead above 0, which are fitted.
        missed: runs without one, left out (the law says nothing of them).
        c, b: of the fit; NaN where not resolved, as all numbers.
        low, high: 95 % interval of b.
        r2: share of the variance of ln lead that the law explains.
        b_memorised: slope of ln(T − t_mem) on ln T: an alarm at memorisation has this exponent.
        r2_memorised: share that lead = T − t_mem explains; it has no parameter, and may be negative.
        constant: a of the fit lead = T − a: an alarm at one step for all runs.
        b_constant: slope of ln(T − a) on ln T.
        r2_constant: share that lead = T − a explains.
        status: "ok" or "not resolved".
        reason: why it is not resolved.
    """

    runs: int
    missed: int
    c: float = math.nan
    b: float = math.nan
    low: float = math.nan
    high: float = math.nan
    r2: float = math.nan
    b_memorised: float = math.nan
    r2_memorised: float = math.nan
    constant: float = math.nan
    b_constant: float = math.nan
    r2_constant: float = math.nan
    status: Literal["ok", "not resolved"] = "ok"
    reason: str = ""

    @property
    def sentence(self) -> str:
        """Return the verdict as one sentence."""
        return self.verdict.sentence

    @property
    def verdict(self) -> Verdict:
        """Say whether the law is more than an alarm that is early in all runs.

        Shown if the interval of b lies above 0 and contains neither the exponent of T − t_mem nor that of T − a; not
        resolved where the runs follow a rising law exactly, so that the interval has no width.
        """
        claim = "The lead grows with the time of grokking T by a power law of its own"
        if self.status != "ok":
            return Verdict(claim, "not resolved", self.reason)
        inside = [
            f"{name} ({slope:.2f})"
            for name, slope in (
                ("T − t_mem", self.b_memorised),
                (f"T − {self.constant:.4g}", self.b_constant),
            )
            if side(self.low, self.high, slope) == 0
        ]
        told = f"b = {self.b:.2f} [{self.low:.2f}, {self.high:.2f}] in {self.runs} runs, {self.missed} without a lead"
        # A law that the runs follow exactly leaves no width but that of rounding, on one side of 0 or at it.
        if side(self.low - ROUNDING, self.high + ROUNDING) <= 0:
            return Verdict(
                claim, "not shown", f"{told}; this does not lie above 0, where the lead would grow"
            )
        if not has_width(self.low, self.high):
            why = "the runs follow one curve exactly, so that the interval has no width and decides nothing"
            return Verdict(claim, "not resolved", f"{told}; {why}")
        if inside:
            return Verdict(
                claim, "not shown", f"{told}; this contains the exponent of {' and of '.join(inside)}"
            )
        others = f"T − t_mem has {self.b_memorised:.2f}, and T − {self.constant:.4g} {self.b_constant:.2f}"
        return Verdict(claim, "shown", f"{told}; {others}")

    def row(self) -> dict[str, object]:
        """Return the fields and the sentence as a row of a table."""
        return {**asdict(self), "sentence": self.sentence}


def lead_law(found: pd.DataFrame) -> LeadLaw:
    """Fit lead = c·T^b by least squares of the logarithms, and the laws T − t_mem and T − a to the same runs.

    T is the step of 90 % test accuracy. An alarm at a fixed early step has lead T − a, whose logarithm is steeper than
    that of T: an exponent above 1 alone shows nothing. The interval of b is Student's with a standard error that allows
    for unequal variances (HC3).

    Args:
        found: one row a run that groks: t_90, t_mem, lead; as the rows of kind "groks" of
            `sims.analysis.alarms.alarms` or of `published_alarms`. Rows of other kinds, or without a threshold, are
            left out.

    Returns:
        `LeadLaw`, not resolved with fewer than six runs that have a lead, or with times of grokking within a factor
        of 1.5 or at fewer than three values.

    Raises:
        MeasureError: a missing column, or a time or lead that cannot be (t_mem or lead above T, or not finite).

    Source: MacKinnon and White, J. Econometrics 29 (1985), for HC3.
    """
    require_columns(found, ["t_90", "t_mem", "lead"])
    if "kind" in found:
        found = found[found["kind"] == "groks"]
    if "status" in found:
        found = found[found["status"] == "ok"]
    times, memory = found["t_90"].to_numpy(float), found["t_mem"].to_numpy(float)
    leads = found["lead"].to_numpy(float)
    if not (
        np.isfinite(times) & np.isfinite(memory) & (leads >= 0) & (leads <= times) & (memory < times)
    ).all():
        raise MeasureError(
            "a lead or t_mem is missing, negative, or not below t_90; pass runs that grok, with 0 for a missed alarm"
        )
    kept = (leads > 0) & (leads < np.inf)
    missed = int((~kept).sum())
    times, memory, leads = times[kept], memory[kept], leads[kept]
    reason = _too_few(times)
    if reason:
        return LeadLaw(len(times), missed, status="not resolved", reason=reason)
    x, y = np.log(times), np.log(leads)
    b, offset, error = _line(x, y)
    reach = student(len(x) - 2) * error
    constant = _constant(times, y)
    trivial = np.log(times - memory), np.log(times - constant)
    total = float(((y - y.mean()) ** 2).sum())

    def explained(prediction: np.ndarray) -> float:
        return 1 - float(((y - prediction) ** 2).sum()) / total if total > 0 else 0.0

    return LeadLaw(
        *(len(x), missed, math.exp(offset), b, b - reach, b + reach, explained(offset + b * x)),
        *(_line(x, trivial[0])[0], explained(trivial[0])),
        *(constant, _line(x, trivial[1])[0], explained(trivial[1])),
    )


def _too_few(times: np.ndarray) -> str:
    if len(times) < LEAST_RUNS:
        return f"{len(times)} runs have a lead, and a law needs {LEAST_RUNS}"
    if len(np.unique(times)) < 3 or times.max() < LEAST_RANGE * times.min():
        return (
            f"the times of grokking are {times.min():g} to {times.max():g}; a law needs three different ones, and a "
            f"factor of {LEAST_RANGE} between the first and the last"
        )
    return ""


def _line(x: np.ndarray, y: np.ndarray) -> tuple[float, float, float]:
    """Return slope, offset and the HC3 standard error of the slope of a least-squares line."""
    centred = x - x.mean()
    power = float((centred**2).sum())
    slope = float(centred @ y) / power
    offset = float(y.mean() - slope * x.mean())
    leverage = 1 / len(x) + centred**2 / power
    rest = (y - offset - slope * x) / np.maximum(1 - leverage, 1e-12)
    return slope, offset, float(np.sqrt((centred**2 * rest**2).sum())) / power


def _constant(times: np.ndarray, y: np.ndarray) -> float:
    """Return a ≥ 0, below all times, for which ln(T − a) is nearest to the logarithms of the leads."""

    def loss(a: float) -> float:
        return float(((y - np.log(times - a)) ** 2).sum())

    # Fine towards the first time, where the logarithm is steep.
    grid = times.min() * (1 - np.geomspace(1.0, 1e-6, 200))
    best = int(np.argmin([loss(a) for a in grid]))
    bounds = (float(grid[max(best - 1, 0)]), float(grid[min(best + 1, len(grid) - 1)]))
    near = optimize.minimize_scalar(
        loss, bounds=bounds, method="bounded", options={"xatol": 1e-9 * times.min()}
    )
    found = float(near.x)  # pyright: ignore
    return found if loss(found) < loss(float(grid[best])) else float(grid[best])
