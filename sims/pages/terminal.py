"""Tables of a page on a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.text import Text

from sims.pages.fitted import FittedTable
from sims.pages.markdown import pipes
from sims.pages.page import Tone
from sims.pages.table import Table

STYLES: Mapping[str, str] = {"good": "green", "bad": "bold red", "open": "yellow"}


def rich_table(title: str, table: Table, tones: Mapping[str, Tone] | None = None) -> FittedTable:
    """Return the table as rich prints it, verdicts in the colours of their tones."""
    rows = [
        [Text(text, style=STYLES.get((tones or {}).get(text, ""), "")) for text in row] for row in table.rows
    ]
    return FittedTable(table.columns, rows, title, left=table.text)


def print_table(title: str, table: Table, console: Console) -> None:
    """Print a table under its title: within the width of a terminal, as Markdown elsewhere."""
    if console.is_terminal:
        console.print(rich_table(title, table))
    else:
        console.print(title, *pipes(table), sep="\n", highlight=False, soft_wrap=True)


def print_notes(notes: Iterable[str], console: Console) -> None:
    """Print what a reader must know before believing the numbers, a line each."""
    for note in notes:
        console.print(f"[yellow]note:[/] {escape(note)}", highlight=False, soft_wrap=True)


def print_place(page: Path, console: Console) -> None:
    """Print where a page is."""
    console.print(f"page: {escape(str(page))}", highlight=False, soft_wrap=True)


def toned(text: str, tones: Mapping[str, Tone], shown: str | None = None) -> str:
    """Return rich markup of a text in the colour of its tone.

    Args:
        text: a verdict, or anything else.
        tones: tone by verdict.
        shown: what is printed instead of the text.
    """
    style = STYLES.get(tones.get(text, ""))
    content = escape(text if shown is None else shown)
    return f"[{style}]{content}[/]" if style else content
