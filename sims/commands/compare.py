"""`speclens compare`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from sims.runs.selection import Selection


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

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Folders of single runs, or folders of runs."""
    selection: Annotated[Selection, tyro.conf.arg(name="")] = field(default_factory=Selection)
    each: bool = False
    """Show every run separately, also those that differ only in the seed."""

    def run(self) -> int:
        """Print the table; return 0."""
        from sims.studies.overview.side_by_side import show_side_by_side

        show_side_by_side(self.runs, self.selection, self.each)
        return 0
