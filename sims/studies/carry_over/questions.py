"""Questions that are put to runs of the toy and of language models alike, and how each is read from the tables."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from sims.analysis.cells import best_rates, transitions, usable
from sims.analysis.concentration import named_bands
from sims.analysis.intervals import seed_intervals
from sims.analysis.matched import batch_divergence, matched_spectra
from sims.analysis.paired import compare_stages
from sims.analysis.prediction import early_exponents, early_prediction
from sims.analysis.ranges import SHARE
from sims.analysis.runs import Runs
from sims.analysis.summaries import last_rows, range_in
from sims.analysis.tails import matched_exponents, tail_trend
from sims.analysis.taxonomy import taxonomy
from sims.analysis.transitions import gains_by_seed, transition_gains
from sims.runs.rank_windows import PUBLISHED_RANKS, PUBLISHED_RANKS_TEXT
from sims.system.errors import MeasureError
from theory.decision import side, why_undecided

EARLY = 0.2
SIGNIFICANT = 0.05
# A change over training is looked for in this many checkpoints at least.
LEAST_CHECKPOINTS = 4


@dataclass(frozen=True)
class Reading:
    """What one set of runs says to one question.

    Attributes:
        value: positive for "yes".
        low, high: 95 % interval; NaN where there is none, infinite where it is open.
        seeds: how many runs of a cell stand behind it.
        note: what a reader must know, and why there is no answer.
    """

    value: float
    low: float = math.nan
    high: float = math.nan
    seeds: int = 0
    note: str = ""

    @property
    def answer(self) -> str:
        """Return "+" or "-", or "" where it is open."""
        return {1: "+", -1: "-", 0: ""}[side(self.low, self.high)]

    @property
    def open(self) -> str:
        """Return why there is no answer."""
        if math.isnan(self.value):
            return self.note or "not measured"
        if math.isnan(self.low):
            return self.note or f"{self.seeds} run of a cell, so no interval over seeds"
        return self.note or why_undecided(self.low, self.high)


Readings = dict[str, Reading]


@dataclass(frozen=True)
class Question:
    """One finding.

    Attributes:
        name: short, for tables.
        statement: what "yes" means; {what} is the transition, stage or family it is about.
        unit: of the values.
        read: the answers of a set of runs, by what they are about; "" holds for anything.
    """

    name: str
    statement: str
    unit: str
    read: Callable[[Tables], Readings]


class Tables:
    """The tables that several questions read, made once for each set of runs, at the best rate of each cell.

    Args:
        runs: the toy's or a language model's.
    """

    def __init__(self, runs: Runs) -> None:
        self.runs = best_rates(runs)

    @cached_property
    def taxonomy(self) -> pd.DataFrame:
        """Return the table of `taxonomy`."""
        return taxonomy(self.runs)

    @cached_property
    def pairs(self) -> list[tuple[str, str]]:
        """Return successive stages."""
        return transitions(self.runs)

    @cached_property
    def stages(self) -> dict[str, pd.DataFrame]:
        """Return the table of `compare_stages`, by transition."""
        return {arrow(*pair): compare_stages(self.runs, *pair) for pair in self.pairs}


def arrow(before: str, after: str) -> str:
    """Write a transition: "rope → muon"."""
    return f"{before} → {after}"


def _gains(tables: Tables) -> Readings:
    table = transition_gains(gains_by_seed(tables.runs, tables.pairs), by_batch=False)
    return {
        arrow(r["before"], r["after"]): Reading(
            r["proximal"], r["proximal_low"], r["proximal_high"], int(r["n"])
        )
        for r in table.to_dict("records")
    }


def _evidence(name: str) -> Callable[[Tables], Readings]:
    """Return a reader of one column of the taxonomy."""

    def read(tables: Tables) -> Readings:
        return {
            arrow(r["before"], r["after"]): Reading(
                r[name], r[f"{name}_low"], r[f"{name}_high"], int(r["seeds"]), r.get("reason") or ""
            )
            for r in tables.taxonomy.to_dict("records")
        }

    return read


def _at_equal_loss(quantity: str, window: str = "", sign: int = 1) -> Callable[[Tables], Readings]:
    """Return a reader of the change of a summary of the final states across transitions, at equal loss."""

    def read(tables: Tables) -> Readings:
        found = {}
        for what, table in tables.stages.items():
            own = table[
                (table[["object", "site", "quantity"]] == ["activation", "final", quantity]).all(axis=1)
                & (table["window"] == window)
            ]
            for r in own.to_dict("records"):
                found[what] = _signed(sign, r["difference"], r["low"], r["high"], int(r["n"]))
        return found

    return read


def _tails(tables: Tables) -> Readings:
    table = tail_trend(matched_exponents(tables.runs))
    own = table[table["window"] == PUBLISHED_RANKS]
    return {
        r["stage"]: _signed(-1, r["slope"], r["low"], r["high"], int(r["seeds"]))
        for r in own.to_dict("records")
    }


def _batches(tables: Tables) -> Readings:
    table = batch_divergence(matched_spectra(tables.runs))
    if table.empty:
        raise MeasureError("each stage has a single batch size")
    # The smallest batch against the largest one.
    widest = table.groupby("stage", sort=False).agg(small=("small", "min"), large=("large", "max"))
    own = table.merge(widest.reset_index(), on=["stage", "small", "large"])
    return {
        r["stage"]: Reading(r["excess"], r["excess_low"], r["excess_high"], int(r["seeds"]))
        for r in own.to_dict("records")
    }


def _early(tables: Tables) -> Readings:
    table = early_prediction(early_exponents(tables.runs, fractions=(EARLY,)))
    own = table[table["window"] == PUBLISHED_RANKS].dropna(subset=["rho"])
    found = {}
    for r in own.to_dict("records"):
        told = r["p"] <= SIGNIFICANT
        note = (
            ""
            if told
            else f"p = {r['p']:.2g} over {r['sizes']} batch sizes (smallest possible {r['p_min']:.2g})"
        )
        bounds = (r["low"], r["high"]) if told else (math.nan, math.nan)
        found[r["stage"]] = Reading(r["rho"], *bounds, int(r["seeds"]), note)
    return found


def _change(quantity: str, window: str = "", sign: int = 1) -> Callable[[Tables], Readings]:
    """Return a reader of the change of a summary of the final states over training, run by run."""

    def read(tables: Tables) -> Readings:
        changes = training_changes(tables.runs, quantity, window)
        found = {}
        for stage, own in [("", changes), *changes.groupby("stage", sort=False)]:
            per_seed = _by_seed(own, "change")
            if per_seed.empty:
                continue
            r = seed_intervals(per_seed, ["all"], "change", range_in(tables.runs, quantity).change).iloc[0]
            moved = "rises" if r["mean"] > 0 else "falls"
            note = "" if r["n"] > 1 else f"it {moved} in this run; other seeds are not known"
            found[str(stage)] = _signed(sign, r["mean"], r["low"], r["high"], int(r["n"]), note)
        return found

    return read


def _by_seed(table: pd.DataFrame, column: str) -> pd.DataFrame:
    """Return means by seed, of the seeds that have every stage and batch size: another mean would be over others."""
    cells = table.groupby(["stage", "batch_size"], sort=False).ngroup()
    whole = cells.groupby(table["seed"]).transform("nunique") == cells.nunique()
    return table[whole].groupby("seed")[column].mean().reset_index().assign(all=0)


def training_changes(runs: Runs, quantity: str, window: str = "") -> pd.DataFrame:
    """Return the change of a summary of the final activations from the first measurement after the start to the last.

    Returns:
        stage, batch_size, seed, checkpoints, change; runs of fewer than four such measurements are left out.

    Raises:
        MeasureError: none is left.
    """
    rows = runs.values(quantity, "activation", "final", window=window)
    rows = rows[rows["run_id"].isin(usable(runs)["run_id"]) & (rows["step"] > 0)]
    found = []
    for (stage, size, seed), own in rows.groupby(["stage", "batch_size", "seed"], sort=False):
        own = own.sort_values("step")
        if len(own) >= LEAST_CHECKPOINTS:
            change = float(own["value"].iloc[-1] - own["value"].iloc[0])
            label = {"stage": stage, "batch_size": size, "seed": seed}
            found.append({**label, "checkpoints": len(own), "change": change})
    if not found:
        raise MeasureError(
            f"no run has ≥ {LEAST_CHECKPOINTS} checkpoints after the start with {quantity} {window}".rstrip()
        )
    return pd.DataFrame(found)


def family_concentration(runs: Runs) -> pd.DataFrame:
    """Return H_peak of cyclic families in the embedding and the head at the end of training, with its null.

    Returns:
        site ("embed", "head"), family (of tokens, or the full name of a toy run's band), run_id, stage, batch_size,
        seed, value, null, null_high (97.5 % of the null law), band ("" of a family of tokens).
    """
    rows = last_rows(runs, runs.values("h_peak", "table"))
    family = named_bands(rows)["band"].where(rows["band"] != "", rows["detail"])
    columns = ["site", "family", "run_id", "stage", "batch_size", "seed", "value", "null", "null_high"]
    return rows.assign(family=family)[[*columns, "band"]].reset_index(drop=True)


def _families(tables: Tables) -> Readings:
    """Read H_peak above the 97.5 % level of its null: over seeds where there are several, else of the one run."""
    table = family_concentration(tables.runs)
    table = table.assign(margin=table["value"] - table["null_high"])
    # The toy's bands stand for one another: what they say of a site is their mean.
    bands = table["band"] != ""
    named = [*table[bands].groupby("site", sort=False)]
    named += [
        (f"{site}: {family}", own)
        for (site, family), own in table[~bands].groupby(["site", "family"], sort=False)
    ]
    found = {}
    for what, own in named:
        per_seed = _by_seed(own, "margin")
        if per_seed.empty:
            continue
        r = seed_intervals(per_seed, ["all"], "margin", SHARE.change).iloc[0]
        low, high, note = r["low"], r["high"], ""
        if r["n"] == 1:
            # A run tests itself against its null law: beyond the level it is told, within it nothing is.
            low, high = (r["mean"], math.inf) if r["mean"] > 0 else (-math.inf, math.inf)
            note = "" if r["mean"] > 0 else "within the null law of this run"
        found[str(what)] = Reading(r["mean"], low, high, int(r["n"]), note)
    return found


def _signed(sign: int, value: float, low: float, high: float, seeds: int, note: str = "") -> Reading:
    """Return the reading with its sign turned where a negative number means "yes" (sign −1)."""
    low, high = (low, high) if sign > 0 else (-high, -low)
    return Reading(sign * value, low, high, seeds, note)


QUESTIONS: tuple[Question, ...] = (
    Question("gain", "{what} needs fewer tokens to equal loss", "token gain", _gains),
    Question(
        "activations",
        "{what} moves the activation spectrum at equal loss by more than a change of seed does",
        "ln JS/floor",
        _evidence("activation"),
    ),
    Question(
        "gradients",
        "{what} moves the gradient spectra at equal loss by more than a change of seed does",
        "ln JS/floor",
        _evidence("gradient"),
    ),
    Question(
        "lead", "{what} moves activations more than gradients", "ln ratio of the two", _evidence("lead")
    ),
    Question(
        "RankMe at equal loss",
        "{what} spreads the final states over more directions at equal loss",
        "change of RankMe",
        _at_equal_loss("rankme"),
    ),
    Question(
        "α at equal loss",
        f"{{what}} flattens ranks {PUBLISHED_RANKS_TEXT} of the final states at equal loss",
        "−change of α",
        _at_equal_loss("alpha", PUBLISHED_RANKS, -1),
    ),
    Question(
        "batch size",
        "the smallest and the largest batch have different activation spectra at equal loss, {what}",
        "JS beyond that of seeds (nats)",
        _batches,
    ),
    Question(
        "tail",
        f"smaller batches have steeper ranks {PUBLISHED_RANKS_TEXT} at equal loss, {{what}}",
        "−α per doubling of B",
        _tails,
    ),
    Question(
        "early prediction",
        f"α of ranks {PUBLISHED_RANKS_TEXT} at {EARLY:.0%} of training rises with token inefficiency, {{what}}",
        "rank correlation",
        _early,
    ),
    Question(
        "RankMe over training",
        "the final states spread over more directions while training goes on, {what}",
        "change of RankMe",
        _change("rankme"),
    ),
    Question(
        "α over training",
        f"ranks {PUBLISHED_RANKS_TEXT} of the final states flatten while training goes on, {{what}}",
        "−change of α",
        _change("alpha", PUBLISHED_RANKS, -1),
    ),
    Question(
        "concentration",
        "cyclic families concentrate on one frequency beyond chance at the end of training, {what}",
        "H_peak − its null’s 97.5 %",
        _families,
    ),
)
