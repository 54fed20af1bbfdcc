"""Read a folder of training logs, with an optional index, as a table of runs and one of points."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from sims.studies.speedruns.batches import LARGEST
from sims.studies.speedruns.log import POINTS, TrainingLog, read_log
from sims.system.errors import StoreError

INDEX = "index.csv"
ENDINGS = (".log", ".txt", ".out", ".stdout", ".jsonl")
# Kept in the table as refused, so that nobody misses them.
PACKED = (".gz", ".zst", ".xz", ".bz2")
# An index may leave out record numbers, each of which has a row; more than these are a slip of the pen.
_MOST_MISSING = 10_000
_NEEDED = ("record", "run", "log")


_CURVE = ("step", "tokens", "value", "seconds", "step_avg_ms")


@dataclass(frozen=True)
class TrainingLogs:
    """The logs of one folder.

    Attributes:
        runs: one row per run, in order: name, record (that the run belongs to), run (0 for the official one), date,
            change, file (its path in the folder), format, status (whole, partial, refused or missing), reason, planned
            (steps), timing, tokens_per_step (their mean where they change), tokens_from (where they are from, or what
            the log says instead), hardware, settings. Logs that are missing or cannot be read have a row too.
        points: one row per run and step: name, record, run and `POINTS`.
        notes: the text of the folder's README; empty if there is none.
    """

    runs: pd.DataFrame
    points: pd.DataFrame
    notes: str

    @cached_property
    def _curves(self) -> dict[str, pd.DataFrame]:
        own = self.points[self.points["val_loss"].notna()].rename(columns={"val_loss": "value"})
        return {str(name): part[list(_CURVE)] for name, part in own.groupby("name", sort=False)}

    def curve(self, name: str) -> pd.DataFrame:
        """Return the validation curve of one run: step, tokens, value (nats), seconds, step_avg_ms."""
        return self._curves.get(name, pd.DataFrame(columns=list(_CURVE), dtype=float))

    def counted_curves(self) -> pd.DataFrame:
        """Return the curves of the runs that count: record, and the columns of `curve`."""
        counted = self.runs[self.runs["run"] == 0].sort_values("record")
        pairs = zip(counted["name"], counted["record"], strict=True)
        empty = self.curve("").assign(record=0)
        return pd.concat([empty, *(self.curve(name).assign(record=record) for name, record in pairs)])


def read_logs(folder: Path, tokens_per_step: int | None = None) -> TrainingLogs:
    """Read every log of a folder.

    Args:
        folder: has files ending in .log, .txt, .out, .stdout or .jsonl, in it or below it. An index.csv in it (columns
            record, run, log; optionally date, change, tokens_per_step) assigns them to records; without one each log
            is one record, in order of names. The logs of a file that holds several are file#1, file#2 and so on; of a
            listed file the first is the listed run, and the others are further runs of its record.
        tokens_per_step: used if neither the index nor the log has it.

    Raises:
        StoreError: no folder, no log in it, or an index that cannot be used.
    """
    if not folder.is_dir():
        raise StoreError(f"{folder} is not a folder; give one that holds training logs")
    if tokens_per_step is not None and not 1 <= tokens_per_step <= LARGEST:
        raise StoreError(f"--tokens-per-step is {tokens_per_step}; it must lie in 1 … {LARGEST:,}")
    listed = _index(folder)
    named = {row["log"] for row in listed}
    unlisted = sorted((name for name in _files(folder) if name not in named), key=natural)
    entries = listed + [{"log": name} for name in unlisted]
    if not entries:
        raise StoreError(f"{folder} holds no training log; logs are files ending in {', '.join(ENDINGS)}")
    rows, points = [], []
    stems = Counter(Path(entry["log"]).with_suffix("") for entry in entries)
    used = {(int(row["record"]), int(row["run"])) for row in listed}
    for entry in entries:
        path = Path(entry["log"])
        name = path if stems[path.with_suffix("")] > 1 else path.with_suffix("")
        logs = _logs(folder, entry, tokens_per_step)
        for i, log in enumerate(logs):
            place = _place(entry, i, used)
            used.add(place)
            part = f"#{i + 1}" if len(logs) > 1 else ""
            row = _row(entry, log, tokens_per_step) | {"record": place[0], "run": place[1]}
            row |= {"name": name.as_posix() + part, "file": entry["log"] + part}
            rows.append(row)
            labels = {"name": row["name"], "record": row["record"], "run": row["run"]}
            points.append(log.points.assign(**labels)[[*labels, *POINTS]])
    filled = [p for p in points if not p.empty] or points[:1]
    readme = next((p for p in sorted(folder.iterdir()) if _is_readme(p) and p.is_file()), None)
    notes = "" if readme is None else readme.read_text("utf-8", "replace").strip()
    return TrainingLogs(pd.DataFrame(rows), pd.concat(filled, ignore_index=True), notes)


def _files(folder: Path) -> list[str]:
    """Return the paths of the files that may be logs, below the folder; links to folders are not followed."""

    def refuse(error: OSError) -> None:
        raise StoreError(f"{error.filename} cannot be read: {error.strerror}")

    found = []
    for here, below, names in os.walk(folder, onerror=refuse):
        below[:] = sorted(name for name in below if not name.startswith("."))
        paths = (Path(here, name) for name in names)
        found += [p for p in paths if _is_log(p) and p.is_file() and not _is_readme(p)]
    return [p.relative_to(folder).as_posix() for p in found]


def _is_log(path: Path) -> bool:
    """Return whether a file ends as a log does, also where it is compressed."""
    packed = path.suffix.lower() in PACKED
    return (Path(path.stem) if packed else path).suffix.lower() in ENDINGS


def natural(name: str) -> tuple[tuple[int, str], ...]:
    """Return a sorting key that puts run2 before run10."""
    parts = re.split(r"(\d+)", name)
    return tuple((int(part), "") if i % 2 else (0, part) for i, part in enumerate(parts))


def _is_readme(path: Path) -> bool:
    return path.stem.lower() == "readme"


def _index(folder: Path) -> list[dict[str, Any]]:
    path = folder / INDEX
    if not path.exists():
        return []
    try:
        table = pd.read_csv(path, dtype={"log": str})
    except (OSError, ValueError) as error:
        raise StoreError(f"{path} cannot be read as a table ({error}); mend it or take it away") from error
    missing = [name for name in _NEEDED if name not in table]
    if missing:
        raise StoreError(f"{path} has no column {', '.join(missing)}; it needs {', '.join(_NEEDED)}")
    if table["log"].isna().any():
        raise StoreError(f"{path} has a row without a log; name its file or take the row away")
    for column in ("record", "run", *(["tokens_per_step"] if "tokens_per_step" in table else [])):
        if not pd.api.types.is_integer_dtype(table[column]):
            raise StoreError(f"column {column} of {path} holds something else than whole numbers; mend it")
    if "tokens_per_step" in table and not table["tokens_per_step"].between(1, LARGEST).all():
        raise StoreError(f"column tokens_per_step of {path} has a number outside 1 … {LARGEST:,}; mend it")
    for column in (["record", "run"], ["log"]):
        twice = table[table.duplicated(column)]
        if len(twice):
            shown = " ".join(str(v) for v in twice.iloc[0][column])
            raise StoreError(f"{path} lists {' and '.join(column)} {shown} twice; a run has one log")
    numbers = sorted(table["record"])
    if numbers and numbers[-1] - numbers[0] + 1 > len(numbers) + _MOST_MISSING:
        raise StoreError(
            f"{path} numbers its records from {numbers[0]} to {numbers[-1]}; number them in a row"
        )
    outside = [log for log in map(str, table["log"]) if Path(log).is_absolute() or ".." in Path(log).parts]
    if outside:
        raise StoreError(
            f"{path} names {outside[0]!r}; a log lies in the folder or below it: name it without a path that leaves it"
        )
    return [
        {str(k): v for k, v in row.items() if v == v}
        for row in table.sort_values(["record", "run"], kind="stable").to_dict("records")
    ]


def _place(entry: Mapping[str, Any], number: int, used: Collection[tuple[int, int]]) -> tuple[int, int]:
    """Return record and run of a log, by its number in its file.

    The first is the one that the index lists, others are further runs of its record; without an index each log is a
    record.
    """
    if "record" not in entry:
        return max((record for record, _ in used), default=0) + 1, 0
    record, run = int(entry["record"]), int(entry["run"])
    return record, run if number == 0 else max(other for of, other in used if of == record) + 1


def _logs(folder: Path, entry: Mapping[str, Any], tokens_per_step: int | None) -> list[TrainingLog]:
    path = folder / entry["log"]
    given = entry.get("tokens_per_step", tokens_per_step)
    if path.exists():
        return read_log(path, None if given is None else int(given))
    gone = f"{INDEX} lists it, but it is not there"
    return [TrainingLog(path, "", "missing", gone, pd.DataFrame(columns=list(POINTS), dtype=float))]


def _row(entry: Mapping[str, Any], log: TrainingLog, tokens_per_step: int | None) -> dict[str, Any]:
    batches, last = log.header.batches, log.points.tail(1)
    # Refused and missing logs have no points, and the size that is given.
    size = entry.get("tokens_per_step", tokens_per_step) if last.empty else batches.constant
    if batches.constant is None and batches.sizes and int(last["step"].iloc[0]):
        size = float(last["tokens"].iloc[0]) / int(last["step"].iloc[0])
    return {
        "name": "",
        "record": 0,
        "run": 0,
        "date": str(entry.get("date", "")),
        "change": str(entry.get("change", "")),
        "file": "",
        "format": log.format,
        "status": str(log.status),
        "reason": log.reason,
        "planned": log.planned,
        "timing": log.timing,
        "tokens_per_step": None if size is None else round(size),
        "tokens_from": batches.found,
        "hardware": log.header.hardware,
        "settings": log.header.settings,
    }
