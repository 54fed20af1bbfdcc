"""Label the phases of the geometry of states in runs: each run, and the seeds of each cell together."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, cast

import numpy as np
import pandas as pd

from sims.analysis.cells import CELL, usable
from sims.analysis.geometry import FLAT, MAX_CHANGES, UNKNOWN, Phase, Phases, label_phases
from sims.analysis.phases import SIGNIFICANT
from sims.analysis.resampling import holm
from sims.analysis.runs import Runs
from sims.analysis.segmentation import DRAWS
from sims.pages.number import counted
from sims.system.errors import MeasureError

# α-ReQ over the published ranks, or those that fit the width where these do not.
ALPHA_WINDOWS = ("published", "width")
ONE_RUN, SET = "run", "seeds"
WORD = ("seeds", "points", "word", "status", "reason", "p")
Key = tuple[str, int, str, str]


@dataclass(frozen=True, eq=False)
class GeometryPhases:
    """Hold the phases of runs.

    Attributes:
        sets: phases of each cell (stage, batch size), over its seeds.
        words: one row a run and one a cell: stage, batch_size, of ("run" or "seeds"), run_id ("" of a cell), seeds,
            points, word, status, reason, p, p_holm (of cells, over all of them), alpha (which α-ReQ: published, width,
            or empty), sentence.
        phases: one row a phase: stage, batch_size, of, run_id, and the columns of `Phases.rows`.
    """

    sets: dict[tuple[str, int], Phases]
    words: pd.DataFrame
    phases: pd.DataFrame


def geometry_phases(
    runs: Runs,
    site: str = "final",
    quantity: str = "rankme",
    *,
    max_changes: int = MAX_CHANGES,
    level: float = SIGNIFICANT,
    draws: int | None = None,
    seed: int = 0,
    label: Callable[..., Phases] = label_phases,
    **which: str,
) -> GeometryPhases:
    """Label the phases of RankMe in each run and in each cell.

    Looks that not all seeds of a cell have are left out, and the start, which has no logarithm. The turns of a cell
    are corrected over all cells by Holm: a word needs all of its turns, so that its p-value is the largest of theirs.
    Where it fails, letters from the first whose p-value times the cells with a turn is above the level on are unknown.

    Args:
        site, quantity: of the rows of activations.
        max_changes, level, seed: as in `label_phases`.
        draws: as there; by default `enough_draws` of the cells.
        label: labels one run or set, with these arguments.
        which: further columns of the rows, such as detail="top 32" of `rankme_without`.

    Raises:
        MeasureError: RankMe was not measured after the start, or in several kinds of rows.
    """
    alive = usable(runs)["run_id"]
    values = _after_start(runs, alive, quantity, site, **which)
    if values.empty:
        raise MeasureError(f"{quantity} of activations at {site!r} was not measured after step 0; measure it")
    if values.duplicated(["run_id", "step"]).any():
        raise MeasureError(f"{quantity} has several rows a look; choose one by its detail or window")
    draws = enough_draws(values.groupby(CELL).ngroups, level) if draws is None else draws
    settings = {"max_changes": max_changes, "level": level, "draws": draws, "seed": seed}
    found: dict[Key, Phases] = {}
    windows: dict[tuple[str, int], str] = {}
    for group, own in values.groupby(CELL, sort=False):
        stage, size = cast("tuple[str, int]", group)
        wide = own.pivot_table(index="tokens", columns="run_id", values="value").sort_index().dropna()
        windows[stage, size], alpha = _alpha(runs, wide, site)
        for run in wide.columns:
            one = alpha if alpha is None else alpha[[run]]
            found[stage, size, ONE_RUN, str(run)] = _labelled(wide[[run]], one, settings, label)
        found[stage, size, SET, ""] = _labelled(wide, alpha, settings, label)
    cells = [key for key in found if key[2] == SET]
    adjusted = dict(zip(cells, holm(np.array([found[key].p for key in cells])), strict=True))
    tested = sum(not math.isnan(found[key].p) for key in cells)
    words, phases = [], []
    for key, p in ((key, adjusted.get(key, math.nan)) for key in found):
        found[key] = own = corrected(found[key], p, tested, level)
        named = dict(zip((*CELL, "of", "run_id"), key, strict=True))
        numbers = {name: getattr(own, name) for name in WORD}
        words.append({**named, **numbers, "p_holm": p, "alpha": windows[key[:2]], "sentence": own.sentence})
        phases += [{**named, **row} for row in own.rows()]
    sets = {key[:2]: found[key] for key in cells}
    return GeometryPhases(sets, pd.DataFrame(words), pd.DataFrame(phases))


def enough_draws(cells: int, level: float = SIGNIFICANT) -> int:
    """Return how many curves to draw so that a test can pass the correction for so many cells at a level.

    The smallest p-value is 1/(draws + 1), and is multiplied by the number of cells.

    >>> enough_draws(14), enough_draws(15)
    (299, 599)
    """
    return DRAWS if round(cells / level) <= DRAWS else round(2 * cells / level) - 1


def corrected(own: Phases, p: float, cells: int, level: float = SIGNIFICANT) -> Phases:
    """Return the phases of a cell: letters whose turns do not pass the test over all cells, and all later, are unknown.

    Some letter fails where Holm's p-value does, since that is at most the largest of theirs times the cells.

    Args:
        own: the phases.
        p: p-value of its turns over all cells.
        cells: those with a turn.
        level: of the test.
    """
    if not p > level:
        return own
    known, phases = True, []
    for phase in own.phases:
        known = known and not _weakest(phase) * cells > level
        phases.append(phase if known or phase.label == FLAT else replace(phase, label=UNKNOWN))
    if own.p > level and [new.label for new in phases] == [old.label for old in own.phases]:
        # Not one of those that were known.
        return own
    reason = f"p = {p:.2g} of its turns over {counted(cells, 'cell')} (Holm)"
    return replace(
        own,
        word="".join(label for label, _ in groupby(phase.label for phase in phases if phase.label != FLAT)),
        status="flagged",
        reason="; ".join(part for part in (own.reason, reason) if part),
        phases=tuple(phases),
    )


def _weakest(own: Phase) -> float:
    """Return the largest p-value of a letter; 0 where it has none."""
    return max((p for p in (own.p, own.p_level) if not math.isnan(p)), default=0.0)


def _after_start(runs: Runs, alive: pd.Series, quantity: str, site: str, **which: str) -> pd.DataFrame:
    rows = runs.values(quantity, "activation", site, **which)
    return rows[rows["run_id"].isin(alive) & (rows["tokens"] > 0)]


def _alpha(runs: Runs, wide: pd.DataFrame, site: str) -> tuple[str, pd.DataFrame | None]:
    """Return which α-ReQ these runs have, and its values at their looks, NaN where it is missing."""
    for detail in ALPHA_WINDOWS:
        rows = _after_start(runs, pd.Series(wide.columns), "alpha_req", site, detail=detail)
        if len(rows):
            table = rows.pivot_table(index="tokens", columns="run_id", values="value")
            return detail, table.reindex(index=wide.index, columns=wide.columns)
    return "", None


def _labelled(
    wide: pd.DataFrame, alpha: pd.DataFrame | None, settings: dict[str, Any], label: Callable[..., Phases]
) -> Phases:
    other = None if alpha is None else alpha.to_numpy(float).T
    return label(wide.index.to_numpy(float), wide.to_numpy(float).T, other, **settings)
