"""What pruned models say: tables that the page, the terminal and the JSON answer share."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import pandas as pd

from sims.analysis.pruning import (
    COSTS,
    OPEN,
    SAVES,
    UNIFORM,
    VERDICTS,
    differences,
    over_models,
    score_correlations,
    shuffle_ranks,
)
from sims.analysis.slots import slot_table
from sims.pages.number import counted, interval, listed, number, verb
from sims.pages.page import Statement
from sims.pages.table import Table
from sims.prune.score_names import DRAWN, SENSITIVITY, SHUFFLED, base_of
from sims.studies.pruning.measured import PruneData

CELL = ["method", "sparsity", "unit"]
# FARMS, and the plain exponent that it is an answer to.
PLAIN = {"farms": "alpha", "farms-z": "alpha-z"}


class PruneAnswers:
    """Compare the allocations of all models.

    Args:
        data: what was measured.
    """

    def __init__(self, data: PruneData) -> None:
        self.data = data

    @cached_property
    def models(self) -> pd.DataFrame:
        """Return one row a model and allocation: `differences`."""
        return differences(self.data.tables["losses"])

    @cached_property
    def summary(self) -> pd.DataFrame:
        """Return one row an allocation: method, sparsity, unit, by, achieved, epsilon, loss, and `over_models`.

        achieved is the share of zeros, epsilon the chosen spread and loss the mean test loss in nats per token, all
        three means over models and draws. Uniform has a row without a difference.
        """
        chosen, losses = self.data.tables["chosen"], self.data.tables["losses"]
        by = [*CELL, "by"]
        means = chosen.groupby(by, sort=False)[["achieved", "epsilon"]].mean().reset_index()
        means = means.merge(losses.groupby(by, sort=False)["loss"].mean().reset_index(), on=by)
        found = means.merge(over_models(self.models), on=by, how="left")
        number = self.data.tables["losses"]["model"].nunique()
        return found.assign(
            models=number,
            over=found["over"].fillna(""),
            verdict=found["verdict"].fillna(""),
            saves=found["saves"].fillna(0).astype(int),
            costs=found["costs"].fillna(0).astype(int),
        )

    @cached_property
    def shuffles(self) -> pd.DataFrame:
        """Return how scores compare with both kinds of their own shuffles: `shuffle_ranks`, with `distinct`.

        distinct counts the shuffles with different zeros, in any model; it is 0 if all have those of the score itself.
        """
        losses = self.data.tables["losses"]
        found = pd.concat([shuffle_ranks(losses, prefix) for prefix in DRAWN], ignore_index=True)
        return found.assign(distinct=[self._distinct(row) for row in found.to_dict("records")])

    def _distinct(self, row: Mapping[Any, Any]) -> int:
        drawn = self._allocations.get((*(row[c] for c in CELL), row["control"] + row["by"]), set())
        return 0 if drawn == self._allocations.get((*(row[c] for c in CELL), row["by"])) else len(drawn)

    @cached_property
    def _allocations(self) -> dict[tuple[Any, ...], set[tuple[int, ...]]]:
        """Return by allocation the different numbers of zeros of all matrices of all models, of its draws."""
        found: dict[tuple[Any, ...], set[tuple[int, ...]]] = {}
        ordered = self.data.tables["matrices"].sort_values(["model", "matrix"], kind="stable")
        for keys, own in ordered.groupby([*CELL, "by", "draw"], sort=False):
            found.setdefault(keys[:-1], set()).add(tuple(own["zeros"]))
        return found

    def credit(self, row: Mapping[Any, Any]) -> str:
        """Return how a score compares with its own shuffles, in words, for one row of the summary."""
        own = self.shuffles
        for name in (*CELL, "by"):
            own = own[own[name] == row[name]]
        if own.empty:
            return "shuffles not run"
        return ", ".join(_rank(one) for one in own.to_dict("records"))

    @cached_property
    def slots(self) -> pd.DataFrame:
        """Return how much exponents differ between slots and blocks, beside those of noise: `slot_table`."""
        return slot_table(self.data.tables["scores"], self.data.tables["noise"])

    @cached_property
    def against_plain(self) -> pd.DataFrame:
        """Return what allocations by FARMS cost beside those by plain exponents: `over_models`, with `against`."""
        losses, found = self.data.tables["losses"], []
        for by, plain in PLAIN.items():
            both = losses[losses["by"].isin((by, plain))]
            if both["by"].nunique() > 1:
                found.append(over_models(differences(both, plain)).assign(against=plain))
        return pd.concat(found, ignore_index=True) if found else pd.DataFrame()

    @cached_property
    def correlations(self) -> pd.DataFrame:
        """Return rank correlations of scores with what pruning alone costs: `score_correlations`."""
        return score_correlations(self.data.tables["scores"], SENSITIVITY)

    @property
    def wide(self) -> list[str]:
        """Return the models whose test loss without pruning is known, each with it."""
        return [f"{name} ({number(loss)})" for name, loss in self.data.base.items()]


def _rank(row: Mapping[Any, Any]) -> str:
    drawn = int(row["shuffles"])
    if not row["models"]:
        return f"its {counted(drawn, 'shuffle')} have no model and sequence in common with it"
    as_good = round(float(row["p"]) * (1 + drawn)) - 1
    depth = "" if row["control"] == SHUFFLED else " at equal depth"
    if not row["distinct"]:
        return f"one order only{depth}: no control"
    of = f"{counted(drawn, 'shuffle')}{depth}"
    return f"no better than {as_good} of its {of}" if as_good else f"better than its {of}"


def summary_table(answers: PruneAnswers) -> Table:
    """Write the summary: one row an allocation."""
    columns = ("method", "sparsity", "by", "zeros", "ε", "test loss (nats)", "Δ to uniform [95 %]", "verdict")
    rows = tuple(
        (
            r["method"],
            f"{r['sparsity']:g}",
            r["by"],
            f"{r['achieved']:.4f}",
            "" if r["by"] == UNIFORM else number(r["epsilon"], 2),
            number(r["loss"]),
            interval(r["delta"], r["low"], r["high"]) if r["by"] != UNIFORM else "",
            r["verdict"],
        )
        for r in answers.summary.to_dict("records")
    )
    return Table(columns, rows, text=(0, 2, 7))


def statements(answers: PruneAnswers) -> list[Statement]:
    """Return one sentence an allocation: where it saves, costs, and where that cannot be told."""
    found = []
    table = answers.summary[answers.summary["by"] != UNIFORM]
    for name in dict.fromkeys(table["by"]):
        own = table[table["by"] == name]
        parts = []
        for verdict in VERDICTS:
            cells = own[own["verdict"] == verdict]
            if len(cells):
                told = [
                    f"{r['method']} {r['sparsity']:g} ({interval(r['delta'], r['low'], r['high'])} nats"
                    f"{', ' + answers.credit(r) if verdict == SAVES and not is_control(name) else ''})"
                    for r in cells.to_dict("records")
                ]
                parts.append(f"{verdict}: {', '.join(told)}")
        what = f"{name} (a control)" if is_control(name) else name
        text = f"Ratios by {what}, beside uniform at equal zeros. {'; '.join(parts).capitalize()}."
        found.append(Statement(text, bool((own["verdict"] != OPEN).any())))
    return found


def is_control(name: str) -> bool:
    """Return whether a score is another one reversed or shuffled."""
    return base_of(name) != name


def lead(answers: PruneAnswers) -> str:
    """Return the verdict in one sentence; controls are no scores, and are told apart."""
    every = answers.summary[answers.summary["by"] != UNIFORM]
    control = every["by"].map(is_control).astype(bool)
    table = every[~control]
    saving = list(dict.fromkeys(every.loc[control & (every["verdict"] == SAVES), "by"]))
    aside = (
        f" Of the controls {', '.join(saving)} {verb(len(saving), 'saves', 'save')} in some."
        if saving
        else ""
    )
    if table.empty:
        measured = "ratios and controls" if len(every) else "ratios"
        return f"Only uniform {measured} were measured; name scores to compare with them.{aside}"
    best = table[table["verdict"] == SAVES].sort_values("delta", kind="stable")
    worse = sorted(set(table.loc[table["verdict"] == COSTS, "by"]))
    unsure = int((table["verdict"] == OPEN).sum())
    cells = counted(len(table), "comparison")
    rest = f" {unsure} of {cells} cannot be told." if unsure else ""
    rest += (f" Ratios by {', '.join(worse)} cost in some." if worse else "") + aside
    if best.empty:
        return f"In none of {cells} is it shown that unequal ratios save over uniform ones.{rest}"
    credits: dict[str, dict[str, None]] = {}
    for row in best.to_dict("records"):
        credits.setdefault(row["by"], {})[answers.credit(row)] = None
    names = ", ".join(f"{name} ({'; '.join(told)})" for name, told in credits.items())
    first = best.iloc[0]
    most = interval(float(first["delta"]), float(first["low"]), float(first["high"]))
    return (
        f"Unequal ratios save over uniform ones in {len(best)} of {cells}, by {names}; most by {first['by']} "
        f"({first['method']} {first['sparsity']:g}: {most} nats).{rest}"
    )


def note_of_models(answers: PruneAnswers) -> str:
    """Say how many models there are, and what that allows."""
    number = len(answers.data.base)
    if number == 1:
        return "One model: intervals are over its test sequences, and say nothing of other trainings of it."
    losses = listed(answers.data.base.values(), 3, 4)
    return f"Intervals are over {counted(number, 'model')} (test losses without pruning {losses})."
