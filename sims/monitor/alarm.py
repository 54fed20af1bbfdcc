"""An alarm on a run that is watched, with a rate of false alarms that stored control runs fix."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sims.analysis.conformal import Threshold, conformal_threshold, largest_held
from sims.measure.rows import MeasurementRows
from sims.runs.store import run_folders
from sims.system.errors import MeasureError

# What the study of alarms has found; said wherever an alarm is.
CAUTION = "no signal of updates or curvature was shown to warn of late generalisation (docs/grokking.md)"


@dataclass(frozen=True)
class Watched:
    """Name the rows of a run that an alarm watches; columns of `sims.runs.layout.ROWS`."""

    quantity: str
    object: str
    site: str
    window: str = ""

    def series(self, rows: Sequence[Mapping[Any, Any]]) -> dict[int, float]:
        """Return the value at every step of some rows; NaN where it has none.

        Raises:
            MeasureError: several values at one step, such as those of several bands.
        """
        found: dict[int, float] = {}
        for row in rows:
            if any(row[name] != getattr(self, name) for name in ("quantity", "object", "site", "window")):
                continue
            if (step := int(row["step"])) in found:
                raise MeasureError(
                    f"{self} has several values at step {step}; an alarm watches a row of which there is one at each "
                    "look"
                )
            found[step] = math.nan if row["value"] is None else float(row["value"])
        return found

    def __str__(self) -> str:
        return f"{self.quantity} of {self.object} {self.site}" + (
            f", W = {self.window}" if self.window else ""
        )


@dataclass
class ControlAlarm:
    """Sound an alarm at the second of two looks in a row beyond a threshold that control runs hardly reach.

    The threshold is conformal: the probability that a run like the controls has an alarm anywhere in its length is at
    most α (`sims.analysis.conformal`). Looks at other steps than those of the controls do not count, so that a longer
    run has no more chances than they had. What the alarm means is another question: no signal of updates or curvature
    was shown to warn of late generalisation, which every alarm says.

    Args:
        watched: which rows.
        steps: of the looks of the controls.
        threshold: of `above`·value.
        above: 1 for an alarm above, −1 for one below.

    Attributes:
        alarm: step of the alarm; None without one.
    """

    watched: Watched
    steps: tuple[int, ...]
    threshold: Threshold
    above: int = 1
    alarm: int | None = None
    _last: tuple[int, float] | None = field(default=None, repr=False)

    @classmethod
    def from_runs(
        cls, runs: str | Path, watched: Watched, *, alpha: float = 0.1, below: bool = False
    ) -> ControlAlarm:
        """Choose the threshold on the complete runs of a folder, all of which are controls.

        Args:
            runs: folder of run folders, of a monitor or of `speclens train`.
            watched: which rows.
            alpha: largest probability of a false alarm in a whole run; it needs 1/α − 1 runs.
            below: whether small values sound the alarm.

        Raises:
            MeasureError: no such rows or several at one step, runs that were looked at after other steps, or fewer than
                1/α − 1 of them.
        """
        found: dict[str, dict[int, float]] = {}
        for folder in run_folders(Path(runs)):
            if folder.done:
                rows = folder.rows()
                rows = rows.assign(window=rows["window"].fillna(""))
                found[folder.path.name] = watched.series(rows.to_dict("records"))
        if not any(found.values()):
            raise MeasureError(f"no complete run of {runs} has {watched}; name a row that its runs have")
        (name, first), *rest = found.items()
        for other, series in rest:
            if series.keys() != first.keys():
                raise MeasureError(
                    f"{name} and {other} have {watched} after other steps; an alarm needs controls that are equally "
                    "long and looked at alike"
                )
        above = -1 if below else 1
        largest = [
            largest_held([above * series[step] for step in sorted(series)]) for series in found.values()
        ]
        return cls(watched, tuple(sorted(first)), conformal_threshold(largest, alpha), above)

    def look(self, sheet: MeasurementRows) -> str:
        """Take up the rows of a look; return a sentence where the alarm goes off, and "" otherwise."""
        for step, value in sorted(self.watched.series(sheet.rows).items()):
            if step not in self.steps:
                continue
            now = (step, self.above * value)
            last, self._last = self._last, now
            before = self.steps[max(0, self.steps.index(step) - 1)]
            level = self.threshold.value
            # A look without a value (NaN) is beyond nothing; the smaller of the two would pass over it.
            held = last is not None and last[0] == before and last[1] > level and now[1] > level
            if held and self.alarm is None:
                self.alarm = step
                return self._sentence(step)
        return ""

    def _sentence(self, step: int) -> str:
        beyond = "above" if self.above > 0 else "below"
        level = self.above * self.threshold.value
        return (
            f"step {step}: alarm: {self.watched} was {beyond} {level:.3g} at two looks in a row; "
            f"{self.threshold.told}; {CAUTION}"
        )

    def state_dict(self) -> dict[str, Any]:
        """Return what a later process needs to continue, as plain values."""
        return {"alarm": self.alarm, "last": self._last}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        last = state["last"]
        self.alarm, self._last = state["alarm"], None if last is None else (int(last[0]), float(last[1]))
