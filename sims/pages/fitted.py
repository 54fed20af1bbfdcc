"""Tables on a terminal that fit its width: no word is cut while there is another way to show it."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType
from rich.table import Table
from rich.text import Text

# Names of runs and paths are words longer than this; they may be divided after these characters.
_LONG_WORD = 20
_PARTS = re.compile(r"[^-/_]+[-/_]*|[-/_]+")
# What columns cost: lines and two spaces, or one space.
_FRAME, _GAP = 3, 1
_OPEN: Mapping[str, Any] = {"box": None, "padding": (0, 1, 0, 0), "pad_edge": False}


@dataclass(frozen=True)
class FittedTable:
    """A table for rich: with a frame, else without one, else each row as a block with one line a column.

    Cells are wrapped at spaces, and long words after a hyphen, a slash or an underscore.

    Attributes:
        columns: headings; none for rows without.
        rows: one text a column.
        title: above the table.
        left: indices of left-aligned columns.
        framed: whether it has a frame where there is room.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[Text]]
    title: str | None = None
    left: Collection[int] = (0,)
    framed: bool = True

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        """Yield the form that fits."""
        count = max(map(len, (self.columns, *self.rows)))
        heads = [Text(name) for name in self.columns] or [Text()] * count
        cells = [[row[i].plain for row in (heads, *self.rows)] for i in range(count)]
        natural = [_longest(line for text in own for line in text.split("\n")) for own in cells]
        words = [_longest(word for text in own for word in text.split()) for own in cells]
        parts = [_longest(part for text in own for part in _parts(text)) for own in cells]
        # Whole words first; a frame takes the room of several parts.
        for framed, least in ((self.framed, words), (False, words), (False, parts)):
            spent = _FRAME * count + 1 if framed else _GAP * count
            widths = _widths(natural, least, options.max_width - spent)
            if widths:
                yield self._table(heads, widths, framed)
                return
        yield from self._blocks(heads, options.max_width)

    def _table(self, heads: Sequence[Text], widths: Sequence[int], framed: bool) -> Table:
        table = Table(
            title=self.title,
            title_justify="left",
            show_header=bool(self.columns),
            **{} if framed else _OPEN,
        )
        for i, (head, width) in enumerate(zip(heads, widths, strict=True)):
            justify = "left" if i in self.left else "right"
            table.add_column(_wrapped(head, width), justify=justify, overflow="fold")
        for row in self.rows:
            table.add_row(*map(_wrapped, row, widths))
        return table

    def _blocks(self, heads: Sequence[Text], room: int) -> Iterator[RenderableType]:
        if self.title:
            yield Text(self.title, style="table.title")
        names = min(_longest(head.plain for head in heads), room // 2)
        for i, row in enumerate(self.rows):
            if i:
                yield Text()
            block = Table(show_header=False, **_OPEN)
            block.add_column(style="table.header", overflow="fold")
            block.add_column(overflow="fold")
            for head, text in zip(heads, row, strict=True):
                block.add_row(_wrapped(head, names), _wrapped(text, room - names - 2 * _GAP))
            yield block


def _longest(texts: Iterable[str]) -> int:
    return max(map(cell_len, texts), default=0)


def _widths(natural: Sequence[int], least: Sequence[int], room: int) -> list[int]:
    """Return widths of columns within the room, the widest ones narrowed first; none where words would be cut."""
    widths = list(natural)
    while sum(widths) > room:
        i = max(range(len(widths)), key=lambda i: (widths[i] > least[i], widths[i]))
        if widths[i] <= least[i]:
            return []
        widths[i] -= 1
    return widths


def _parts(text: str) -> Iterator[str]:
    """Yield what is not divided."""
    for word in text.split():
        yield from _PARTS.findall(word) if cell_len(word) > _LONG_WORD else [word]


def _wrapped(text: Text, width: int) -> Text:
    lines = [part for line in text.plain.split("\n") for part in _lines(line, width)]
    return Text("\n".join(lines), style=text.style)


def _lines(line: str, width: int) -> Iterator[str]:
    """Yield the lines of a text that is longer than the width."""
    if cell_len(line) <= width:
        yield line
        return
    filled = ""
    for word in line.split():
        gap = " " if filled else ""
        for part in _parts(word) if cell_len(gap + word) > width - cell_len(filled) else [word]:
            if filled and cell_len(filled + gap + part) > width:
                yield filled
                filled, gap = "", ""
            filled, gap = filled + gap + part, ""
    yield filled
