"""How far the outcome of a run depends on the seed of its data, beside that of its model."""

from __future__ import annotations

from typing import Any

import pandas as pd

from sims.analysis.cells import CELL
from sims.analysis.data_seeds import (
    CANNOT_TELL,
    LESS,
    LOSS,
    MORE,
    PEAK,
    RANK,
    TOKENS,
    grouped,
    outcomes,
    spreads,
)
from sims.analysis.intervals import seed_intervals
from sims.analysis.runs import Runs
from sims.analysis.summaries import range_in
from sims.pages.number import ABSENT, counted, interval, missing, number
from sims.pages.page import Finding, Section
from sims.pages.table import Table
from sims.studies.paper.figure_data import FigureData, with_reasons
from sims.studies.paper.figures.data_seeds import data_seeds_figure
from sims.studies.paper.study import STUDY
from sims.studies.paper.verdicts import Ours
from sims.studies.study import OPEN
from sims.system.errors import MeasureError

LABELS = {
    TOKENS: "million tokens to the target",
    LOSS: "final validation loss (nats)",
    PEAK: "H_peak, mean over training",
    RANK: "RankMe at the end",
}


def _several(data: FigureData) -> bool:
    return data.on_data is not None


@STUDY.figure(
    "data", "Seeds of the data", order=105, rank=16, runs="D", refused="a text has no seed", applies=_several
)
def data_seeds(data: FigureData) -> Section:
    """Set the spread over data seeds beside that over model seeds."""
    if data.on_data is None:
        raise MeasureError("all runs have the same data; train some with another task.seed")
    runs = data.on_data.once(_grouped)
    table = spreads(runs)
    return Section(
        text="The task draws its sequences from task.seed; the other runs differ in the seed of the model (start and "
        "order of batches). The two groups share no run. If both seeds act normally and add up, the ratio of variances "
        "has an F distribution; p-values have Holm’s correction for all rows.",
        figure=data_seeds_figure(runs, LABELS),
        caption="One dot a run, a line at the mean of each group.",
        table=_shown(table, _means(data.on_data, runs)),
        tables={"data-spreads": table, "data-runs": runs},
        findings=(_finding(table),),
    )


def further_data(data: FigureData) -> dict[tuple[Any, ...], tuple[float, float]]:
    """Return where one further run on other data would fall, by stage, batch size and quantity of `outcomes`."""
    if data.on_data is None:
        return {}
    runs = data.on_data.once(_grouped)
    means = _means(data.on_data, runs[runs["group"] == "data"])
    return {
        (r["stage"], r["batch_size"], r["quantity"]): r["further"]
        for r in means.to_dict("records")
        if r["n"] > 1
    }


def _grouped(runs: Runs) -> pd.DataFrame:
    return grouped(outcomes(runs))


def _means(runs: Runs, table: pd.DataFrame) -> pd.DataFrame:
    """Return the mean of each group of some rows of `grouped`, and where one further run would fall (further)."""
    by = [*CELL, "quantity", "group"]
    means = seed_intervals(table, by, within=lambda name: range_in(runs, name))
    further = [
        Ours(
            r["mean"], r["low"], r["high"], int(r["n"]), within=range_in(runs, r["quantity"])
        ).one_more_seed()
        for r in means.to_dict("records")
    ]
    return means.assign(further=pd.Series(further, means.index, dtype=object))


def _shown(table: pd.DataFrame, means: pd.DataFrame) -> Table:
    of = {(r["stage"], r["batch_size"], r["quantity"], r["group"]): r for r in means.to_dict("records")}
    rows = []
    for r in table.to_dict("records"):
        name = (r["stage"], r["batch_size"], r["quantity"])
        rows.append(
            (
                r["stage"],
                str(r["batch_size"]),
                LABELS[r["quantity"]],
                *(_group(of[(*name, group)]) for group in ("model", "data")),
                f"{number(r['sd_seeds'])} ({r['n_seeds']})",
                f"{number(r['sd_data'])} ({r['n_data']})",
                interval(r["ratio"], r["low"], r["high"], 2),
                ABSENT if missing(r["p_holm"]) else f"{r['p_holm']:.2g}",
                r["data_spread"],
            )
        )
    columns = (
        "stage",
        "B",
        "outcome",
        "mean [one further model seed]",
        "mean [one further data seed]",
        "sd over model seeds (n)",
        "sd over data seeds (n)",
        "ratio",
        "p (Holm)",
        "data spread it",
    )
    return with_reasons(Table(columns, tuple(rows), text=(0, 2, 9)), list(table["reason"]))


def _group(r: dict) -> str:
    """Return the mean of a group, and where one further run of it would fall."""
    return interval(r["mean"], *r["further"])


def _finding(table: pd.DataFrame) -> Finding:
    counts = table["data_spread"].value_counts()
    first = table.iloc[0]
    return Finding(
        f"Other data spread the outcome of a run more than other model seeds in {counts.get(MORE, 0)} of "
        f"{counted(len(table), 'case')} of cell and outcome, and less in {counts.get(LESS, 0)}; in "
        f"{counts.get(CANNOT_TELL, 0)} it cannot be told ({LABELS[first['quantity']]}, {first['stage']} at B = "
        f"{first['batch_size']}: ratio of standard deviations "
        f"{interval(first['ratio'], first['low'], first['high'], 2)}, {first['n_seeds']} model seeds, "
        f"{first['n_data']} data seeds).",
        OPEN,
    )
