"""What the runs say: tables that the page, the terminal and the JSON answer share."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import pandas as pd

from sims.analysis.rates import (
    LEAST_DRAWS,
    LEAST_SEEDS,
    against_controls,
    against_uniform,
    arms_of,
    best_rate,
    by_rate,
    grid,
    is_control,
    missing_runs,
    shuffle_ranks,
    spread_changes,
    spreads,
)
from sims.pages.number import counted
from sims.studies.rates.measured import EXPONENTS, RatesData, exponents, noise_spread
from sims.studies.rates.missing import commands
from toymodel.rates import SHUFFLED, UNIFORM

START, END = "start", "end"


class RatesAnswers:
    """Compare the arms of all cells.

    Args:
        data: the runs.
    """

    def __init__(self, data: RatesData) -> None:
        self.data = data

    @cached_property
    def summary(self) -> pd.DataFrame:
        """Return one row a cell and arm: `against_uniform`."""
        return against_uniform(self.data.losses)

    @cached_property
    def controls(self) -> pd.DataFrame:
        """Return scores beside depth and their reverse: `against_controls`."""
        return against_controls(self.data.losses)

    @cached_property
    def shuffles(self) -> pd.DataFrame:
        """Return scores beside their shuffles: `shuffle_ranks`."""
        return shuffle_ranks(self.data.losses)

    @cached_property
    def draws(self) -> pd.DataFrame:
        """Return the difference of every shuffle to uniform, each at its best rate: cell, arm, draw, delta."""
        rows = []
        for cell, own in self.data.losses.groupby("cell", sort=False):
            base = by_rate(own, UNIFORM, grid(own))
            for (arm, draw), drawn in own[own["arm"].str.startswith(SHUFFLED)].groupby(["arm", "draw"]):
                rates = sorted(set(drawn["lr"]).intersection(base.columns))
                table = by_rate(own, str(arm), rates, int(str(draw)))
                seeds = base.index.intersection(table.index)
                if rates and len(seeds):
                    delta = table.loc[seeds].mean().min() - base.loc[seeds].mean().min()
                    rows.append({"cell": cell, "arm": arm, "draw": draw, "delta": float(delta)})
        return pd.DataFrame(rows, columns=["cell", "arm", "draw", "delta"])

    @cached_property
    def missing(self) -> pd.DataFrame:
        """Return what the rules lack: cell, arm, runs, command."""
        return commands(self.data, missing_runs(self.data.losses))

    def rank(self, cell: str, arm: str) -> Mapping[str, Any] | None:
        """Return how a score compares with its shuffles; None where none was run."""
        own = self.shuffles[(self.shuffles["cell"] == cell) & (self.shuffles["arm"] == arm)]
        return None if own.empty else {str(k): v for k, v in own.iloc[0].items()}

    def base_lr(self, cell: str) -> float | None:
        """Return the best base rate of uniform; None where no seed has it at every rate."""
        own = self.data.of(cell)
        table = by_rate(own, UNIFORM, grid(own))
        return None if table.empty else best_rate(table)[0]

    @cached_property
    def matrices(self) -> pd.DataFrame:
        """Return exponents of the matrices of the arms that are no shuffles, at uniform's best rate: `exponents`."""
        runs = []
        for cell in self.data.cells:
            own = self.data.of(cell)
            runs += own.loc[own["arm"].isin(arms_of(own)) & (own["lr"] == self.base_lr(cell)), "run"].tolist()
        return exponents(self.data, runs)

    @cached_property
    def spreads(self) -> pd.DataFrame:
        """Return the spread of exponents over matrices at the first and the last checkpoint: `spreads`."""
        return spreads(_ends(self.matrices))

    @cached_property
    def changes(self) -> pd.DataFrame:
        """Return the spread of exponents of every arm less that of uniform: `spread_changes`."""
        return spread_changes(self.spreads)

    def noise(self, cell: str, quantity: str) -> tuple[float, float, float]:
        """Return the spread over Gaussian matrices of the shapes of a cell: mean, 2.5 and 97.5 %."""
        own = self.matrices[self.matrices["cell"] == cell]
        first = own[own["run"] == own["run"].iloc[0]]
        first = first[first["step"] == first["step"].max()]
        shapes = tuple(zip(first["matrix"], first["rows"], first["columns"], strict=True))
        return noise_spread(shapes, quantity)

    @cached_property
    def multipliers(self) -> pd.DataFrame:
        """Return multipliers at uniform's best rate, mean over seeds: cell, arm, step, matrix, block, multiplier."""
        own = self.matrices[self.matrices["arm"] != UNIFORM]
        keys = ["cell", "arm", "step", "matrix", "block"]
        return own.groupby(keys, sort=False)["multiplier"].mean().reset_index()

    def credit(self, cell: str, arm: str) -> str:
        """Return how a score compares with its shuffles, in words."""
        found = self.rank(cell, arm)
        if found is None or not found["seeds"]:
            return "shuffles not run"
        drawn, as_good = int(found["draws"]), int(found["as_good"])
        of = f"{drawn} shuffle{'s' * (drawn != 1)}"
        if not found["rates"]:
            return f"its {of} ran at other base rates"
        told = f"no better than {as_good} of its {of}" if as_good else f"better than its {of}"
        unlike = unlike_rates(found)
        return f"{told}, which have {unlike}" if unlike else told

    def credited(self, cell: str, arm: str) -> bool:
        """Return whether a score beats enough shuffles, each with the rates of the score, no others, and its seeds."""
        found = self.rank(cell, arm)
        return bool(
            found
            and found["draws"] >= LEAST_DRAWS
            and found["as_good"] == 0
            and not unlike_rates(found)
            and found["seeds"] >= LEAST_SEEDS
        )


def unlike_rates(rank: Mapping[str, Any]) -> str:
    """Say how the base rates of shuffles differ from those of their score; empty where they do not.

    >>> unlike_rates({"rates": 3, "grid": 3, "other": 0}), unlike_rates({"rates": 1, "grid": 3, "other": 2})
    ('', '1 of 3 rates and 2 rates that the score lacks')
    """
    fewer = f"{rank['rates']} of {rank['grid']} rates" if rank["rates"] < rank["grid"] else ""
    other = f"{counted(int(rank['other']), 'rate')} that the score lacks" if rank["other"] else ""
    return " and ".join(part for part in (fewer, other) if part)


def _ends(table: pd.DataFrame) -> pd.DataFrame:
    """Return the exponents of the first and the last checkpoint that all runs of a cell have, a row a quantity."""
    looks = table[["cell", "run", "step"]].drop_duplicates()
    runs = looks.groupby("cell")["run"].transform("nunique")
    shared = looks[looks.groupby(["cell", "step"])["run"].transform("nunique") == runs].groupby("cell")[
        "step"
    ]
    ends = {
        START: table[table["step"] == table["cell"].map(shared.min())],
        END: table[table["step"] == table["cell"].map(shared.max())],
    }
    parts = [
        at.assign(when=when, quantity=quantity, value=at[quantity])
        for when, at in ends.items()
        for quantity in EXPONENTS
    ]
    return pd.concat(parts, ignore_index=True)


def scores_of(answers: RatesAnswers, cell: str) -> list[str]:
    """Return the arms of a cell that read the weights, without controls."""
    return [arm for arm in arms_of(answers.data.of(cell)) if not is_control(arm)]
