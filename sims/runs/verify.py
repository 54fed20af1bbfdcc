"""Compare the files of complete runs with their digests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from sims.runs.digests import SEALED, files_of, read_outcome, read_sealed
from sims.runs.status import COMPLETE
from sims.system.errors import StoreError

if TYPE_CHECKING:
    import pandas as pd

DIGESTS, NO_DIGESTS = "yes", "no digests"


def verify(runs: pd.DataFrame, folder: Path) -> pd.DataFrame:
    """Read every file of complete runs, and say which are damaged.

    Args:
        runs: rows of the listing of a folder.
        folder: the folder.

    Returns:
        The rows with a column "verified": "yes" where all files are what was written, "no digests" for runs of
        earlier versions, whose checkpoints alone can be checked, and "" for runs that are not complete. A run with a
        damaged file has the status "damaged", and the reason names the file.
    """
    table = runs.copy()
    table["verified"] = ""
    for index in table.index[table["status"].isin(COMPLETE)]:
        run = Path(folder) / str(table.at[index, "run_id"])
        found = list(_damage(run))
        if found:
            table.loc[index, ["status", "reason"]] = ["damaged", "; ".join(found)]
        table.at[index, "verified"] = "" if found else DIGESTS if files_of(read_outcome(run)) else NO_DIGESTS
    return table


def _damage(run: Path) -> Iterator[str]:
    """Yield what is wrong with the files of a run."""
    from sims.runs.store import RunFolder
    from sims.runs.tensors import read_tensors
    from toymodel.errors import CheckpointError, ConfigError

    for name in SEALED:
        try:
            if name in files_of(read_outcome(run)):
                read_sealed(run, name)
        except StoreError as error:
            yield str(error)
    folder = RunFolder(run)
    try:
        files, spec = folder.checkpoints(), folder.spec
    except (StoreError, ConfigError) as error:
        yield str(error)
        return
    for file in files:
        try:
            read_tensors(file, spec)
        except CheckpointError as error:
            yield str(error)
