"""Options that choose runs of a folder; shared by the commands that read runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sims.runs.status import Status

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Selection:
    """Which runs of a folder."""

    status: tuple[Status, ...] = ()
    """Only runs with this status; several may be given."""
    where: str | None = None
    """Only runs that meet a condition on the columns, such as "stage == 'muon' and lr < 1e-3"."""

    def of(self, folder: Path) -> pd.DataFrame:
        """Return the listing of a folder, narrowed to the chosen runs (see `sims.runs.folders.listing`).

        Raises:
            StoreError: no such folder.
            QueryError: `where` is not a condition on its columns.
        """
        from sims.runs.folders import listing
        from sims.runs.select import select

        return select(listing(folder), self.status, self.where)
