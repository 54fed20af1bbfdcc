"""The values of one run by step: what is repeated, out of order or resumed is told apart."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise

from sims.studies.speedruns.formats import LOSSES
from sims.studies.speedruns.lines import Line


@dataclass
class Steps:
    """The values of one run by step.

    Attributes:
        rows: fields by step; what a validation line says wins over a training line of the same step.
        planned: steps of the whole run, if the log has them.
        last: the last step.
        defects: what is damaged, missing or repeated, in words.
        remarks: what is worth knowing and no defect.
    """

    rows: dict[int, dict[str, float]] = field(default_factory=dict)
    planned: int | None = None
    last: int = 0
    defects: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


def numbers(what: str, numbers: list[int]) -> str:
    """Return what is at the first few of some numbers, in words."""
    return f"{what} " + ", ".join(map(str, numbers[:5])) + (", …" if len(numbers) > 5 else "")


class Trajectory:
    """The steps of one run: a log that goes back (resumed from a checkpoint) goes on from there, later lines win."""

    def __init__(self, steps: Steps, lines: list[tuple[int, Line]]) -> None:
        self.steps = steps
        self.planned = next(
            (n for n, _ in Counter(x.planned for _, x in lines if x.planned).most_common(1)), None
        )
        self.lines = lines
        self.equal = 0
        self.order: list[int] = []
        self.training: dict[int, dict[str, float]] = {}
        self.validation: dict[int, dict[str, float]] = {}
        self.aside: list[tuple[int, Line]] = []
        self.resumed: list[tuple[int, int, int]] = []
        self.twice: list[int] = []
        self.timeless = math.inf

    def read(self) -> None:
        """Fill the rows of `steps`."""
        for i, (step, line) in enumerate(self.lines):
            top = self.order[-1] if self.order else step
            if step < top:
                after = self.lines[i + 1][0] if i + 1 < len(self.lines) else step
                if after >= top:
                    self.aside.append((step, line))
                    continue
                self._back(step, line)
            self._add(step, line)
        late = [(step, line) for step, line in self.aside if not self._stands(step, line)]
        self.equal += len(self.aside) - len(late)
        for step, line in late:
            if step <= self.order[-1]:
                self._keep(step, line)
        self._describe([line.number for _, line in late])
        for step in sorted({*self.training, *self.validation}):
            row = self.training.get(step, {}) | self.validation.get(step, {})
            if step >= self.timeless:
                row |= {name: math.nan for name in ("elapsed", "step_avg") if name in row}
            self.steps.rows[step] = row
        self.steps.last = self.order[-1]

    def _add(self, step: int, line: Line) -> None:
        if not self.order or step > self.order[-1]:
            self.order.append(step)
        elif self._stands(step, line):
            self.equal += 1
            return
        self._keep(step, line)

    def _stands(self, step: int, line: Line) -> bool:
        """Return whether the values of a line stand there already, as another process wrote them."""
        old = (self.validation if line.validates else self.training).get(step, {})
        fields = line.values
        return bool(fields) and all(k in old and _equal(old[k], v) for k, v in fields.items())

    def _keep(self, step: int, line: Line) -> None:
        of, fields = (self.validation if line.validates else self.training), line.values
        old = of.get(step, {})
        if "val_loss" in old and not _equal(old["val_loss"], fields["val_loss"]):
            self.twice.append(step)
        of[step] = old | fields

    def _back(self, step: int, line: Line) -> None:
        """Leave the branch that the run did not follow: it goes on from `step`."""
        self.resumed.append((self.order[-1], step, line.number))
        before = max((self._time(s) for s in self.order[-1:]), default=math.nan)
        while self.order and self.order[-1] > step:
            gone = self.order.pop()
            self.training.pop(gone, None)
            self.validation.pop(gone, None)
        self.validation.pop(step, None) if line.validates else None
        reached = self._time(self.order[-1]) if self.order else math.nan
        now = line.values.get("elapsed", math.nan)
        # A clock that was not restored counts from the restart.
        if now < (reached if math.isfinite(reached) else before):
            self.timeless = min(self.timeless, step)

    def _time(self, step: int) -> float:
        row = self.training.get(step, {}) | self.validation.get(step, {})
        return row.get("elapsed", math.nan)

    def _describe(self, late: list[int]) -> None:
        said = self.steps.defects
        if self.equal:
            self.steps.remarks.append(f"{self.equal} line(s) stand there twice")
        if self.resumed:
            shown = ", ".join(f"from step {a} to step {b} at line {n}" for a, b, n in self.resumed[:3])
            more = f" and {len(self.resumed) - 3} times more" if len(self.resumed) > 3 else ""
            said.append(f"goes back {shown}{more}: resumed from a checkpoint, later lines are taken")
        if math.isfinite(self.timeless):
            said.append(
                f"the clock starts again at step {self.timeless}, and times from there on are left out"
            )
        if late:
            said.append(f"{len(late)} line(s) out of order ({numbers('line', late)})")
        if self.twice:
            said.append(
                f"two validation losses of one step, of which the later is taken ({numbers('step', self.twice)})"
            )
        self.steps.planned = self.planned


def _equal(a: float, b: float) -> bool:
    return a == b or (math.isnan(a) and math.isnan(b))


def finish(steps: Steps, lines: list[tuple[int, Line]]) -> None:
    """Say what the values themselves show: another length, no times, losses that are not finite."""
    said, rows = steps.defects, steps.rows
    others = sorted({line.planned for _, line in lines if line.planned} - {steps.planned})
    if others:
        said.append(f"some lines plan {', '.join(map(str, others[:3]))} steps instead of {steps.planned}")
    if steps.planned is not None and steps.last < steps.planned:
        said.append(f"ends at step {steps.last} of {steps.planned}")
    begin = min(rows, default=0)
    if begin > 0 and rows[begin].get("elapsed") == 0:
        said.append(f"begins at step {begin} with the clock at 0, and its times are left out")
        for row in rows.values():
            row.pop("elapsed", None)
            row.pop("step_avg", None)
    if any(line.unitless for _, line in lines):
        said.append("times without a unit are left out")
    # Of validation lines: the clock of early modded-nanogpt starts anew after ten steps, before the first of them.
    timed = [(s, v.get("elapsed", math.nan)) for s, v in rows.items() if "val_loss" in v]
    times = [(s, t) for s, t in timed if math.isfinite(t)]
    back = [b[0] for a, b in pairwise(times) if b[1] < a[1]]
    if back:
        said.append(f"the clock goes back ({numbers('step', back)})")
    wild = [s for s, v in rows.items() if any(not math.isfinite(v.get(k, 0.0)) for k in LOSSES)]
    if wild:
        said.append(
            f"diverged: the loss is not finite at step {wild[0]}" + (" and later" if len(wild) > 1 else "")
        )
    if not any("val_loss" in v for v in rows.values()):
        said.append("no validation loss")
