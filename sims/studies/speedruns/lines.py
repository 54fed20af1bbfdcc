"""The step lines of a log as values by step: what is damaged, repeated or of several processes is told apart."""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

from sims.studies.speedruns.formats import LOSSES, DamagedLine, Format
from sims.studies.speedruns.text import LONGEST, numbered_lines

# What may stand before a head: it ends in one of these, in a digit, or in one of the words or one with a digit.
_PREFIX_ENDS = "])|>-:%"
_PREFIX_WORDS = frozenset(
    (
        "debug",
        "info",
        "warning",
        "warn",
        "error",
        "am",
        "pm",
        "utc",
        "gmt",
        "z",
        "f",
        "stdout",
        "stderr",
        "out",
        "err",
    )
)
_RANK = re.compile(r"(?:rank|default)[ :=_-]?(\d{1,6})|^\s*(\d{1,6}):\s*$", re.IGNORECASE)
# The share of lines of one kind that may end early before that is how the program writes them.
_RARE = 0.05


class Line(NamedTuple):
    """One line of a log that could be read.

    Args:
        number: of the line in the file.
        step, planned: the step, None where the line does not name it; steps of the whole run, if named.
        values: known fields, in milliseconds and nats.
        names: of all fields, in order.
        validates: whether it has a validation loss.
        closed: whether it ends in a unit, so that its last number is complete.
        unitless: whether a time has no unit.
        rank: of the process that wrote it, if the line says so.
    """

    number: int
    step: int | None
    planned: int | None
    values: dict[str, float]
    names: tuple[str, ...]
    validates: bool
    closed: bool
    unitless: bool
    rank: int | None


def split_line(format_: Format, text: str) -> tuple[str, str, re.Match[str]] | None:
    """Return what stands before a line, the fields before its head, and the head; None if it is not of this format.

    Ranks, times, levels and progress bars may stand before a line; words, quotes and comments may not.
    """
    if len(text) > LONGEST or not any(mark in text for mark in format_.marks):
        return None
    head = format_.head.search(text)
    if head is None:
        return None
    before = text[: head.start()].rstrip()
    at = min((i for name in format_.names if (i := before.find(f"{name}:")) >= 0), default=len(before))
    fields, before = before[at:], before[:at].rstrip()
    return (before, fields, head) if _is_prefix(before, text[len(before) : len(before) + 1]) else None


def _is_prefix(before: str, after: str) -> bool:
    """Return whether a text can stand before a line; `after` is the character that follows it."""
    if not before or before[-1] in _PREFIX_ENDS or before[-1].isdigit():
        return True
    last = before.rsplit(None, 1)[-1].lower()
    # A time with its zone (…T12:00:01Z), a host or a worker with its number.
    numbered = last[-1].isalpha() and any(c.isdigit() for c in last)
    return after.isspace() and (last in _PREFIX_WORDS or numbered)


def read_line(format_: Format, number: int, text: str) -> Line | None:
    """Read one line; None if it is not of this format.

    Raises:
        DamagedLine: it is of this format, but damaged.
    """
    found = split_line(format_, text)
    if found is None:
        if any(mark in text for mark in format_.marks) and format_.suspect.search(text[:LONGEST]):
            raise DamagedLine(text)
        return None
    before, first, head = found
    rest = f"{first} {text[head.end() :]}".strip()
    names, values = format_.fields(rest)
    groups = head.groupdict()
    if groups.get("val_loss") is not None:
        names, values = format_.fields(f"val loss {groups['val_loss']}")
    step, planned = (None if groups.get(k) is None else int(groups[k]) for k in ("step", "planned"))
    impossible = step is not None and not 0 <= step <= (step if planned is None else planned)
    if impossible or not names:
        raise DamagedLine(text)
    closed = rest.endswith(("%", "tok/s")) or (bool(values) and values[-1].unit)
    fields = {value.name: value.number for value in values}
    unitless = any(not value.unit for value in values if value.name not in LOSSES)
    rank = _RANK.search(before) if before else None
    of_rank = None if rank is None else int(rank[1] or rank[2])
    return Line(number, step, planned, fields, names, "val_loss" in fields, closed, unitless, of_rank)


@dataclass
class Steps:
    """The values of a log by step.

    Attributes:
        rows: fields by step; what a validation line says wins over a training line of the same step.
        planned: steps of the whole run, if the log has them.
        last: the last step.
        defects: what is damaged, missing or repeated, in words.
        remarks: what is worth knowing and no defect.
        refusal: why the log cannot be used; empty if it can.
    """

    rows: dict[int, dict[str, float]] = field(default_factory=dict)
    planned: int | None = None
    last: int = 0
    defects: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    refusal: str = ""


def read_steps(format_: Format, text: str) -> Steps:
    """Read the lines of one format from the text of a log."""
    steps = Steps()
    begin = format_.begins(text)
    found, damaged = [], []
    for number, line in numbered_lines(text[begin:], 1 + text.count("\n", 0, begin)):
        try:
            read = read_line(format_, number, line)
        except DamagedLine:
            damaged.append(number)
            continue
        if read is not None:
            found.append(read)
    ended = text.endswith(("\n", "\r"))
    found, early, cut = _without_cut(found, ended=ended, lines=text.count("\n") + 1)
    damaged += early
    rest = re.split("[\n\r]", text[-LONGEST:])[-1].strip()
    if cut or (rest and any(mark.startswith(rest) for mark in format_.marks)):
        steps.defects.append("the last line does not end and is left out")
    if damaged:
        steps.defects.append(f"{len(damaged)} damaged line(s) left out ({_numbers('line', sorted(damaged))})")
    found = _one_rank(found, steps)
    if found:
        _Trajectory(steps, found).read()
        _finish(steps, found)
    return steps


def _numbers(what: str, numbers: list[int]) -> str:
    return f"{what} " + ", ".join(map(str, numbers[:5])) + (", …" if len(numbers) > 5 else "")


def _without_cut(found: list[Line], *, ended: bool, lines: int) -> tuple[list[Line], list[int], bool]:
    """Return the lines without those that end early, the numbers of these, and whether the last line was cut."""
    kinds = Counter((line.validates, line.names) for line in found)
    full = {}
    for (validates, names), _ in kinds.most_common():
        full.setdefault(validates, names)
    kept, early, cut = [], [], False
    for i, line in enumerate(found):
        usual, own = full[line.validates], line.names
        short = len(own) < len(usual) and usual[: len(own)] == own
        if i == len(found) - 1 and not ended and line.number == lines and (short or not line.closed):
            cut = True
        elif short and line.step != 0 and kinds[line.validates, own] <= max(1, _RARE * len(found)):
            early.append(line.number)
        else:
            kept.append(line)
    return kept, early, cut


def _one_rank(found: list[Line], steps: Steps) -> list[Line]:
    """Return the lines of the rank that wrote most validation losses, and those that name none."""
    ranks = sorted({line.rank for line in found if line.rank is not None})
    if len(ranks) < 2:
        return found
    counts = Counter(line.rank for line in found if line.validates)
    best = max(ranks, key=lambda rank: (counts[rank], -rank))
    steps.remarks.append(f"{len(ranks)} ranks wrote it, and the lines of rank {best} are taken")
    return [line for line in found if line.rank in (None, best)]


class _Trajectory:
    """The steps of one run: a log that goes back (resumed from a checkpoint) goes on from there, later lines win."""

    def __init__(self, steps: Steps, lines: list[Line]) -> None:
        self.steps = steps
        self.planned = next(
            (n for n, _ in Counter(x.planned for x in lines if x.planned).most_common(1)), None
        )
        self.lines = self._placed(lines)
        self.equal = 0
        self.order: list[int] = []
        self.training: dict[int, dict[str, float]] = {}
        self.validation: dict[int, dict[str, float]] = {}
        self.aside: list[tuple[int, Line]] = []
        self.resumed: list[tuple[int, int, int]] = []
        self.twice: list[int] = []
        self.timeless = math.inf

    def _placed(self, lines: list[Line]) -> list[tuple[int, Line]]:
        """Give each line its step: its own, or the last one named."""
        step, placed = 0, []
        for line in lines:
            step = step if line.step is None else line.step
            placed.append((step, line))
        return placed

    def read(self) -> None:
        """Fill the rows of `steps`; a second run in the file is a refusal."""
        first, highest = self.lines[0][0], 0
        for i, (step, line) in enumerate(self.lines):
            if step == first < highest and (self.planned is None or highest == self.planned):
                self.steps.refusal = (
                    f"goes back from step {highest} to step {step} at line {line.number}: two runs or more; "
                    "keep one run a file"
                )
                return
            highest = max(highest, step)
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
            said.append(f"{len(late)} line(s) out of order ({_numbers('line', late)})")
        if self.twice:
            said.append(
                f"two validation losses of one step, of which the later is taken ({_numbers('step', self.twice)})"
            )
        self.steps.planned = self.planned


def _equal(a: float, b: float) -> bool:
    return a == b or (math.isnan(a) and math.isnan(b))


def _finish(steps: Steps, lines: list[Line]) -> None:
    """Say what the values themselves show: another length, no times, losses that are not finite."""
    said, rows = steps.defects, steps.rows
    others = sorted({line.planned for line in lines if line.planned} - {steps.planned})
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
    if any(line.unitless for line in lines):
        said.append("times without a unit are left out")
    # Of validation lines: the clock of early modded-nanogpt starts anew after ten steps, before the first of them.
    timed = [(s, v.get("elapsed", math.nan)) for s, v in rows.items() if "val_loss" in v]
    times = [(s, t) for s, t in timed if math.isfinite(t)]
    back = [b[0] for a, b in pairwise(times) if b[1] < a[1]]
    if back:
        said.append(f"the clock goes back ({_numbers('step', back)})")
    wild = [s for s, v in rows.items() if any(not math.isfinite(v.get(k, 0.0)) for k in LOSSES)]
    if wild:
        said.append(
            f"diverged: the loss is not finite at step {wild[0]}" + (" and later" if len(wild) > 1 else "")
        )
    if not any("val_loss" in v for v in rows.values()):
        said.append("no validation loss")
