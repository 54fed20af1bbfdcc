"""Compute means over seeds with 95 % intervals, each within the values that its quantity can take."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from scipy import stats

from sims.analysis.ranges import REAL, Range

LEVEL = 0.95
# A spread below this share of the values is one of rounding.
ROUNDING = 1e-12


def student(freedom: int) -> float:
    """Return how many standard errors a 95 % interval of Student's t reaches on either side."""
    return float(stats.t.ppf(0.5 + LEVEL / 2, freedom))


def mean_interval(
    values: Sequence[float] | np.ndarray | pd.Series, within: Range = REAL, least: int = 2
) -> tuple[float, float, float]:
    """Return the mean of independent values with its 95 % Student interval.

    Args:
        values: (n,) without NaN.
        within: the values that the mean can take (see `Range.interval`).
        least: with fewer values the interval is NaN.

    >>> mean_interval([1.0, 2.0, 3.0])[0]
    2.0
    """
    own = np.asarray(values)
    n = len(own)
    mean = float(own.mean()) if n else math.nan
    half = student(n - 1) * float(own.std(ddof=1)) / math.sqrt(n) if n >= max(least, 2) else math.nan
    return mean, *within.interval(mean, half)


def t_test(values: Sequence[float] | pd.Series) -> float:
    """Return the two-sided p-value of a t-test of mean 0; NaN for one value, or values that vary by rounding alone.

    NaN among the values is left out.

    >>> round(t_test([1.0, 2.0, 3.0]), 3)
    0.074
    """
    own = np.asarray(values, dtype=float)
    own = own[~np.isnan(own)]
    if len(own) < 2:
        return math.nan
    error = own.std(ddof=1) / math.sqrt(len(own))
    if not error > ROUNDING * np.abs(own).max():
        return math.nan
    return float(2 * stats.t.sf(abs(own.mean()) / error, len(own) - 1))


def complete_seeds(table: pd.DataFrame, by: Sequence[str], of: Sequence[str]) -> pd.DataFrame:
    """Return the rows of the seeds that have every cell that any seed of their group has.

    A mean over cells, such as batch sizes, within a seed that lacks some of them would be one over other cells.

    Args:
        table: with a column seed.
        by: columns that make a group.
        of: columns that make a cell.

    >>> rows = pd.DataFrame({"stage": "rope", "seed": [0, 0, 1], "batch_size": [32, 128, 32]})
    >>> complete_seeds(rows, ["stage"], ["batch_size"])["seed"].tolist()
    [0, 0]
    """
    cell = table.groupby(list(of), sort=False, dropna=False).ngroup().rename("cell")
    every, own = (
        cell.groupby([table[name] for name in names], dropna=False).transform("nunique")
        for names in (by, [*by, "seed"])
    )
    return table[own == every]


def seed_intervals(
    table: pd.DataFrame,
    by: Sequence[str],
    value: str = "value",
    within: Range | Callable[[str], Range] = REAL,
    of: str = "quantity",
) -> pd.DataFrame:
    """Return the mean of a column in each group with a 95 % interval over seeds.

    Args:
        table: one row for each seed and group.
        by: columns that make a group.
        value: the column.
        within: the values that it can take (see `Range.interval`); or a function of a column of `by`, for tables of
            several quantities.
        of: that column.

    Returns:
        One row a group: the `by` columns, n (seeds), mean, low, high, min, max. Without bounds low and high are
        Student's. With one seed they are NaN: one seed has no spread.
    """
    grouped = table.groupby(list(by), sort=False, observed=True, dropna=False)[value]
    result = grouped.agg(n="count", mean="mean", std="std", min="min", max="max").reset_index()
    ranges = [within] * len(result) if isinstance(within, Range) else [within(q) for q in result[of]]
    half = [
        student(n - 1) * s / math.sqrt(n) if n > 1 else math.nan
        for n, s in zip(result["n"], result["std"], strict=True)
    ]
    bounds = [r.interval(m, h) for r, m, h in zip(ranges, result["mean"], half, strict=True)]
    result["low"] = [low for low, _ in bounds]
    result["high"] = [high for _, high in bounds]
    return result.drop(columns="std")
