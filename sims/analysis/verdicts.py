"""State the outcome of a rule that was fixed beforehand, with its reason in plain words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
import pandas as pd

from sims.system.errors import MeasureError

Outcome = Literal["shown", "not shown", "not resolved"]

# A claim over seeds needs so many of them, and so large a share that agrees.
LEAST_SEEDS = 4
AGREEING = 0.75


@dataclass(frozen=True)
class Verdict:
    """Hold what a rule says about a claim.

    Attributes:
        claim: what is claimed, in plain words.
        outcome: "shown", "not shown" (the data speak against the rule's condition), or "not resolved" (the data do not
            suffice to apply the rule).
        reason: the numbers that decided, or what is missing.

    >>> print(Verdict("The lag flips", "not resolved", "2 seeds; the rule needs 4").sentence)
    The lag flips: not resolved (2 seeds; the rule needs 4).
    """

    claim: str
    outcome: Outcome
    reason: str

    @property
    def sentence(self) -> str:
        """Return claim, outcome and reason as one sentence."""
        return f"{self.claim}: {self.outcome} ({self.reason})."

    def row(self) -> dict[str, str]:
        """Return the verdict as a row of a table: claim, outcome, reason."""
        return asdict(self)


def agreeing(seeds: int) -> int:
    """Return how many of the seeds have to agree: three of four, rounded up.

    >>> agreeing(4), agreeing(6)
    (3, 5)
    """
    return math.ceil(AGREEING * seeds)


def apart(places: np.ndarray, distance: float) -> list[int]:
    """Return which of some rising places to keep so that any two are at least a distance apart.

    >>> apart(np.array([0.0, 1.0, 2.0, 5.0]), 2.0)
    [0, 2, 3]
    """
    kept = [0]
    for i, place in enumerate(places):
        if place - places[kept[-1]] >= distance:
            kept.append(i)
    return kept


def require_columns(table: pd.DataFrame, names: Sequence[str]) -> None:
    """Refuse a table without these columns.

    Raises:
        MeasureError: one is missing.
    """
    absent = [name for name in names if name not in table.columns]
    if absent:
        raise MeasureError(
            f"the table has no column {', '.join(absent)}; it has {', '.join(map(str, table.columns))}"
        )


def require_labels(table: pd.DataFrame, names: Sequence[str]) -> None:
    """Refuse a table without these columns, or with rows that have no value there: they would belong to no group.

    Raises:
        MeasureError: a column or a value is missing.
    """
    require_columns(table, names)
    for name in names:
        if missing := int(table[name].isna().sum()):
            raise MeasureError(
                f"{missing} of {len(table)} rows have no {name}; give each row its {name}, or leave such rows out"
            )
