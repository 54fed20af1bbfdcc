"""A table of text cells, and how numbers and intervals are written in it."""

from __future__ import annotations

import math
from dataclasses import dataclass

ABSENT = "–"


@dataclass(frozen=True)
class Table:
    """Cells as text.

    Attributes:
        columns: headings.
        rows: one tuple of cells a row.
        text: indices of left-aligned columns.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    text: tuple[int, ...] = (0,)


def number(value: float, digits: int = 3) -> str:
    """A number with so many decimals, or a dash where it was not measured."""
    return ABSENT if value is None or math.isnan(value) else f"{value:.{digits}f}"


def interval(value: float, low: float, high: float, digits: int = 3) -> str:
    """ "1.234 [1.100, 1.368]", without brackets where there is no interval."""
    if math.isnan(low):
        return number(value, digits)
    return f"{number(value, digits)} [{number(low, digits)}, {number(high, digits)}]"
