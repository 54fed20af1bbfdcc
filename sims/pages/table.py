"""A table of text cells."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from sims.pages.number import cell


@dataclass(frozen=True)
class Table:
    """Cells as text.

    Attributes:
        columns: headings; none for a list of names with their values.
        rows: one tuple of cells a row; a cell may have several lines.
        text: indices of left-aligned columns.
        links: indices of columns whose cells are names of sections of the page.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    text: tuple[int, ...] = (0,)
    links: tuple[int, ...] = ()

    @classmethod
    def of_frame(cls, frame: pd.DataFrame) -> Table:
        """Write a data frame: numbers in compact form and to the right, everything else to the left."""
        numeric = [pd.api.types.is_numeric_dtype(frame[c]) for c in frame.columns]
        rows = tuple(tuple(map(cell, row)) for row in frame.itertuples(index=False))
        text = tuple(i for i, right in enumerate(numeric) if not right)
        return cls(tuple(map(str, frame.columns)), rows, text)

    @classmethod
    def of_facts(cls, facts: list[tuple[str, str]]) -> Table:
        """Make a table of names and values, without headings."""
        return cls((), tuple(facts), text=(0, 1))

    def frame(self) -> pd.DataFrame:
        """Return the cells as a data frame of text."""
        return pd.DataFrame(list(self.rows), columns=list(self.columns))
