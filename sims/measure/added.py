"""Checkpoints that were added to a run after it was measured: the run is taken up again, and only they are measured."""

from __future__ import annotations

import warnings
from typing import Any

import pyarrow.compute as pc

from sims.models.checkpoints import CheckpointRun
from sims.runs.digests import complete_table
from sims.runs.identity import identity
from sims.runs.layout import TABLES
from sims.runs.lm_measure_config import LmMeasureConfig, LmRun
from sims.runs.store import RunFolder, write_records
from sims.system.files import json_value, make_folder, read_object, write_json
from sims.system.hashing import sha256_of_all

# Fields of a run that grow with its checkpoints.
_GROWING = ("steps", "checkpoints")


def has_more(folder: RunFolder, run: LmRun, measure: LmMeasureConfig) -> bool:
    """Return whether a folder holds this run with fewer of its checkpoints, measured in the same way.

    Raises:
        StoreError: the folder holds something that is not readable.
    """
    if not (folder.path / "run.json").exists():
        return False
    found, wanted = folder.identity(), json_value(identity(run, measure))
    if any(found.get(name) != wanted[name] for name in wanted if name != "train"):
        return False
    before, now = found["train"], wanted["train"]
    if before.keys() != now.keys() or any(before[n] != now[n] for n in now if n not in _GROWING):
        return False
    return len(before["checkpoints"]) < len(now["checkpoints"]) and all(
        checkpoint in now["checkpoints"] for checkpoint in before["checkpoints"]
    )


def warn_of_replaced(folder: RunFolder, run: CheckpointRun) -> None:
    """Warn of checkpoints that were replaced after they were measured; their rows are those of what stood there.

    They are known by the digests in progress.json; of folders without, by the time of the file.

    Warns:
        UserWarning: such a checkpoint.
    """
    digests = _digests(folder)
    for found in run.found:
        part = folder.path / "parts" / f"spectra-{found.step or 0:09d}.parquet"
        measured = next((file for file in (folder.path / "done.json", part) if file.exists()), None)
        if measured is None or found.path.name not in _checkpoints(folder):
            continue
        digest = digests.get(str(found.step))
        if digest is None:
            replaced = found.path.stat().st_mtime > measured.stat().st_mtime
        else:
            replaced = sha256_of_all(found.path) != digest
        if replaced:
            warnings.warn(
                f"{found.path} was written after it was measured, and the rows are those of the earlier file; if its "
                f"weights are others, delete {folder.path} and measure anew",
                stacklevel=2,
            )


def _digests(folder: RunFolder) -> dict[str, str]:
    """Return step → digest of the checkpoint that was measured."""
    file = folder.path / "progress.json"
    return read_object(file).get("files", {}) if file.exists() else {}


def _checkpoints(folder: RunFolder) -> tuple[str, ...]:
    """Return the names of the checkpoints that run.json holds."""
    return tuple(name for _, name, _ in folder.identity()["train"]["checkpoints"])


def take_up(folder: RunFolder, run: LmRun, measure: Any) -> None:
    """Turn the folder of a run into that of an incomplete one, of more checkpoints or steps.

    A kill at any time leaves the complete old run, or the incomplete one; measured rows are never only in memory.

    Raises:
        StoreError: the tables are damaged, or the folder cannot be written.
    """
    found = folder.identity()
    if folder.done:
        parts = make_folder(folder.path / "parts")
        for name in TABLES:
            table = complete_table(folder.path, name)
            for step in table["step"].unique().to_pylist():
                own: list[dict[str, Any]] = table.filter(pc.field("step") == step).to_pylist()
                write_records(parts, name, own, suffix=f"-{step:09d}")
        (folder.path / "done.json").unlink()
    write_json(folder.path / "run.json", {**found, **identity(run, measure)})
