"""Compare the times at which runs agree most with n-grams with each other and with the phases of their geometry."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import numpy as np
import pandas as pd

from sims.analysis.cells import CELL, usable
from sims.analysis.geometry import Phases
from sims.analysis.geometry_claims import coincidence
from sims.analysis.memorisation import (
    LEAST_LOOKS,
    Peak,
    alone,
    extremum,
    later,
    neighbours,
    peak,
    peaks_within,
    spacing_around,
)
from sims.analysis.runs import Runs
from sims.analysis.verdicts import Verdict
from sims.system.errors import MeasureError
from sims.text.continuations import INFINITE, ORDERS

OBJECT = "ngram"
CORRELATION, DIVERGENCE = "ngram_correlation", "ngram_divergence"
Cell = tuple[str, int]
# Turn of RankMe → what it is called.
TURNS = {"WE": "The least RankMe", "EC": "The largest RankMe"}


@dataclass(frozen=True, eq=False)
class Memorisation:
    """Hold the peaks of agreement with n-grams, and what they coincide with.

    Attributes:
        peaks: by cell (stage, batch size) and law ("1-gram", …), of ρ_n.
        least: likewise of −KL(p_n ‖ p_θ), whose peak is the least divergence.
        table: one row a cell, quantity and law: stage, batch_size, quantity, law, and the columns of `Peak.row`.
        seeds: one row a run and peak: stage, batch_size, quantity, law, run_id, tokens, value, end.
        claims: one row a claim: stage, batch_size, claim, outcome, reason, and of two times factor, low, high.
    """

    peaks: dict[Cell, dict[str, Peak]]
    least: dict[Cell, dict[str, Peak]]
    table: pd.DataFrame
    seeds: pd.DataFrame
    claims: pd.DataFrame


def memorisation(
    runs: Runs,
    sets: Mapping[Cell, Phases] | None = None,
    site: str = "final",
    quantity: str = "rankme",
    **which: str,
) -> Memorisation:
    """Find the peaks of agreement with n-grams in each cell, and decide what is claimed of them.

    Claims of a cell: each ρ_n peaks before the end, and is highest later than the last peak of a smaller n; ρ of the
    ∞-gram peaks within phase E; the least and the largest RankMe coincide with the peaks of ρ_n that there are.

    Args:
        runs: with rows of `ngrams`.
        sets: phases of each cell (`GeometryPhases.sets`); without them there are no claims about phases.
        site, quantity: of the rows of activations that are compared.
        which: further columns of these, such as detail="top 8" of `rankme_without`.

    Raises:
        MeasureError: n-grams were not measured after the start, or less than three times, or in some seeds of a cell
            only.
    """
    if not runs.has(CORRELATION, OBJECT):
        raise MeasureError(
            "the agreement with n-grams was not measured; train with --measuring.ngrams, or measure the checkpoints "
            "with --ngrams"
        )
    peaks: dict[Cell, dict[str, Peak]] = {}
    least: dict[Cell, dict[str, Peak]] = {}
    each: list[dict[str, object]] = []
    claims: list[dict[str, object]] = []
    table: list[dict[str, object]] = []
    for group, _ in usable(runs).groupby(CELL, sort=False):
        cell = cast(Cell, group)
        head = dict(zip(CELL, cell, strict=True))
        for name, found in ((CORRELATION, peaks), (DIVERGENCE, least)):
            curves = {law: ngram_curves(runs, cell, law, name) for law in ORDERS.values()}
            found[cell] = {
                law: _peak(own, name, law) for law, own in curves.items() if len(own) >= LEAST_LOOKS
            }
            for law, own in found[cell].items():
                where = {**head, "quantity": name, "law": law}
                sign = -1.0 if name == DIVERGENCE else 1.0
                row = own.row()
                table.append(
                    {**where, **row, "value": sign * own.values.mean(), "end": sign * own.ends.mean()}
                )
                numbers = zip(
                    curves[law].columns, own.tokens, sign * own.values, sign * own.ends, strict=True
                )
                each += [
                    {**where, "run_id": run, "tokens": t, "value": v, "end": e} for run, t, v, e in numbers
                ]
        claims += [{**head, **row} for row in _orders(peaks[cell])]
        if sets is not None and cell in sets and peaks[cell]:
            states = _wide(runs.values(quantity, "activation", site, **which), _seeds(runs, cell))
            claims += [{**head, **row} for row in _in_phases(peaks[cell], sets[cell], states)]
    if not any(peaks.values()):
        raise MeasureError("no cell has three looks at n-grams after the start; measure more often")
    return Memorisation(peaks, least, pd.DataFrame(table), pd.DataFrame(each), pd.DataFrame(claims))


def ngram_curves(runs: Runs, cell: Cell, law: str, quantity: str = CORRELATION) -> pd.DataFrame:
    """Return a quantity of one law after the start as (looks, runs), by tokens; looks that a run lacks are left out.

    Args:
        cell: stage and batch size.
        law: such as "2-gram".
        quantity: of the rows.
    """
    return _wide(runs.values(quantity, OBJECT, detail=law), _seeds(runs, cell))


def _seeds(runs: Runs, cell: Cell) -> pd.Series:
    """Return the runs of a cell that ended regularly."""
    alive = usable(runs)
    return alive["run_id"][(alive["stage"] == cell[0]) & (alive["batch_size"] == cell[1])]


def _wide(rows: pd.DataFrame, own: pd.Series) -> pd.DataFrame:
    """Return rows of some runs after the start as (looks, runs).

    Raises:
        MeasureError: some of the runs have such rows, and others have none.
    """
    rows = rows[rows["run_id"].isin(own) & (rows["tokens"] > 0)]
    wide = rows.pivot_table(index="tokens", columns="run_id", values="value").sort_index().dropna()
    lacking = sorted(set(own) - set(wide.columns))
    if len(wide.columns) and lacking:
        raise MeasureError(
            f"{lacking[0]} has no {rows['quantity'].iloc[0]} after the start, and other seeds of its cell have; "
            "measure all of them alike, or leave it out"
        )
    return wide


def _peak(curves: pd.DataFrame, quantity: str, law: str) -> Peak:
    tokens, values = curves.index.to_numpy(float), curves.to_numpy(float).T
    if quantity == DIVERGENCE:
        return peak(tokens, -values, f"Agreement with the {law} by divergence")
    return peak(tokens, values, f"ρ of the {law}")


def _orders(peaks: Mapping[str, Peak]) -> list[dict[str, object]]:
    """Return the claims that there are peaks, and that each is later than the last one of a smaller n."""
    claims: list[dict[str, object]] = [dict(own.verdict.row()) for own in peaks.values()]
    before: Peak | None = None
    for own in peaks.values():
        if before is not None:
            claims.append(later(before, own).row())
        if before is None or own.found:
            before = own
    return claims


def _in_phases(peaks: Mapping[str, Peak], phases: Phases, states: pd.DataFrame) -> list[dict[str, object]]:
    """Return the claims about phases; states are (looks, runs) of RankMe."""
    claims: list[dict[str, object]] = []
    if ORDERS[INFINITE] in peaks:
        claims.append(dict(peaks_within(peaks[ORDERS[INFINITE]], phases).row()))
    tokens, values = states.index.to_numpy(float), states.to_numpy(float).T
    for letters, called in TURNS.items():
        named = [own for own in peaks.values() if own.found]
        if why := _no_turn(phases, letters, len(tokens)):
            claims += [_open(called, own, why) for own in named]
            continue
        turn = extremum(tokens, values, phases, letters)
        claims += [_coincide(own, turn, called, tokens) for own in named]
    return claims


def _no_turn(phases: Phases, letters: str, looks: int) -> str:
    """Say why there is no turn from one phase to the next to be read; empty where there is."""
    if phases.status == "not fitted":
        return phases.reason
    if neighbours(phases, letters) is None:
        return f"the states go through {phases.word}{f'; {phases.reason}' if phases.reason else ''}"
    if own := alone(phases, letters):
        return f"{' and '.join(own)} {'rests' if len(own) == 1 else 'rest'} on RankMe only"
    return "" if looks >= LEAST_LOOKS else f"{looks} looks at RankMe after the start, of {LEAST_LOOKS} needed"


def _claim(called: str, own: Peak) -> str:
    return f"{called} and the peak of {own.name} coincide"


def _open(called: str, own: Peak, why: str) -> dict[str, object]:
    numbers = dict.fromkeys(("factor", "low", "high"), math.nan)
    return {**numbers, **Verdict(_claim(called, own), "not resolved", why).row()}


def _coincide(own: Peak, turn: np.ndarray, called: str, tokens: np.ndarray) -> dict[str, object]:
    spacing = max(own.spacing, spacing_around(tokens, turn))
    found = coincidence(turn.tolist(), own.times.tolist(), spacing=spacing, claim=_claim(called, own))
    return {"factor": found.factor, "low": found.low, "high": found.high, **found.verdict.row()}
