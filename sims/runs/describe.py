"""Describe one run from its folder."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from sims.runs.digests import FILES, OWN, read_outcome, read_sealed
from sims.runs.folders import NOT_ITS_OWN, flat, look
from sims.runs.status import COMPLETE
from sims.runs.tables import rows_so_far
from sims.system.errors import StoreError
from sims.system.files import read_json


@dataclass(frozen=True)
class Description:
    """Hold everything that a run folder records of its run.

    Attributes:
        status, reason: see `sims.runs.folders.listing`.
        configuration: every field by its dotted name, those of the measurement under "measure.".
        provenance: likewise; empty where it cannot be read.
        outcome: content of done.json, or the last known step and loss of an incomplete run.
        seconds: by part, of a complete run.
        last: measured numbers of the last step (columns of `sims.runs.layout.ROWS`); losses go on where probes end, so
            the step differs by object.
        files: bytes of every file by its path below the folder.
    """

    run_id: str
    status: str
    reason: str
    configuration: dict[str, Any]
    provenance: dict[str, Any]
    outcome: dict[str, Any]
    seconds: dict[str, float]
    last: pd.DataFrame
    files: dict[str, int]


def describe(folder: Path) -> Description:
    """Read a run folder, complete or not.

    Raises:
        StoreError: it is no run folder of this version, or its tables are damaged.
    """
    folder = folder.resolve()
    record = look(str(folder))
    if record["status"] == "foreign" or not folder.is_dir():
        raise StoreError(
            f"{folder} is not a run folder ({record['reason']}); give the folder of one run, and `speclens ls` a "
            "folder of runs"
        )
    complete = record["status"] in COMPLETE
    if complete or record["reason"] == NOT_ITS_OWN:
        read_sealed(folder, "run.json")
    names = ("step", "tokens", "val_loss")
    outcome = read_outcome(folder) if complete else {n: record[n] for n in names}
    return Description(
        run_id=record["run_id"],
        status=record["status"],
        reason=record["reason"],
        configuration=record["config"],
        provenance=_provenance(folder),
        outcome={k: v for k, v in outcome.items() if k not in ("seconds", FILES, OWN)},
        seconds={part: s for part, s in record["seconds"].items() if s is not None},
        last=_last(folder, complete),
        files=_sizes(folder),
    )


def _sizes(folder: Path) -> dict[str, int]:
    """Return the bytes of every file; those that a run at work replaces meanwhile are left out."""
    found = {}
    for path in sorted(folder.rglob("*")):
        with suppress(FileNotFoundError):
            if path.is_file():
                found[str(path.relative_to(folder))] = path.stat().st_size
    return found


def _provenance(folder: Path) -> dict[str, Any]:
    try:
        origin = read_json(folder / "provenance.json")
    except StoreError:
        return {}
    return flat(origin) if isinstance(origin, dict) else {}


def _last(folder: Path, complete: bool) -> pd.DataFrame:
    rows = rows_so_far(folder, complete)
    return rows[rows["step"] == rows.groupby("object")["step"].transform("max")]
