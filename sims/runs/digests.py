"""Digests of the files of a complete run: damage on the disk is found before a number is believed.

done.json holds the size and the SHA-256 of each file in `SEALED`, and a SHA-256 of its own content. Runs of earlier
versions have none; they are read with a warning. Loads without torch.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa

from sims.runs.layout import read_table
from sims.system.errors import StoreError, UnverifiedWarning
from sims.system.files import json_value, read_object

# What the done.json of every version says.
OUTCOME = ("ended", "seconds")
SEALED = ("run.json", "rows.parquet", "spectra.parquet")
# Keys of done.json that are not part of the outcome.
FILES, OWN = "files", "sha256"


def sha256(data: bytes) -> str:
    """Return the SHA-256 of bytes in hexadecimal digits.

    >>> sha256(b"")[:8]
    'e3b0c442'
    """
    return hashlib.sha256(data).hexdigest()


def sealed(folder: Path, outcome: Mapping[str, Any]) -> dict[str, Any]:
    """Return an outcome with the sizes and digests of the files of its run, and with its own digest.

    Args:
        folder: of the run.
        outcome: of the run, in values that JSON can express.
    """
    files = {name: _facts(folder / name) for name in SEALED if (folder / name).exists()}
    record = {**json_value(dict(outcome)), FILES: files}
    return {**record, OWN: _own(record)}


def intact(record: Mapping[str, Any]) -> bool:
    """Return whether the content of a done.json is what was written; always, where it has no digest."""
    if not {OWN, FILES} & record.keys():
        return True
    return record.get(OWN) == _own({k: v for k, v in record.items() if k != OWN})


def files_of(record: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return bytes and sha256 of each sealed file, from the content of a done.json; empty where it has none."""
    return record.get(FILES) or {}


def read_outcome(folder: Path) -> dict[str, Any]:
    """Read the done.json of a run, with its digests.

    Raises:
        StoreError: missing, or not what was written.
    """
    record = read_object(folder / "done.json", *OUTCOME)
    if not intact(record):
        raise damaged(folder / "done.json")
    return record


def read_sealed(folder: Path, name: str) -> bytes:
    """Read a file of a complete run and compare it with its digest.

    Warns:
        UnverifiedWarning: the run has no digests.

    Raises:
        StoreError: missing, or not what was written.
    """
    path, known = folder / name, files_of(read_outcome(folder)).get(name)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror}") from error
    if known is None:
        _warn_unverified(folder.parent.absolute())
    elif sha256(data) != known["sha256"]:
        raise damaged(path)
    return data


def complete_table(folder: Path, name: str) -> pa.Table:
    """Read "rows" or "spectra" of a complete run, verified, in the columns of the present format.

    Warns:
        UnverifiedWarning: the run has no digests.

    Raises:
        StoreError: missing, not what was written, or with columns of no known format.
    """
    file = f"{name}.parquet"
    return read_table(folder / file, read_sealed(folder, file))


def unverified(out: Path) -> str:
    """Say that runs of a folder have no digests."""
    return (
        f"some runs in {out} were written by a version that stored no digests; their files are read, but damage to "
        "them would not be found"
    )


@cache
def _warn_unverified(out: Path) -> None:
    """Warn once for a folder of runs in a process.

    Python shows equal warnings once only until any library changes the filters, as drawing does.
    """
    warnings.warn(UnverifiedWarning(unverified(out)), stacklevel=3)


def damaged(path: Path) -> StoreError:
    """Return the error for a file that is not what was written."""
    return StoreError(
        f"{path} cannot be read (its SHA-256 is not the one that was stored); it was damaged or edited: restore it "
        "from a copy, or delete the run folder and run again"
    )


def _facts(path: Path) -> dict[str, Any]:
    data = path.read_bytes()
    return {"bytes": len(data), "sha256": sha256(data)}


def _own(record: Mapping[str, Any]) -> str:
    return sha256(json.dumps(record, sort_keys=True).encode())
