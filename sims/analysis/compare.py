"""Compare cells of equal configuration, with means and intervals over their seeds."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from sims.analysis.cells import crossing
from sims.analysis.intervals import seed_intervals
from sims.analysis.runs import Runs
from sims.analysis.summaries import last_rows, last_summaries, range_in

# Fields that say which run it is, and not how it was made: the last three are of models of somebody else.
OWN = ("seed", "name", "model.id", "checkpoints")


@dataclass(frozen=True)
class Comparison:
    """Hold the cells of a comparison and their numbers.

    Attributes:
        fields: configuration fields that tell the cells apart.
        cells: one row a cell, in the order of the runs: the fields, runs, diverged.
        numbers: one row for each cell and quantity: cell (row of `cells`), quantity, n, mean, low, high (95 % over
            seeds, within what the quantity can be; NaN with one seed), flagged (whether the fit of a run is). Diverged
            runs do not count.
        common_loss: the lowest validation loss that every run reached which did not diverge.
    """

    fields: tuple[str, ...]
    cells: pd.DataFrame
    numbers: pd.DataFrame
    common_loss: float


def compare(runs: Runs, configurations: pd.DataFrame, each: bool = False) -> Comparison:
    """Compare complete runs.

    Args:
        runs: their tables.
        configurations: one row a run: run_id, and the configuration fields that tell the runs apart, seed among them.
        each: every run is one cell; by default runs that differ only in the seed form one.

    Returns:
        The comparison; its quantities, in this order: val_loss (nats, at the end), tokens, tokens_to_common (to the
        common loss), the summaries of the final activations (`last_summaries`: alpha <window>, rankme, top_share),
        h_peak_top and h_peak_end (highest over training, and last; means over the clean probe bands that all runs
        have, absent without one). tokens_to_common is absent for a cell in which a run passes the common loss before
        its first evaluation after the start.
    """
    own = configurations[configurations["run_id"].isin(runs.runs["run_id"])]
    varying = [c for c in own.columns if c != "run_id" and own[c].map(str).nunique() > 1]
    fields = varying if each else [c for c in varying if c not in OWN]
    # Numbers and texts and missing values compare as what they look like.
    shown = [own[name].map(str) for name in fields]
    which = list(zip(*shown, strict=True)) if fields else [()] * len(own)
    keys = own[["run_id"]].assign(cell=pd.Series(which, own.index))
    keys["cell"] = keys["run_id"] if each else keys["cell"]
    keys["cell"] = pd.factorize(keys["cell"])[0]
    ended = keys.merge(runs.runs[["run_id", "ended"]], on="run_id")
    cells = own.assign(cell=keys["cell"]).groupby("cell")[["run_id", *fields]].first()
    grouped = ended.groupby("cell")["ended"]
    cells = cells.assign(runs=grouped.size(), diverged=grouped.agg(lambda e: int((e == "diverged").sum())))
    alive = runs.runs[runs.runs["ended"] != "diverged"]
    numbers, common = _numbers(runs, alive)
    table = numbers.merge(keys, on="run_id")
    # A mean over the seeds that were slow enough to be seen would be of other runs.
    unseen = table[(table["quantity"] == "tokens_to_common") & table["value"].isna()]["cell"]
    table.loc[(table["quantity"] == "tokens_to_common") & table["cell"].isin(unseen), "value"] = float("nan")
    table = table.dropna(subset="value")
    if table.empty:
        return Comparison(tuple(fields), cells, table.assign(n=0, mean=0.0, low=0.0, high=0.0), common)
    flagged = table.groupby(["cell", "quantity"])["flagged"].any().reset_index()
    intervals = seed_intervals(table, ["cell", "quantity"], within=lambda q: range_in(runs, q))
    intervals = intervals.drop(columns=["min", "max"]).merge(flagged, on=["cell", "quantity"])
    return Comparison(tuple(fields), cells, intervals, common)


def _numbers(runs: Runs, alive: pd.DataFrame) -> tuple[pd.DataFrame, float]:
    """Return run_id, quantity, value and flagged of each run, and the common loss."""
    curves = runs.values("val_loss")
    curves = curves[curves["run_id"].isin(alive["run_id"])]
    common = float(curves.groupby("run_id")["value"].min().max())
    reached = {run: crossing(curve, common) for run, curve in curves.groupby("run_id", sort=False)}
    wide = alive[["run_id", "val_loss", "tokens"]].assign(tokens_to_common=alive["run_id"].map(reached))
    found = [wide.melt("run_id", var_name="quantity")]
    summaries = last_summaries(runs)
    found.append(summaries[["run_id", "quantity", "value"]].assign(flagged=summaries["status"] == "flagged"))
    bands = runs.values("h_peak", "probe", regime="clean")
    bands = bands[bands["run_id"].isin(alive["run_id"])]
    top = bands.groupby(["run_id", "band"], sort=False)["value"].max()
    end = last_rows(runs, bands).set_index(["run_id", "band"])["value"]
    for name, values in (("h_peak_top", top), ("h_peak_end", end)):
        # A mean over other bands is another quantity.
        common_bands = values.unstack("band").dropna(axis="columns")
        mean = common_bands.mean(axis="columns").dropna().rename("value").reset_index()
        found.append(mean.assign(quantity=name)[["run_id", "quantity", "value"]])
    # Without a run that lives there is no part.
    table = pd.concat([part for part in found if len(part)] or found[:1], ignore_index=True)
    # Only summaries are fits.
    table = table.assign(flagged=table.get("flagged", pd.Series(False, table.index)).eq(True))
    return table[table["run_id"].isin(alive["run_id"])], common
