"""The runs of a log from its lines: what is damaged, of several processes or of several runs is told apart."""

from __future__ import annotations

import re
from collections import Counter

from sims.studies.speedruns.formats import DamagedLine, Format
from sims.studies.speedruns.lines import Line, read_line
from sims.studies.speedruns.text import LONGEST, numbered_lines
from sims.studies.speedruns.trajectory import Steps, Trajectory, finish, numbers

# The share of lines of one kind that may end early before that is how the program writes them.
_RARE = 0.05


def read_steps(format_: Format, text: str) -> list[tuple[Steps, str]]:
    """Read the lines of one format from the text of a log.

    Returns:
        Each of the runs that follow each other in it, and the text of its own.
    """
    found, damaged = _lines(format_, text, 1)
    ends = _ends_of_runs(_placed(_one_rank(found, Steps())))
    if not ends:
        return [(_one_run(format_, text, 1, found, damaged), text)]
    lines, runs, begin = text.split("\n"), [], 0
    broken = set(damaged)
    for end in [*ends, len(lines)]:
        while end + 1 in broken:
            end += 1
        own = "\n".join(lines[begin:end]) + "\n" * (end < len(lines))
        runs.append((_one_run(format_, own, begin + 1, *_lines(format_, own, begin + 1)), own))
        begin = end
    return _told_apart(runs)


def _one_run(format_: Format, text: str, first: int, found: list[Line], damaged: list[int]) -> Steps:
    steps, last, ended = Steps(), first + text.count("\n"), text.endswith(("\n", "\r"))
    found, early, cut = _without_cut(found, sealed=bool(format_.opening), ended=ended, last=last)
    damaged = sorted(damaged + early)
    if cut or _is_begun(format_, text):
        steps.defects.append("the last line does not end and is left out")
    if damaged:
        steps.defects.append(f"{len(damaged)} damaged line(s) left out ({numbers('line', damaged)})")
    placed = _placed(_one_rank(found, steps))
    if placed:
        Trajectory(steps, placed).read()
        finish(steps, placed)
    return steps


def _lines(format_: Format, text: str, first: int) -> tuple[list[Line], list[int]]:
    """Return the lines that can be read, and the numbers of those that are damaged."""
    begin = format_.begins(text)
    found, damaged = [], []
    for number, line in numbered_lines(text[begin:], first + text.count("\n", 0, begin)):
        try:
            read = read_line(format_, number, line)
        except DamagedLine:
            damaged.append(number)
            continue
        if read is not None:
            found.append(read)
    return found, damaged


def _placed(lines: list[Line]) -> list[tuple[int, Line]]:
    """Give each line its step: its own, or the last one named."""
    step, placed = 0, []
    for line in lines:
        step = step if line.step is None else line.step
        placed.append((step, line))
    return placed


def _is_begun(format_: Format, text: str) -> bool:
    """Return whether a text ends in what is too short to be known as a line."""
    rest = re.split("[\n\r]", text[-LONGEST:])[-1].strip()
    opened = bool(format_.opening) and rest.startswith(format_.opening) and not rest.endswith(("}", "},"))
    return bool(rest) and (opened or any(mark.startswith(rest) for mark in format_.marks))


def _ends_of_runs(lines: list[tuple[int, Line]]) -> list[int]:
    """Return the numbers of the last lines of all runs but the last.

    Another run begins where one that is over is followed by its first step again, or by step 1. A run is over at its
    planned step, or anywhere where no line names one; before that step the log is of a run that started again.
    """
    ends: list[int] = []
    lead = next((i for i, (_, line) in enumerate(lines) if line.step is not None), 0)
    begin = top = lines[lead][0] if lines else 0
    planned = None
    for i, (step, line) in enumerate(lines):
        again = step == begin if planned is None else top >= planned and step <= max(begin, 1)
        if again and step < top and line.step is not None:
            # What the first run wrote before it named a step, the next one has written again.
            own = next((n for n in range(lead) if lines[i - 1 - n][1].step is not None), lead)
            ends.append(lines[i - 1 - own][1].number)
            begin, top, planned = step, step, None
        top, planned = max(top, step), line.planned or planned
    return ends


def _told_apart(runs: list[tuple[Steps, str]]) -> list[tuple[Steps, str]]:
    """Return the runs without those that stand there twice; a run that is shorter than the others says so."""
    kept: dict[str, tuple[Steps, str]] = {}
    for steps, text in runs:
        same, _ = kept.setdefault(str((steps.planned, steps.rows)), (steps, text))
        if same is not steps:
            same.remarks.append(f"its {len(same.rows)} step(s) stand there twice")
    longest = max(steps.last for steps, _ in kept.values())
    for steps, _ in kept.values():
        if steps.planned is None and steps.last < longest:
            steps.defects.append(
                f"ends at step {steps.last}, where another run of the file ends at step {longest}"
            )
    return list(kept.values())


def _without_cut(
    found: list[Line], *, sealed: bool, ended: bool, last: int
) -> tuple[list[Line], list[int], bool]:
    """Return the lines without those that end early, the numbers of these, and whether the last line was cut.

    Args:
        found: the lines.
        sealed: whether a line that is cut cannot be read.
        ended: whether the last line of the file has an end.
        last: the number of that line.
    """
    kinds = Counter((line.validates, line.names) for line in found)
    full = {}
    for (validates, names), _ in kinds.most_common():
        full.setdefault(validates, names)
    kept, early, cut = [], [], False
    for i, line in enumerate(found):
        usual, own = full[line.validates], line.names
        short = not sealed and len(own) < len(usual) and usual[: len(own)] == own
        if i == len(found) - 1 and not ended and line.number == last and (short or not line.closed):
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
