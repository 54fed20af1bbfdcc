"""What the commands that look at runs have in common: which runs, and how a table is shown."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sims.runs.folders import Status, listing
from sims.runs.select import select


@dataclass(frozen=True)
class Selection:
    """Which runs of a folder."""

    status: tuple[Status, ...] = ()
    """Only runs that stand like this; several may be given."""
    where: str | None = None
    """Only runs that meet a condition on the columns, such as "stage == 'muon' and lr < 1e-3"."""

    def of(self, folder: Path) -> pd.DataFrame:
        """The listing of the folder, narrowed."""
        return select(listing(folder), self.status, self.where)


def show_table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], *, title: str | None = None, left: int = 1
) -> None:
    """A table for people on a terminal, tab-separated lines in a file or a pipe.

    Args:
        columns, rows: text.
        left: how many of the first columns are aligned to the left.
    """
    if not sys.stdout.isatty():
        lines = [columns, *rows]
        sys.stdout.writelines("\t".join(_one_line(cell) for cell in line) + "\n" for line in lines)
        return
    table = Table(title=title, title_justify="left")
    for i, name in enumerate(columns):
        table.add_column(Text(name), justify="left" if i < left else "right", overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    Console().print(table)


def cell(value: object) -> str:
    """A value in full, and nothing where it is missing."""
    if value is None or value is pd.NA or value is pd.NaT or value != value:
        return ""
    return value.isoformat() if isinstance(value, pd.Timestamp) else str(value)


def _one_line(text: str) -> str:
    return " ".join(text.split()) if any(c in text for c in "\t\n\r") else text
