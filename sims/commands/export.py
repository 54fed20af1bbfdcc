"""`speclens export`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from sims.runs.selection import Selection


@dataclass(frozen=True)
class Export:
    """Write the runs of a folder, or their measurements, to one file.

    rows and spectra are those of the complete runs; their first columns are the run's id and the fields of the
    configuration that differ. The format follows from the file's ending. An existing file is replaced, as a whole.

    Examples:
        speclens export runs --to runs.csv
        speclens export runs --to rows.parquet --table rows --where "stage == 'untied'"
        speclens export runs --to spectra.json --table spectra --status done
    """

    folder: tyro.conf.Positional[Path]
    """A folder that holds one folder per run."""
    to: Path
    """The file to write: .csv, .parquet or .json (an array of objects)."""
    table: Literal["runs", "rows", "spectra"] = "runs"
    """runs: one row per run, as `speclens ls` lists them. rows: every measured number. spectra: every spectrum."""
    selection: Annotated[Selection, tyro.conf.arg(name="")] = field(default_factory=Selection)

    def run(self) -> int:
        """Write the file; return 0."""
        from sims.pages.number import counted
        from sims.runs.tables import export

        count = export(self.folder, self.selection.of(self.folder), self.table, self.to)
        print(f"{counted(count, 'row')} in {self.to}")
        return 0
