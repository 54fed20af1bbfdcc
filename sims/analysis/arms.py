"""Compare how late runs grok under interventions, paired by seed.

An arm is one way in which the runs of all seeds were changed. Times are compared by their logarithm: a ratio of 1.1 is
a delay by a tenth. A run that does not grok within its steps counts with its number of steps, a lower bound: the ratio
is then one as well where the run is of the first arm, and an upper bound where it is of the other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd

from sims.analysis.intervals import mean_interval
from sims.analysis.verdicts import LEAST_SEEDS, Verdict, require_columns, require_labels
from sims.system.errors import MeasureError
from theory.decision import decide, side, why_undecided

# A change of the time of grokking by less than this factor is none.
MARGIN = 1.1


@dataclass(frozen=True)
class ArmRatio:
    """Hold how much later the runs of one arm grok than those of another, paired by seed.

    Attributes:
        arm, other: their names.
        seeds: n, pairs that count.
        ratio, low, high: geometric mean of time(arm)/time(other) over seeds, with Student's 95 % interval of the mean
            logarithm; NaN with fewer than two pairs.
        bounded: seeds of which a run that counts did not grok within its steps, so that its time is a lower bound.
        left_out: seeds of which neither arm groks, or that lack one.
        censored, censored_other: seeds among `bounded` whose lower bound is the time of `arm`, or that of `other`.

    >>> times = pd.DataFrame({"seed": [0, 1] * 2, "arm": list("aabb"), "time": [2.0, 4.0, 1.0, 1.0], "reached": True})
    >>> found = arm_ratio(times, "a", "b")
    >>> found.seeds, round(found.ratio, 3)
    (2, 2.828)
    """

    arm: str
    other: str
    seeds: int
    ratio: float
    low: float
    high: float
    bounded: int
    left_out: int
    censored: int = 0
    censored_other: int = 0

    def row(self) -> dict[str, object]:
        """Return it as a row of a table."""
        return asdict(self)

    @property
    def told(self) -> str:
        """Return the ratio in words."""
        return f"{self.ratio:.2f} [{self.low:.2f}, {self.high:.2f}] times that of {self.other}"

    @property
    def lacking(self) -> str:
        """Return why nothing can be said at all; empty where something can."""
        if self.seeds < LEAST_SEEDS:
            return f"{self.seeds} seeds count beside {self.other}; the rule needs {LEAST_SEEDS}"
        return ""

    @property
    def side(self) -> int:
        """Return +1 where the arm is later for sure, −1 where it is earlier, 0 otherwise.

        A run of the arm that never groks may be as late as one likes, so that the arm is not earlier for sure; and it
        is not later for sure where one of the other never groks.
        """
        found = 0 if self.lacking else side(self.low, self.high, 1.0)
        return 0 if self._unbounded(found) else found

    def _unbounded(self, found: int) -> bool:
        """Return whether runs that never grok leave open a side on which the interval lies."""
        return bool((found < 0 and self.censored) or (found > 0 and self.censored_other))

    @property
    def open_reason(self) -> str:
        """Return why the arm is neither later nor earlier for sure."""
        if self.lacking:
            return self.lacking
        found = side(self.low, self.high, 1.0)
        if self._unbounded(found):
            arm, seeds = (self.arm, self.censored) if found < 0 else (self.other, self.censored_other)
            reason = f"in {seeds} of {self.seeds} seeds the time of {arm} is a lower bound, and may be any longer one"
        else:
            reason = why_undecided(self.low, self.high, 1.0)
        return f"{reason}: the time is {self.told}"

    def within(self, least: float, most: float) -> bool:
        """Return whether the whole interval lies between two ratios; never where times are lower bounds."""
        return not (self.lacking or self.bounded) and decide(self.low, self.high, least, most) == "inside"


def arm_ratio(times: pd.DataFrame, arm: str, other: str) -> ArmRatio:
    """Compare the times of two arms, paired by seed.

    Of several runs of a seed in one arm the mean logarithm counts.

    Args:
        times: seed, arm, time (steps, at least 1), reached (whether it is that of grokking).
        arm, other: names of arms.

    Raises:
        MeasureError: a column is missing, or a time below 1.
    """
    require_columns(times, ["seed", "arm", "time", "reached"])
    require_labels(times, ["seed", "arm"])
    if (times["time"] < 1).any():
        raise MeasureError(
            f"a time is {times['time'].min():g}; give steps from 1 on, and leave out runs without"
        )
    logs = times.assign(log=np.log(times["time"].to_numpy(float)))
    sides = [
        logs[logs["arm"] == name].groupby("seed").agg(log=("log", "mean"), reached=("reached", "all"))
        for name in (arm, other)
    ]
    paired = sides[0].merge(sides[1], "outer", left_index=True, right_index=True, suffixes=("", "_other"))
    counts = paired[["log", "log_other"]].notna().all(axis=1)
    reached = paired.loc[counts, ["reached", "reached_other"]].astype(bool)
    differences = (paired["log"] - paired["log_other"])[counts][reached.any(axis=1)]
    n = len(differences)
    ratio, low, high = (math.exp(value) for value in mean_interval(differences))
    return ArmRatio(
        arm,
        other,
        n,
        ratio,
        low,
        high,
        int((reached.any(axis=1) & ~reached.all(axis=1)).sum()),
        len(paired) - n,
        int((~reached["reached"] & reached["reached_other"]).sum()),
        int((reached["reached"] & ~reached["reached_other"]).sum()),
    )


def delays_more(claim: str, ratio: ArmRatio) -> Verdict:
    """Say whether the runs of one arm grok later than those of another.

    Shown if the whole interval of the ratio lies above 1; not shown if it lies below 1.1, so that a delay by a tenth is
    excluded; not resolved otherwise, with fewer than four seeds, and where a run that never groks leaves that open.
    """
    if ratio.side > 0:
        return Verdict(claim, "shown", f"the time is {ratio.told}")
    if ratio.side < 0 or ratio.within(-math.inf, MARGIN):
        return Verdict(claim, "not shown", f"the time is {ratio.told}, which excludes a delay by a tenth")
    return Verdict(claim, "not resolved", ratio.open_reason)


def shifts_apart(claim: str, ratios: Sequence[ArmRatio]) -> Verdict:
    """Say whether the runs of one arm grok at another time than those of every other arm.

    Shown if all intervals of the ratios lie on one and the same side of 1; not shown if one of them lies between 1/1.1
    and 1.1, or two lie on opposite sides; not resolved otherwise.
    """
    sides = {ratio.side for ratio in ratios}
    told = "; ".join(ratio.told for ratio in ratios)
    if sides in ({1}, {-1}):
        return Verdict(claim, "shown", f"the time is {told}")
    alike = [ratio for ratio in ratios if ratio.within(1 / MARGIN, MARGIN)]
    if alike:
        reason = f"the time is {alike[0].told}, which excludes a change by a tenth"
        return Verdict(claim, "not shown", reason)
    if {1, -1} <= sides:
        return Verdict(claim, "not shown", f"later than one and earlier than another: the time is {told}")
    return Verdict(claim, "not resolved", "; ".join(r.open_reason for r in ratios if r.side == 0))
