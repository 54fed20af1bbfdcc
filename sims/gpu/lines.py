"""Work through lines of results within a budget of time; what was measured is never measured again."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from sims.gpu.setting import Setting
from sims.system.errors import StoreError
from sims.system.files import make_folder, write_atomic

Facts = dict[str, Any]
DIGITS = 6
LINES, TABLE = "results.jsonl", "results.md"
# Two calls with these facts in common add to one folder.
IDENTITY = ("device", "card", "versions", "source", "small")


@dataclass(frozen=True)
class Line:
    """One row of a table.

    Args:
        name: unique in its part.
        work: measures the facts; "ok" among them says whether a check passed.
        seconds: about how long it takes on a GPU; it does not begin with less time left.
    """

    name: str
    work: Callable[[], Facts]
    seconds: float = 5.0


@dataclass(frozen=True)
class Part:
    """Lines that answer one question.

    Args:
        name: as `--only` takes it.
        title: of its table.
        seconds: that it may take before later parts had their turn.
        lines: makes the lines for a setting, in the order of their worth.
    """

    name: str
    title: str
    seconds: float
    lines: Callable[[Setting], Iterable[Line]]


@dataclass
class Results:
    """The results of one folder: `results.jsonl` (the machine, then one row a line) and `results.md` (tables).

    Both files are replaced, whole, after every line.

    Args:
        folder: made if it does not exist.
        machine: facts of this call; those of `IDENTITY` must be the same in every call.
        parts: for titles, in the order of the tables.

    Raises:
        StoreError: the folder has results of another machine or version, or cannot be read or written.
    """

    folder: Path
    machine: Facts
    parts: Sequence[Part]
    rows: list[Facts] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.machine = json.loads(json.dumps(self.machine))
        make_folder(self.folder)
        path = self.folder / LINES
        if path.exists():
            first, *self.rows = _read(path)
            self._same_machine(first)
            # The command, the time and the revision of the first call stand for the folder.
            self.machine = first
        self.write()

    def _same_machine(self, found: Mapping[str, Any]) -> None:
        for name in IDENTITY:
            if found.get(name) != self.machine.get(name):
                raise StoreError(
                    f"{self.folder} holds results of another machine or version ({name} is {found.get(name)!r} there, "
                    f"{self.machine.get(name)!r} here); choose another --out"
                )

    def has(self, part: str, name: str) -> bool:
        """Return whether a line was measured; one that ended in an error is tried again."""
        return any((r["part"], r["name"]) == (part, name) and "error" not in r for r in self.rows)

    def add(self, part: str, name: str, facts: Mapping[str, Any]) -> Facts:
        """Store a line, in the place of an earlier one of its name, and return it as it is stored."""
        row = {"part": part, "name": name, **{key: _plain(value) for key, value in facts.items()}}
        if any(isinstance(v, float) and not math.isfinite(v) for v in facts.values()):
            row["ok"] = False
        self.rows = [r for r in self.rows if (r["part"], r["name"]) != (part, name)] + [row]
        self.write()
        return row

    def write(self) -> None:
        """Replace both files."""
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in (self.machine, *self.rows))
        write_atomic(self.folder / LINES, lambda file: file.write(lines.encode()))
        text = self.markdown()
        write_atomic(self.folder / TABLE, lambda file: file.write(text.encode()))

    def markdown(self) -> str:
        """Return the machine and a table for each part."""
        titles = {part.name: part.title for part in self.parts}
        order = [*titles, *dict.fromkeys(r["part"] for r in self.rows if r["part"] not in titles)]
        blocks = [
            "# Measured on this machine",
            "\n".join(f"- {k}: {_shown(v)}" for k, v in self.machine.items()),
        ]
        for name in order:
            own = [row for row in self.rows if row["part"] == name]
            if own:
                blocks += [f"## {titles.get(name, name)}", _table(own)]
        return "\n\n".join(blocks) + "\n"

    @property
    def failed(self) -> list[str]:
        """Names of lines that ended in an error, or whose check did not pass."""
        return [f"{r['part']}: {r['name']}" for r in self.rows if "error" in r or r.get("ok") is False]


def work_through(
    parts: Sequence[Part],
    setting: Setting,
    results: Results,
    report: Callable[[str], None] = print,
    clock: Callable[[], float] = time.perf_counter,
) -> list[str]:
    """Measure the lines that are missing, each part within its time; return the names of those left.

    When every part had its turn, what is left of the whole time goes to the lines left, in the same order.
    """
    left: list[tuple[Part, Line]] = []
    for part in parts:
        until = min(setting.deadline, clock() + part.seconds)
        for line in part.lines(setting):
            if results.has(part.name, line.name):
                continue
            if clock() + setting.needed(line.seconds) > until:
                left.append((part, line))
            else:
                report(_measured(part, line, results))
    again = []
    for part, line in left:
        if clock() + setting.needed(line.seconds) > setting.deadline:
            again.append(f"{part.name}: {line.name}")
        else:
            report(_measured(part, line, results))
    return again


def _measured(part: Part, line: Line, results: Results) -> str:
    """Measure one line and store it, also where it fails: the others do not depend on it."""
    began = time.perf_counter()
    try:
        facts = line.work()
    except Exception as error:
        facts = {"error": f"{type(error).__name__}: {error}"[:500]}
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    row = results.add(part.name, line.name, {**facts, "took_s": time.perf_counter() - began})
    return f"{part.name}: {line.name}: " + ", ".join(
        f"{k} {_shown(v)}" for k, v in row.items() if k not in ("part", "name")
    )


def _read(path: Path) -> Iterator[Facts]:
    try:
        for line in path.read_text().splitlines():
            yield json.loads(line)
    except (OSError, ValueError) as error:
        raise StoreError(f"{path} cannot be read ({error}); delete it, or choose another --out") from error


def _plain(value: Any) -> Any:
    """Return a value as JSON takes it; numbers that are none become words."""
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else str(value)
    return value


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "**no**"
    if isinstance(value, Mapping):
        return ", ".join(f"{k} {v}" for k, v in value.items())
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _table(rows: Sequence[Facts]) -> str:
    columns = [c for c in dict.fromkeys(key for row in rows for key in row) if c != "part"]
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    for row in rows:
        cells = (_shown(row[c]) if c in row else "" for c in columns)
        lines.append("| " + " | ".join(cell.replace("|", "/").replace("\n", " ") for cell in cells) + " |")
    return "\n".join(lines)
