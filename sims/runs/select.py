"""Select rows of a listing."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from sims.runs.condition import holds, known
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
        where: a condition on the columns (see `sims.runs.condition`).
        sort: a column; missing values come last either way.

    Raises:
        QueryError: an unknown column, or not a condition.
    """
    if status:
        table = table[table["status"].isin(list(status))]
    if where is not None:
        table = table[holds(table, where)]
    if sort is None:
        return table
    if sort not in table.columns:
        raise QueryError(f"--sort {sort!r} is not a column; {known(sort, table.columns)}")
    try:
        return table.sort_values(sort, ascending=not descending, kind="stable", na_position="last")
    except TypeError as error:
        raise QueryError(
            f"--sort {sort!r} has numbers and texts, which have no order; sort by another"
        ) from error
