"""What the measured post-trainings say: changes of each number, paired over seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from sims.analysis.intervals import seed_intervals
from sims.analysis.ranges import POSITIVE, REAL, SHARE, Range
from sims.studies.post_train.measured import ARMS, BEFORE, KS, PostData
from toymodel.posttrain.config import KINDS

PLAIN = "plain"
# Their changes are ratios: differences of logarithms.
RATIOS = ("rankme", "rankme_without", "distinct")
COLUMNS = ["cell", "arm", "against", "quantity"]
# Beginnings of the names of shares.
SHARES = ("pass@", "accuracy", "keep_", "drop_")


class PostAnswers:
    """Answer from the numbers of all models.

    Args:
        data: what was measured.
    """

    def __init__(self, data: PostData) -> None:
        self.data = data

    @cached_property
    def levels(self) -> pd.DataFrame:
        """Return the means over seeds: cell, arm, quantity, n, mean, low, high."""
        return seed_intervals(self.data.table, ["cell", "arm", "quantity"], within=range_of)

    @cached_property
    def differences(self) -> pd.DataFrame:
        """Return the change of every number in every seed: cell, seed, arm, against, quantity, value.

        Against is "before" or "plain". Those of `RATIOS` are differences of logarithms.
        """
        table = self.data.table
        logs = table["quantity"].isin(RATIOS)
        table = table.assign(value=table["value"].where(~logs, np.log(table["value"].where(logs, 1.0))))
        wide = table.pivot(index=["cell", "seed", "quantity"], columns="arm", values="value")
        parts = [
            (wide[arm] - wide[against]).rename("value").reset_index().assign(arm=arm, against=against)
            for against in (BEFORE, PLAIN)
            for arm in KINDS
            if arm != against
        ]
        return pd.concat(parts, ignore_index=True).dropna()

    @cached_property
    def changes(self) -> pd.DataFrame:
        """Return their means with 95 % Student intervals, paired over seeds: `COLUMNS`, n, mean, low, high."""
        return seed_intervals(self.differences, COLUMNS, within=_range_of_change)

    def change(self, cell: str, arm: str, against: str, quantity: str) -> Mapping[str, Any]:
        """Return n, mean, low and high of one change: 0 and NaN of a number that no seed has in both."""
        own: list[Any] = _of(self.changes, cell, arm, against, quantity).to_dict("records")
        return own[0] if own else {"n": 0, "mean": math.nan, "low": math.nan, "high": math.nan}

    def seeds(self, cell: str, arm: str, against: str, quantity: str) -> pd.Series:
        """Return one change in every seed."""
        return _of(self.differences, cell, arm, against, quantity)["value"]

    @cached_property
    def passes(self) -> pd.DataFrame:
        """Return pass@k by k: cell, arm, seed, k, value."""
        table = self.data.table
        names = {f"pass@{k}": k for k in KS}
        own = table[table["quantity"].isin(names)]
        return own.assign(k=own["quantity"].map(names))

    def level(self, cell: str, arm: str, quantity: str) -> float:
        """Return the mean over seeds; NaN of a number that none has."""
        own = self.levels
        chosen = (own["cell"] == cell) & (own["arm"] == arm) & (own["quantity"] == quantity)
        return float(own.loc[chosen, "mean"].max())

    @property
    def arms(self) -> tuple[str, ...]:
        """Return the run itself and all kinds."""
        return ARMS


def range_of(quantity: str) -> Range:
    """Return the values that a number can take: shares from 0 to 1, α-ReQ any, all others above 0.

    >>> range_of("pass@16").high, range_of("val_loss").low, range_of("alpha_req").low
    (1.0, 0.0, -inf)
    """
    if quantity.startswith(SHARES):
        return SHARE
    return REAL if quantity == "alpha_req" else POSITIVE


def _range_of_change(quantity: str) -> Range:
    return REAL if quantity in RATIOS else range_of(quantity).change


def _of(table: pd.DataFrame, *values: str) -> pd.DataFrame:
    for column, value in zip(COLUMNS, values, strict=True):
        table = table[table[column] == value]
    return table
