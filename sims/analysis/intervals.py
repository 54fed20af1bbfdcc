"""Compute means over seeds with Student-t intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd
from scipy import stats

LEVEL = 0.95


def seed_intervals(table: pd.DataFrame, by: Sequence[str], value: str = "value") -> pd.DataFrame:
    """Return the mean of a column in each group with a 95 % Student-t interval.

    Args:
        table: one row for each seed and group.
        by: columns that make a group.
        value: the column.

    Returns:
        One row a group: the `by` columns, n (seeds), mean, low, high, min, max. With one seed the interval is NaN:
        one seed has no spread.
    """
    grouped = table.groupby(list(by), sort=False, observed=True, dropna=False)[value]
    result = grouped.agg(n="count", mean="mean", std="std", min="min", max="max").reset_index()
    half = [
        stats.t.ppf(0.5 + LEVEL / 2, n - 1) * s / math.sqrt(n) if n > 1 else math.nan
        for n, s in zip(result["n"], result["std"], strict=True)
    ]
    result["low"] = result["mean"] - half
    result["high"] = result["mean"] + half
    return result.drop(columns="std")
