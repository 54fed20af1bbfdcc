"""Compare stages by the numbers that head a report: which of the differences are decided, and what would decide others.

Every comparison is a mean over seeds of a number that is 0 where nothing happens, tested by Student's t. All of them
together are one family: a verdict needs Holm's adjusted p-value at the 5 % level.

A test needs independent seeds. If each seed were read at the moment that the others choose, they would all depend on
each other: with eight seeds of pure noise a family of these tests at 5 % gave a verdict in 17 %. So a few seeds, the
pilots, choose the moments, and only the others are read and tested.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import numpy as np
import pandas as pd

from sims.analysis.cells import CELL
from sims.analysis.concentration import QUANTITIES, concentration_rows
from sims.analysis.intervals import seed_intervals, t_test
from sims.analysis.ranges import Range
from sims.analysis.resampling import holm
from sims.analysis.runs import Runs
from sims.analysis.spectra import activation_site
from sims.analysis.stages import changes_by_seed, top_changes
from sims.analysis.summaries import last_rows, range_in, range_of
from sims.analysis.variance import seeds_needed
from theory.decision import side

SIGNIFICANT = 0.05
# A t-test needs two seeds.
LEAST_SEEDS = 2
# One seed in so many chooses the moments of the tops.
PILOT_SHARE = 4
LOSS, RANKME = "loss", "rankme"
# Of concentration: its top against its null, against its end, and against the top of the stage before.
RISE, FALL, TOP = "rise", "fall", "top"
# Questions that leave the pilots out.
AT_TOP = (RISE, FALL)


def comparisons(runs: Runs) -> pd.DataFrame:
    """Return every comparison of the head of a report, with its verdict.

    They are, as far as they were measured: the final validation loss and RankMe of the activations at the end, from
    stage to stage; H_peak and the task-band H_S, each at its top above its null, at its top above its end, and its
    highest value from stage to stage. Runs are paired by seed; batch sizes and bands are averaged within a seed.

    A seed counts with the batch sizes and bands that it has: in each of them the number is 0 where nothing happens.

    Returns:
        question ("loss", "rankme", "rise", "fall", "top"), quantity ("H_peak", "H_S task"; "" for the first two),
        subject ("rope", "baseline → rope"), n (seeds, without the pilots where these choose), value, low, high (95 %
        over seeds; NaN without a spread), p, p_holm, verdict (+1 or −1, 0 where it is open), seeds (that an open one
        needs, pilots included, for a power of 0.8 if the value is as observed; NaN where a verdict is there, where
        nothing is known of the spread, and inf for more than 1,000).
    """
    parts = [
        seed_intervals(own, ["subject"], within=within).assign(
            question=question,
            quantity=quantity,
            p=own.groupby("subject", sort=False)["value"].agg(t_test).to_numpy(),
            spread=own.groupby("subject", sort=False)["value"].std().to_numpy(),
        )
        for question, quantity, own, within in _by_seed(runs)
        if len(own)
    ]
    columns = [
        "question",
        "quantity",
        "subject",
        "n",
        "value",
        "low",
        "high",
        "p",
        "p_holm",
        "verdict",
        "seeds",
    ]
    if not parts:
        return pd.DataFrame(columns=columns)
    table = pd.concat(parts, ignore_index=True).rename(columns={"mean": "value"})
    # Values that agree have no spread, not an interval of width 0.
    table.loc[table["p"].isna(), ["low", "high"]] = math.nan
    table["p_holm"] = holm(table["p"].to_numpy(float))
    sides = [side(low, high) for low, high in zip(table["low"], table["high"], strict=True)]
    table["verdict"] = np.where(table["p_holm"] <= SIGNIFICANT, sides, 0)
    undecided = (table["verdict"] == 0) & table["p"].notna()
    level = 1 - SIGNIFICANT / max(1, int(undecided.sum()))
    needed = [
        _seeds(value, spread, level) if open_ else math.nan
        for value, spread, open_ in zip(table["value"], table["spread"], undecided, strict=True)
    ]
    piloted = table["question"].isin(AT_TOP)
    table["seeds"] = [with_pilots(n) if p else n for n, p in zip(needed, piloted, strict=True)]
    return table[columns]


def tops(runs: Runs, quantity: str = "H_peak") -> pd.DataFrame:
    """Return concentration at its top over training, without the bias of a maximum.

    A maximum over measurements lies above its null, its start and its end by selection alone. So the moment of the top
    of a cell is that at which the mean of the pilot seeds is highest after the start; it is read on the other seeds.

    Returns:
        stage, batch_size, seed, band, step, excess (value − mean of the null there), fall (value there − value at the
        end), end_excess (value − mean of the null at the end). Pilots, and cells without one, are left out.
    """
    rows = _regular(runs, concentration_rows(runs, quantity))
    rows = rows[rows["step"] > 0]
    last = last_rows(runs, rows)
    # A moment after the end that all runs have would be compared with an earlier end.
    # As numbers also where there are no rows, whose run ids are texts.
    ends_at = rows["run_id"].map(last.groupby("run_id")["step"].first()).astype(float)
    rows = rows[rows["step"] <= ends_at]
    pilots = _pilots(rows)
    moments = rows[rows["seed"].isin(pilots)].groupby([*CELL, "step"], sort=False)
    moments = moments.agg(value=("value", "mean"), pilots=("seed", "nunique")).reset_index()
    moments = moments[moments["pilots"] == len(pilots)]
    chosen = moments.loc[moments.groupby(CELL, sort=False)["value"].idxmax(), [*CELL, "step"]]
    read = rows[~rows["seed"].isin(pilots)]
    ends = last.assign(end_excess=last["value"] - last["null"]).rename(columns={"value": "end"})
    ends = ends[[*CELL, "seed", "band", "end", "end_excess"]]
    found = read.merge(chosen, on=[*CELL, "step"]).merge(ends, on=[*CELL, "seed", "band"])
    found["excess"], found["fall"] = found["value"] - found["null"], found["value"] - found["end"]
    return found[[*CELL, "seed", "band", "step", "excess", "fall", "end_excess"]]


def pilot_count(seeds: int) -> int:
    """Return how many of some seeds choose the moments of the tops: a quarter, at least one.

    >>> pilot_count(3), pilot_count(8)
    (1, 2)
    """
    return max(1, seeds // PILOT_SHARE)


def _pilots(rows: pd.DataFrame) -> list[int]:
    """Return the first seeds of those that every cell has."""
    seeds = [set(own) for _, own in rows.groupby(CELL)["seed"]]
    common = sorted(set.intersection(*seeds)) if seeds else []
    return common[: pilot_count(len(common))]


def with_pilots(seeds: float) -> float:
    """Return the number of seeds of which so many are left without the pilots.

    >>> with_pilots(2), with_pilots(6)
    (3.0, 8.0)
    """
    if not math.isfinite(seeds):
        return seeds
    return float(next(n for n in itertools.count(int(seeds)) if n - pilot_count(n) >= seeds))


def _by_seed(runs: Runs) -> Iterator[tuple[str, str, pd.DataFrame, Range]]:
    """Yield question, quantity, a table of subject, seed and value, and the values that it can take."""
    stages = runs.runs["stage"].unique()
    cells = ["stage", "seed", "batch_size"]
    alive = runs.runs[runs.runs["ended"] != "diverged"]
    losses = alive.dropna(subset="val_loss").groupby(cells, sort=False)["val_loss"].mean()
    yield LOSS, "", _named(changes_by_seed(losses, stages)), range_of("val_loss").change
    if runs.has("h_peak", "probe"):
        for quantity in QUANTITIES:
            top, within = tops(runs, quantity), range_in(runs, quantity)
            for question, column in ((RISE, "excess"), (FALL, "fall")):
                own = top.groupby(["stage", "seed"], sort=False)[column].mean().rename("value").reset_index()
                yield question, quantity, own.rename(columns={"stage": "subject"}), within.change
            yield TOP, quantity, _named(top_changes(runs, quantity)), within.change
    ranks = _regular(runs, last_rows(runs, runs.values("rankme", "activation", activation_site(runs))))
    changes = changes_by_seed(ranks.groupby(cells, sort=False)["value"].mean(), stages)
    yield RANKME, "", _named(changes), range_in(runs, "rankme").change


def _named(changes: pd.DataFrame) -> pd.DataFrame:
    """Return changes with both stages as the subject."""
    names = [f"{b} → {a}" for b, a in zip(changes["before"], changes["after"], strict=True)]
    return changes.assign(subject=names)[["subject", "seed", "value"]]


def _regular(runs: Runs, rows: pd.DataFrame) -> pd.DataFrame:
    return rows[rows["run_id"].isin(runs.runs.loc[runs.runs["ended"] != "diverged", "run_id"])]


def _seeds(value: float, spread: float, level: float) -> float:
    """Return how many seeds a mean needs for an interval of this level without 0; NaN where that is not known."""
    if not spread > 0:
        return math.nan
    needed = seeds_needed(value, np.array([spread**2, 0.0, 0.0, 0.0]), 1, 1, new_bands=False, level=level)
    return math.inf if needed is None else float(needed)
