"""`speclens ls`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from sims.runs.selection import Selection
from sims.system.errors import QueryError
from sims.system.given import given, refuse


@dataclass(frozen=True)
class Ls:
    """List the runs of a folder: status, settings that differ, losses.

    A terminal gets a table for people; a file or a pipe gets every column, tab-separated and in full precision.
    Columns are run_id, status, stage, batch_size, lr, seed, steps, every other field of the configuration that
    differs between the runs (task.length, measure.every, …), step, tokens, val_loss, seconds_<part>, when, reason.

    Examples:
        speclens ls runs
        speclens ls runs --sort val_loss --limit 10
        speclens ls runs --status failed damaged
        speclens ls runs --where "stage == 'muon' and lr < 1e-3" --json
        speclens ls runs | cut -f 1,10
        speclens ls runs --verify
    """

    folder: tyro.conf.Positional[Path]
    """A folder that holds one folder per run."""
    selection: Annotated[Selection, tyro.conf.arg(name="")] = field(default_factory=Selection)
    sort: str | None = None
    """Column to sort by; by default the order of names."""
    descending: bool = False
    """Largest first."""
    limit: int | None = None
    """Maximal number of rows; by default all, and 200 on a terminal."""
    json: bool = False
    """A JSON array of objects, one per run, instead of a table."""
    verify: bool = False
    """Read every file of the complete runs and compare it with the digest that was stored with it. Adds a column
    "verified"; a run with a damaged file has the status damaged, and the exit status is then 1."""

    def __post_init__(self) -> None:
        if self.sort is None:
            refuse(given(self, ("descending",)), "only for the order of --sort; name a column")
        if self.limit is not None and self.limit < 1:
            raise QueryError(f"--limit is {self.limit}; it must be at least 1")

    def run(self) -> int:
        """Print the table; return 0, or 1 where `verify` has found damage."""
        from sims.runs.select import select
        from sims.studies.overview.listing import show_listing

        chosen = select(self.selection.of(self.folder), sort=self.sort, descending=self.descending)
        if self.verify:
            from sims.runs.verify import verify

            chosen = verify(chosen, self.folder)
        show_listing(chosen, self.limit, self.json)
        return int(self.verify and (chosen["status"] == "damaged").any())
