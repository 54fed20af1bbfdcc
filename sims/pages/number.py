"""How pages write numbers and intervals."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import pandas as pd

ABSENT = "–"


def missing(value: object) -> bool:
    """Return whether a value was not measured (None, NaN or NA)."""
    return value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value))


def number(value: float, digits: int = 3) -> str:
    """Write a number with a fixed count of decimals, a dash where it is missing."""
    return _written(value, lambda v: f"{v:.{digits}f}")


def significant(value: float, digits: int = 3) -> str:
    """Write a number with a count of significant digits, a dash where it is missing."""
    return _written(value, lambda v: f"{v:.{digits}g}")


def compact(value: float) -> str:
    """Write three significant digits, thousands in full; a dash where the number is missing.

    >>> compact(999.7), compact(12345.6), compact(0.12345)
    ('1000', '12346', '0.123')
    """
    # 999.5 and more round to four digits, which the latter would write as a power of ten.
    return _written(value, lambda v: f"{v:.0f}" if abs(v) >= 999.5 else f"{v:.3g}")


def scientific(value: float) -> str:
    """Write three decimals, or a power of ten where these would hide the value."""
    return _written(value, lambda v: "0" if v == 0 else f"{v:.3f}" if 1e-3 <= abs(v) < 1e4 else f"{v:.1e}")


def interval(
    value: float, low: float, high: float, digits: int = 3, write: Callable[[float], str] | None = None
) -> str:
    """Write "1.234 [1.100, 1.368]", without brackets where there is no interval.

    Args:
        value, low, high: NaN where missing; a bound may be infinite.
        digits: decimals, if `write` is not given.
        write: writes each of the three; by default `number` with `digits` decimals.
    """
    write = write or (lambda v: number(v, digits))
    if missing(value) or missing(low):
        return write(value)
    return f"{write(value)} [{write(low)}, {write(high)}]"


def intervals(table: pd.DataFrame, value: str, low: str, high: str) -> list[str]:
    """Write a column of a table with its bounds, in compact form."""
    return [interval(*row, write=compact) for row in table[[value, low, high]].to_numpy(float)]


def counted(count: int, noun: str) -> str:
    """Write a number of things.

    >>> counted(1, "seed"), counted(8, "seed")
    ('1 seed', '8 seeds')
    """
    return f"{count:,} {noun if count == 1 else noun + 's'}"


def verb(count: int, one: str = "is", more: str = "are") -> str:
    """Return the form of a verb for a number of things.

    >>> verb(1), verb(8), verb(0, "does", "do")
    ('is', 'are', 'do')
    """
    return one if count == 1 else more


def headed(noun: str, values: Iterable[object]) -> str:
    """Write things behind their name.

    >>> headed("stage", ["muon"]), headed("batch size", [32, 64])
    ('stage muon', 'batch sizes 32, 64')
    """
    every = [str(value) for value in values]
    return f"{noun}{'s' * (len(every) != 1)} {', '.join(every)}"


def listed(values: Iterable[float], limit: int = 4, digits: int = 5) -> str:
    """Write the first values of an array and, where there are more, their number."""
    every = [float(v) for v in values]
    shown = ", ".join(significant(v, digits) for v in every[:limit])
    return shown + (f", … ({len(every)} in all)" if len(every) > limit else "")


def cell(value: object) -> str:
    """Write any value of a data frame: floats in compact form, everything else as it is."""
    if missing(value):
        return ABSENT
    return compact(value) if isinstance(value, float) else str(value)


def _written(value: float, write: Callable[[float], str]) -> str:
    if missing(value):
        return ABSENT
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    return write(value)
