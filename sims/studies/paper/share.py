"""The share of the published runs that is there, cell by cell, with the published outcome beside ours."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd

from sims.analysis.origins import provenance_of
from sims.pages.number import ABSENT, counted, interval, missing, number, verb
from sims.pages.page import Section
from sims.pages.table import Table
from sims.runs.store import RunFolder
from sims.studies.paper.cells import A, B, Cell
from sims.studies.paper.figure_data import FigureData
from sims.studies.paper.instalments import published_steps
from sims.studies.paper.profiles import profile
from sims.studies.paper.published import PUBLISHED, RUN_A, SIZES
from sims.studies.paper.verdicts import WITHOUT, Check, Ours
from toymodel.config import RunConfig

PROFILE = "published"
COLUMNS = (
    "cell",
    "runs",
    "published",
    "ours [95 % over seeds]",
    "one further run",
    "steps (published)",
    "verdict",
    "seconds a run",
    "made on",
)


def cells_section(data: FigureData, checks: Sequence[Check]) -> Section:
    """Show what is there of every cell of the published profile, and the command that trains the rest.

    Args:
        data: runs of the published size.
        checks: of all published figures.
    """
    cells = profile(PROFILE).cells()
    table = cell_table(data, cells, checks)
    judged = sum(c.verdict not in WITHOUT for c in checks)
    there = int(table["there"].sum())
    left = [str(name) for name in table.loc[table["there"] < table["runs"], "cell"]]
    begun, whole = int((table["there"] > 0).sum()), len(table) - len(left)
    text = (
        f"{judged} of {len(PUBLISHED)} published figures can be compared. Of {counted(len(table), 'cell')} (stage and "
        f"batch size; B: the scan of learning rates to loss 2.5; D: other data) {begun} {verb(begun, 'has', 'have')} "
        f"runs and {whole} {verb(whole, 'has', 'have')} all of them, {there} of {int(table['runs'].sum())} runs. A "
        "figure is compared once every cell that it was read from has a run."
    )
    if left:
        text += (
            f" The next ones: speclens reproduce all --profile {PROFILE} --cells {' '.join(left[:3])}; without --cells "
            "it trains all that are missing, the most useful first."
        )
    return Section(
        name="cells",
        title="Cells of the published runs",
        text=text,
        table=_shown(table),
        tables={"cells": table},
    )


def cell_table(data: FigureData, cells: dict[Cell, list[RunConfig]], checks: Sequence[Check]) -> pd.DataFrame:
    """Return one row a cell: what was published, ours with both intervals, the runs behind it, time and device.

    Returns:
        cell, runs (of the profile), there, quantity ("final loss" or "tokens"; "" in run B), published, ours, low,
        high, next_low, next_high (where one further run would fall), steps (mean), published_steps (NaN in run B),
        verdict, seconds (mean of a run), made_on.
    """
    known = {c.published.key: c for c in checks}
    runs = data.everything.runs
    seconds = runs[[c for c in runs if str(c).startswith("seconds_")]].sum(axis=1)
    rows = []
    for cell, configs in cells.items():
        here = runs["run_id"].isin([c.run_id for c in configs])
        check = _outcome(cell, known) if here.any() else None
        ours = check.ours if check else Ours(math.nan, seeds=0)
        low, high = ours.one_more_run()
        in_table = cell.part != B and cell.stage in RUN_A and cell.batch_size in SIZES
        rows.append(
            {
                "cell": str(cell),
                "runs": len(configs),
                "there": int(here.sum()),
                "quantity": check.published.key.rsplit(" ", 2)[0] if check else "",
                "published": check.published.value if check else math.nan,
                **{
                    name: getattr(ours, "value" if name == "ours" else name)
                    for name in ("ours", "low", "high")
                },
                "next_low": low,
                "next_high": high,
                "steps": runs.loc[here, "step"].mean(),
                "published_steps": published_steps(cell, configs[0]) if in_table else math.nan,
                "verdict": check.verdict if check else "",
                "seconds": seconds[here].mean(),
                "made_on": _devices(data, runs.loc[here, "run_id"].tolist()),
            }
        )
    return pd.DataFrame(rows)


def _outcome(cell: Cell, known: dict[str, Check]) -> Check | None:
    if cell.part != A:
        return None
    names = (f"{quantity} {cell.stage} {cell.batch_size}" for quantity in ("final loss", "tokens"))
    return next((known[name] for name in names if name in known), None)


def _devices(data: FigureData, runs: Sequence[str]) -> str:
    """Return the devices of runs, each once."""
    records = [provenance_of(RunFolder(data.folder / run)) for run in runs]
    return ", ".join(dict.fromkeys(str(r.get("device_name", "not recorded")) for r in records))


def _shown(table: pd.DataFrame) -> Table:
    units = {"final loss": "nats", "tokens": "M tokens"}
    rows = []
    for r in table.to_dict("records"):
        measured = r["there"] > 0
        unit = units.get(r["quantity"], "")
        rows.append(
            (
                r["cell"],
                f"{r['there']} of {r['runs']}",
                f"{number(r['published'])} {unit}" if unit else ABSENT,
                interval(r["ours"], r["low"], r["high"]) if unit else ABSENT,
                ABSENT if missing(r["next_low"]) else f"[{number(r['next_low'])}, {number(r['next_high'])}]",
                f"{number(r['steps'], 0)} ({number(r['published_steps'], 0)})" if measured else ABSENT,
                r["verdict"] or ABSENT,
                number(r["seconds"], 0) if measured else ABSENT,
                r["made_on"] or ABSENT,
            )
        )
    return Table(COLUMNS, tuple(rows), text=(0, 6, 8))
