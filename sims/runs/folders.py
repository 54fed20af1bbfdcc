"""List runs from the small files of their folders; fast for ten thousand runs, without torch."""

from __future__ import annotations

import fcntl
import json
import os
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from sims.runs.digests import files_of, intact, sha256
from sims.runs.layout import FORMAT, NO_RUNS, PAGES, READABLE, TABLE, TEXT
from sims.runs.status import COMPLETE
from sims.system.errors import StoreError
from sims.system.plain import utf8

FIRST = ("run_id", "status", "stage", "batch_size", "lr", "seed", "steps")
LAST = ("step", "tokens", "val_loss")
# Why a run is damaged whose run.json belongs to another one, or was edited.
NOT_ITS_OWN = "run.json cannot be read (its SHA-256 is not the one that was stored)"
# Why a folder is passed over.
RESULTS = "it holds results of a command, and no run"
# Why a run is incomplete that no process works on.
INTERRUPTED = "interrupted; the command that made it continues from its last stored state"
WATCHED = "its training ended without closing the monitor; sims.monitor.complete_run completes it"
_INTEGERS = ("batch_size", "seed", "steps", "step", "tokens")


def listing(folder: Path | str) -> pd.DataFrame:
    """List every run directly below a folder.

    A folder that is damaged or holds something else has a row too, with the status "damaged" or "foreign" and a
    reason. Hidden folders are passed over, and those that this package writes beside the runs: `NO_RUNS` of
    `sims.runs.layout`, and folders of results, known by their files.

    Returns:
        One row a run in the order of names: run_id (the folder's name), status (see `sims.runs.status`), stage,
        batch_size, lr, seed, steps; every other field of the configuration that differs between the runs, by its
        dotted name (task.length, measure.every, …); step, tokens, val_loss (nats; of the last evaluation);
        seconds_<part> of complete runs; when (UTC: the end, or the last sign of life); reason (of a failure, or
        why a folder is not a run).

    Raises:
        StoreError: no such folder.
    """
    try:
        with os.scandir(folder) as entries:
            paths = sorted(e.path for e in entries if e.name[0] != "." and _is_folder(e))
    except OSError as error:
        raise StoreError(f"{folder} cannot be listed ({error.strerror}); give a folder of runs") from error
    found = _table([r for r in map(look, paths) if r["reason"] != RESULTS])
    if os.path.exists(os.path.join(folder, "run.json")) and set(found["status"]) <= {"foreign"}:
        raise StoreError(
            f"{folder} is the folder of one run; `speclens show {folder}` shows it: give the folder that holds it"
        )
    return found


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        # A link that leads to itself, as one that leads nowhere.
        return False


def listing_of(folders: Iterable[Path | str]) -> pd.DataFrame:
    """List these run folders, in the given order (see `listing`)."""
    return _table([look(os.fspath(path)) for path in folders])


def _table(records: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Return what was read of folders as a table."""
    configs = [record["config"] for record in records]
    names = [*FIRST[2:], *varying(configs, FIRST[2:])]
    parts = dict.fromkeys(part for record in records for part in record["seconds"])
    columns: dict[str, list[Any]] = {
        **{name: [r[name] for r in records] for name in FIRST[:2]},
        **{name: [c.get(name) for c in configs] for name in names},
        **{name: [r[name] for r in records] for name in LAST},
        **{f"seconds_{part}": [r["seconds"].get(part) for r in records] for part in parts},
        **{name: [r[name] for r in records] for name in ("when", "reason")},
    }
    table = pd.DataFrame(columns)
    numbers = dict.fromkeys(("lr", "val_loss", *(f"seconds_{part}" for part in parts)), "float64")
    # "Int64" keeps whole numbers whole in columns with missing values.
    table = table.astype({**dict.fromkeys(_INTEGERS, "Int64"), **numbers})
    moments = pd.to_datetime(table["when"].astype("float64"), unit="s", utc=True)
    return table.assign(when=moments.dt.floor("s"))


def varying(configs: Sequence[dict[str, Any]], known: Sequence[str] = ()) -> list[str]:
    """Return the fields that differ between configurations, without the known ones; empty ones do not count."""
    present = [c for c in configs if c]
    names = dict.fromkeys(name for config in present for name in config if name not in known)
    return [name for name in names if len({c.get(name) for c in present}) > 1]


def look(path: str) -> dict[str, Any]:
    """Read a run folder: run_id, status, reason, config (flat), step, tokens, val_loss, seconds, when."""
    record: dict[str, Any] = {
        "run_id": utf8(os.path.basename(path.rstrip("/"))),
        "status": "damaged",
        "reason": "",
        "config": {},
        "seconds": {},
        **dict.fromkeys((*LAST, "when")),
    }
    for attempt in (1, 2, 3):
        try:
            _identify(path, set(os.listdir(path)), record)
            break
        except FileNotFoundError as error:
            # A run that is at work replaces its files: what has gone meanwhile is looked for again.
            if attempt == 3:
                record.update(status="damaged", reason=utf8(f"{error.filename} does not exist"))
        except _Unreadable as error:
            record.update(status="damaged", reason=utf8(str(error)))
            break
        except OSError as error:
            record.update(status="damaged", reason=f"it cannot be read ({error.strerror})")
            break
    return record


def flat(data: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested fields by their dotted names; lists become text, to be compared and shown."""
    found: dict[str, Any] = {}
    for key, value in data.items():
        if isinstance(value, dict):
            found |= flat(value, f"{prefix}{key}.")
        else:
            value = json.dumps(value) if isinstance(value, list) else value
            found[utf8(prefix + key)] = utf8(value) if isinstance(value, str) else value
    return found


class _Unreadable(Exception):
    """Raised for a damaged file of a run folder; the message names the fault."""


def _identify(path: str, names: set[str], record: dict[str, Any]) -> None:
    if "run.json" not in names:
        if "parts" in names:
            record.update(status="waiting", reason="stopped before its configuration was written")
        else:
            known = os.path.basename(path) in NO_RUNS or _of_results(names)
            record.update(status="foreign", reason=RESULTS if known else "it has no run.json")
        return
    data, _, digest = _read(path, "run.json")
    version = data.get("format")
    if version not in READABLE:
        known = " and ".join(map(str, READABLE))
        record.update(
            status="foreign", reason=f"its format is {reprlib.repr(version)}, this version reads {known}"
        )
        return
    if not (isinstance(data.get("train"), dict) and isinstance(data.get("measure"), dict)):
        raise _Unreadable("run.json holds no configuration")
    config = flat(data["train"]) | flat(data["measure"], "measure.")
    # A toy's step has batch_size sequences of task.length tokens; a language model's run records its tokens.
    counts = "tokens_per_step" if data.get("kind") == TEXT else "task.length"
    if counts == "task.length" and counts not in config and "task.kind" in config:
        config[counts] = _task_length(data["train"]["task"])
    for name in ("batch_size", "seed", "steps", counts):
        _whole(config, name, "run.json")
    _number(config, "lr", "run.json")
    if type(config.get("stage")) is not str:
        raise _Unreadable(f"run.json has stage {reprlib.repr(config.get('stage'))}, which is not a name")
    record["config"] = config
    if "done.json" in names:
        _complete(path, names, record, digest)
    else:
        _incomplete(path, names, record)
        if version != FORMAT and record["status"] == "waiting":
            record["reason"] = (
                f"incomplete, in format {version}; complete it with the version named in provenance.json, or delete it"
            )


def _task_length(values: dict[str, Any]) -> int:
    """Return the length of a task that computes it from its settings."""
    from toymodel.errors import ConfigError
    from toymodel.tasks import task_from

    try:
        return task_from(values).length
    except (ConfigError, TypeError) as error:
        raise _Unreadable(f"run.json: {error}") from error


def _of_results(names: Iterable[str]) -> bool:
    """Return whether a folder with these files is one of a page, with its figures and tables."""
    kinds = {os.path.splitext(name)[1] for name in names if name[0] != "."}
    return bool(kinds & PAGES) and kinds <= {*PAGES, TABLE}


def _complete(path: str, names: set[str], record: dict[str, Any], digest: str) -> None:
    outcome, when, _ = _read(path, "done.json")
    record.update(
        when=when,
        step=_whole(outcome, "step", "done.json"),
        tokens=_whole(outcome, "tokens", "done.json"),
        val_loss=_number(outcome, "val_loss", "done.json"),
    )
    seconds = outcome.get("seconds")
    if not isinstance(seconds, dict):
        raise _Unreadable("done.json has no seconds by part")
    record["seconds"] = {part: _number(seconds, part, "done.json") for part in seconds}
    ended = "done" if outcome.get("ended") == "finished" else outcome.get("ended")
    if not intact(outcome):
        raise _Unreadable("done.json is not what was written (its SHA-256 differs)")
    missing = [f"{name}.parquet" for name in ("rows", "spectra") if f"{name}.parquet" not in names]
    if ended not in COMPLETE:
        raise _Unreadable(f"done.json says that it ended by {reprlib.repr(ended)}")
    if missing:
        raise _Unreadable(f"it is marked complete without {' and '.join(missing)}")
    if files_of(outcome).get("run.json", {}).get("sha256", digest) != digest:
        # Nobody is told the configuration of another run.
        record["config"] = {}
        raise _Unreadable(NOT_ITS_OWN)
    _check_sizes(path, files_of(outcome))
    record["status"] = ended
    # Why it diverged, or what is odd about its checkpoints.
    record["reason"] = str(outcome.get("notes") or outcome.get("reason") or "")


def _check_sizes(path: str, files: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse tables that are empty or cut short; `sims.runs.verify` reads them whole."""
    for name in ("rows.parquet", "spectra.parquet"):
        file, known = os.path.join(path, name), files.get(name, {}).get("bytes")
        size = os.stat(file).st_size
        if known is not None and size != known:
            raise _Unreadable(f"{name} cannot be read: it has {size} bytes, and {known} were written")
        if known is None and not _is_parquet(file):
            raise _Unreadable(f"{name} cannot be read: it is no Parquet file, or cut short")


def _is_parquet(path: str) -> bool:
    """Return whether a file begins and ends as a Parquet file does."""
    with open(path, "rb", buffering=0) as file:
        first = file.read(4)
        file.seek(-min(4, os.fstat(file.fileno()).st_size), os.SEEK_END)
        return first == file.read(4) == b"PAR1"


def _incomplete(path: str, names: set[str], record: dict[str, Any]) -> None:
    record["status"] = "waiting"
    if "progress.json" in names:
        progress, record["when"], _ = _read(path, "progress.json")
        step, config = _whole(progress, "step", "progress.json"), record["config"]
        record.update(
            step=step,
            tokens=step * _tokens_per_step(config),
            val_loss=_number(progress, "val_loss", "progress.json"),
        )
    if "failed.json" in names:
        failure, record["when"], _ = _read(path, "failed.json")
        record.update(status="failed", reason=utf8(str(failure.get("error", ""))))
    elif ".lock" in names and _locked(os.path.join(path, ".lock")):
        record["status"] = "running"
    elif "progress.json" in names:
        record["reason"] = WATCHED if record["config"].get("model.kind") == "watched" else INTERRUPTED


def _tokens_per_step(config: dict[str, Any]) -> int:
    known = config.get("tokens_per_step")
    return config["batch_size"] * config["task.length"] if known is None else known


def _read(path: str, name: str) -> tuple[dict[str, Any], float, str]:
    """Return the content of a JSON file, the time it was written, and its SHA-256."""
    try:
        with open(os.path.join(path, name), "rb", buffering=0) as file:
            text = file.read()
            data = json.loads(text)
            when = os.fstat(file.fileno()).st_mtime
    except (ValueError, RecursionError) as error:
        raise _Unreadable(f"{name} is not valid JSON ({error})") from error
    if not isinstance(data, dict):
        raise _Unreadable(f"{name} is not a JSON object")
    return data, when, sha256(text)


def _whole(data: dict[str, Any], name: str, file: str) -> int:
    value = data.get(name)
    if type(value) is not int or not 0 <= value < 2**63:
        raise _Unreadable(f"{file} has {name} {reprlib.repr(value)}, which is not a count")
    return value


def _number(data: dict[str, Any], name: str, file: str) -> float | None:
    """Return a number, or None where it is not finite (which JSON cannot express)."""
    value = data.get(name)
    if value is None:
        return None
    try:
        if type(value) in (int, float):
            return float(value)
    except OverflowError:
        pass
    raise _Unreadable(f"{file} has {name} {reprlib.repr(value)}, which is not a number")


def _locked(path: str) -> bool:
    """Return whether a process works on the run.

    Taking the lock for a moment is harmless: workers ask for it repeatedly.
    """
    try:
        with open(path) as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        # Without locks on this file system nobody can tell; a run that has begun counts as running.
        return True
    return False
