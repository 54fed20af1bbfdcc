"""Select rows of a listing."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pandas as pd
from pandas.api.types import is_bool_dtype

from sims.system.errors import QueryError


def select(
    table: pd.DataFrame,
    status: Sequence[str] = (),
    where: str | None = None,
    sort: str | None = None,
    descending: bool = False,
) -> pd.DataFrame:
    """Select and sort rows of a listing.

    Args:
        table: the result of `sims.runs.folders.listing`.
        status: keep runs of these; empty for all.
        where: a condition in the syntax of `pandas.DataFrame.query`; dotted names need no quotes. A run that lacks a
            value does not meet a condition on it.
        sort: a column; missing values come last either way.

    Raises:
        QueryError: an unknown column, or not a condition.
    """
    if status:
        table = table[table["status"].isin(list(status))]
    if where is not None:
        table = table[_holds(table, where)]
    if sort is None:
        return table
    if sort not in table.columns:
        raise QueryError(f"--sort {sort!r} is not a column; there are {', '.join(table.columns)}")
    try:
        return table.sort_values(sort, ascending=not descending, kind="stable", na_position="last")
    except TypeError as error:
        raise QueryError(
            f"--sort {sort!r} has numbers and texts, which have no order; sort by another"
        ) from error


def _holds(table: pd.DataFrame, where: str) -> pd.Series:
    dotted = sorted((c for c in table.columns if "." in c), key=len, reverse=True)
    expression = where
    if dotted:
        names = "|".join(re.escape(name) for name in dotted)
        expression = re.sub(rf"(?<![\w.`])({names})(?![\w.`])", r"`\1`", where)
    try:
        result = table.eval(expression, engine="python")
    except Exception as error:
        raise QueryError(
            f"--where {where!r} cannot be evaluated ({error}); the columns are {', '.join(table.columns)}"
        ) from error
    if not (isinstance(result, pd.Series) and is_bool_dtype(result)):
        raise QueryError(
            f"--where {where!r} is not a condition; write one such as \"stage == 'muon' and lr < 1e-3\""
        )
    return result.fillna(False).astype(bool)
