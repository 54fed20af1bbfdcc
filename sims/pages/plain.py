"""Tables of text: for people on a terminal, tab-separated in a file or a pipe."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import pandas as pd
from rich.console import Console
from rich.text import Text

from sims.pages.fitted import FittedTable
from sims.system.plain import plain


def show_table(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    title: str | None = None,
    left: int = 1,
    narrow: bool = False,
) -> None:
    """Print a table: within the width of a terminal, tab-separated lines elsewhere.

    Args:
        columns, rows: text.
        title: shown on a terminal only.
        left: how many of the first columns are aligned to the left.
        narrow: without a frame, one space between columns.
    """
    # On a terminal, escape codes of a cell would pass as those of the table.
    rows = [[plain(text) for text in row] for row in rows]
    if not sys.stdout.isatty():
        lines = [columns, *rows]
        sys.stdout.writelines("\t".join(_one_line(cell) for cell in line) + "\n" for line in lines)
        return
    cells = [[Text(cell) for cell in row] for row in rows]
    Console().print(FittedTable(columns, cells, title, left=range(left), framed=not narrow))


def cell(value: object) -> str:
    """Write a value in full precision; an empty text where it is missing."""
    if value is None or value is pd.NA or value is pd.NaT or value != value:
        return ""
    return value.isoformat() if isinstance(value, pd.Timestamp) else str(value)


def _one_line(text: str) -> str:
    return " ".join(text.split()) if any(c in text for c in "\t\n\r") else text
