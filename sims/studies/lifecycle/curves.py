"""Arrange what was measured as arrays over seeds, looks and layers, as the rules take it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import pandas as pd

from sims.studies.lifecycle.measured import TYPES, LifeData
from sims.system.errors import MeasureError

# A type whose matrices start at zero, as those that write into the residual stream, has no rank at the first look.
LEAST_LOOKS = 4


@dataclass(frozen=True, eq=False)
class Curves:
    """Hold one number of every layer of the runs of a cell.

    Attributes:
        steps, clock: (looks,) training steps, and sums of learning rates.
        values: (seeds, looks, layers) for each type of matrix.
        seeds: of the runs, in this order.
    """

    steps: np.ndarray
    clock: np.ndarray
    values: Mapping[str, np.ndarray]
    seeds: tuple[int, ...]

    @cached_property
    def whole(self) -> Curves:
        """Return the same from the first look on at which all types have a value in all layers and seeds.

        Raises:
            MeasureError: too few looks remain.
        """
        known = np.all([np.isfinite(v).all(axis=(0, 2)) for v in self.values.values()], axis=0)
        first = len(known) - int(np.argmin(known[::-1])) if not known.all() else 0
        if len(known) - first < LEAST_LOOKS:
            raise MeasureError(
                f"values are missing up to look {first} of {len(known)}; the rules need {LEAST_LOOKS} looks at which "
                "all matrices have one"
            )
        own = {name: v[:, first:] for name, v in self.values.items()}
        return Curves(self.steps[first:], self.clock[first:], own, self.seeds)

    @cached_property
    def started(self) -> Curves:
        """Return the types that have a value at the first look: a matrix that starts at zero has no rank to lose."""
        return Curves(
            self.steps,
            self.clock,
            {n: v for n, v in self.values.items() if np.isfinite(v[:, 0]).all()},
            self.seeds,
        )

    @property
    def last(self) -> dict[str, np.ndarray]:
        """Return (seeds, layers) at the end of training for each type."""
        return {name: v[:, -1] for name, v in self.values.items()}


@lru_cache(maxsize=256)
def curves(data: LifeData, cell: str, column: str) -> Curves:
    """Return a column of the matrices of a cell; ln of it where it is a rank.

    Looks that not all seeds have are left out.

    Raises:
        MeasureError: fewer than four looks in common.
    """
    own = data.of(cell)
    return _arranged(own, column, [t for t in TYPES.values() if t in set(own["type"])])


def product_curves(data: LifeData, cell: str, column: str) -> Curves | None:
    """Return the same of the products of heads, mean over the heads of a block; None where they were not measured."""
    own = data.products[data.products["cell"] == cell]
    if column not in own or own[column].notna().sum() == 0:
        return None
    logs = _is_rank(column)
    own = own.assign(**{column: np.log(own[column])}) if logs else own
    by = ["seed", "step", "clock", "block", "type"]
    # A head whose factor is still zero makes the mean of its block missing.
    mean = own.groupby(by, sort=False)[column].agg(lambda v: v.mean(skipna=False)).reset_index()
    return _arranged(mean, column, sorted(set(mean["type"]), reverse=True), logged=logs)


def _is_rank(column: str) -> bool:
    return column in ("stable_rank", "rankme")


def _arranged(table: pd.DataFrame, column: str, types: Sequence[str], logged: bool = False) -> Curves:
    looks = table.groupby("step")["seed"].nunique()
    seeds = tuple(int(s) for s in sorted(table["seed"].unique()))
    steps = looks.index[looks == len(seeds)].to_numpy()
    if len(steps) < LEAST_LOOKS:
        raise MeasureError(f"the runs have {len(steps)} looks in common; the rules need {LEAST_LOOKS}")
    table = table[table["step"].isin(steps)]
    layers = int(table["block"].max()) + 1
    found = {}
    for name in types:
        own = table[table["type"] == name]
        wide = own.pivot_table(
            index=["seed", "step"], columns="block", values=column, dropna=False, sort=True
        )
        index = pd.MultiIndex.from_product([seeds, steps])
        array = wide.reindex(index=index, columns=range(layers)).to_numpy(float)
        found[name] = array.reshape(len(seeds), len(steps), layers)
    if _is_rank(column) and not logged:
        found = {name: np.log(v) for name, v in found.items()}
    times = table.drop_duplicates("step").sort_values("step")
    return Curves(steps, times["clock"].to_numpy(float), found, seeds)


def summary(last: Mapping[str, np.ndarray], *, standardised: bool = True) -> np.ndarray:
    """Return one number of each layer, (seeds, layers): the mean over types of values standardised within a type.

    Args:
        last: (seeds, layers) for each type.
        standardised: whether each type has the same weight; otherwise the plain mean.
    """
    parts = []
    for values in last.values():
        spread = values.std(axis=1, keepdims=True)
        centred = values - values.mean(axis=1, keepdims=True)
        scaled = np.divide(centred, spread, out=np.zeros_like(centred), where=spread != 0)
        parts.append(scaled if standardised else values)
    return np.mean(parts, axis=0)
