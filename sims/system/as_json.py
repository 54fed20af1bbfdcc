"""Values, tables among them, as JSON in full precision."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

import numpy as np
import pandas as pd

_OTHERS = re.compile(r"[^a-z0-9.]+")


def json_text(value: Any) -> str:
    """Return a value as JSON in full precision; what JSON cannot express, such as NaN, becomes null.

    Args:
        value: nested data of Python, numpy and pandas; a data frame becomes a list of records (see `records`).

    >>> json_text({"loss": float("nan"), "table": pd.DataFrame({"Band low": [1 / 3]})})
    '{"loss": null, "table": [{"band_low": 0.3333333333333333}]}'
    """
    return json.dumps(_plain(value), ensure_ascii=False, allow_nan=False)


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return a table as one mapping a row, by the snake_case names of its columns; dots in names stay.

    Columns that would have one such name, as fields of configurations that were written by hand may, keep their own.

    Raises:
        ValueError: two columns have the same name.

    >>> records(pd.DataFrame({"my-field": [1], "My field": [2], "Band low": [3]}))
    [{'my-field': 1, 'My field': 2, 'band_low': 3}]
    """
    columns = list(map(str, table.columns))
    names = [_OTHERS.sub("_", column.lower()).strip("_") for column in columns]
    times = Counter(names)
    names = [name if times[name] == 1 else own for name, own in zip(names, columns, strict=True)]
    if len(set(names)) < len(names):
        raise ValueError(f"columns {columns} hold a name twice; rename one")
    values = [table.iloc[:, i].tolist() for i in range(len(names))]
    return [_plain(dict(zip(names, row, strict=True))) for row in zip(*values, strict=True)]


def _plain(value: Any) -> Any:
    match value:
        case pd.DataFrame():
            return records(value)
        case Mapping():
            return {str(k): _plain(v) for k, v in value.items()}
        case list() | tuple() | set() | np.ndarray() | pd.Series():
            return [_plain(v) for v in value]
        case np.generic():
            return _plain(value.item())
        case float():
            return value if math.isfinite(value) else None
        case PurePath():
            return str(value)
    if value is pd.NA or value is pd.NaT:
        return None
    return value.isoformat() if hasattr(value, "isoformat") else value
