"""Tables of a page on a terminal."""

from __future__ import annotations

from collections.abc import Mapping

from rich.markup import escape
from rich.table import Table as RichTable

from sims.pages.page import Tone
from sims.pages.table import Table

STYLES: Mapping[str, str] = {"good": "green", "bad": "bold red", "open": "yellow"}


def rich_table(title: str, table: Table, tones: Mapping[str, Tone] | None = None) -> RichTable:
    """Return the table as rich prints it, verdicts in the colours of their tones."""
    shown = RichTable(title=title, title_justify="left")
    for i, name in enumerate(table.columns):
        shown.add_column(name, justify="left" if i in table.text else "right", overflow="fold")
    for row in table.rows:
        shown.add_row(*(toned(text, tones or {}) for text in row))
    return shown


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
