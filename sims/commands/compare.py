"""`speclens compare`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from sims.runs.selection import Selection
from sims.system.errors import QueryError


@dataclass(frozen=True)
class Compare:
    """Compare complete runs side by side: their settings and their results.

    Shows the final validation loss, the tokens to the loss that all of them reached, and the main measurements.
    Runs that differ only in the seed form one cell, with its mean and a 95 % interval over seeds.

    Examples:
        speclens compare runs/rope-b32-lr0.003-s0-… runs/muon-b32-lr0.003-s0-…
        speclens compare runs --where "batch_size == 32"
        speclens compare runs --where "stage == 'muon'" --each
    """

    runs: Annotated[
        tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(help_behavior_hint="(at least one)")
    ]
    """Folders of single runs, or folders of runs."""
    selection: Annotated[Selection, tyro.conf.arg(name="")] = field(default_factory=Selection)
    each: bool = False
    """Show every run separately, also those that differ only in the seed."""
    json: bool = False
    """One JSON object on stdout in place of tables; notes go to stderr."""

    def __post_init__(self) -> None:
        if not self.runs:
            raise QueryError(
                "speclens compare needs folders of runs; `speclens compare --help` shows examples"
            )

    def run(self) -> int:
        """Print the table; return 0."""
        from sims.pages.answer import answering
        from sims.studies.overview.side_by_side import show_side_by_side

        with answering(self.json) as answer:
            show_side_by_side(self.runs, self.selection, self.each, answer)
        return 0
