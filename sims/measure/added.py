"""Checkpoints that were added to a run after it was measured: the run is taken up again, and only they are measured."""

from __future__ import annotations

from typing import Any

import pyarrow.compute as pc

from sims.runs.digests import complete_table
from sims.runs.identity import identity
from sims.runs.layout import TABLES
from sims.runs.lm_measure_config import LmMeasureConfig, LmRun
from sims.runs.store import RunFolder, write_records
from sims.system.files import json_value, make_folder, write_json

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


def take_up(folder: RunFolder, run: LmRun, measure: LmMeasureConfig) -> None:
    """Turn a folder for which `has_more` is true into that of an incomplete run of all checkpoints.

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
