"""Sections about the stored checkpoints: many bands over training and along the sequence, and the seeds needed."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Any

import pandas as pd
from rich.console import Console

from sims.analysis.variance import LARGEST
from sims.pages.number import ABSENT, counted, interval, number
from sims.pages.page import Finding, Section
from sims.pages.table import Table
from sims.studies.bands.measured import BandPlan, BandReport, band_report, default_named
from sims.studies.bands.study import STUDY
from sims.studies.bands.tables import at_end
from sims.studies.stored import CHECKPOINTS, Stored, seeds_at_smallest_batch, smallest_batch
from sims.studies.study import OPEN
from sims.system.errors import MeasureError
from theory.decision import side

# Fewer bands and positions than `speclens bands` takes: a minute of a core.
PAGE_BANDS = BandPlan(bands=8, mixed_per_state=16, fractions=(0.1, 0.5, 1.0), positions=(0, 1, 3, 7))
CANNOT_TELL = "cannot tell"


@lru_cache(maxsize=1)
def _report(data: Stored) -> BandReport:
    """Return concentration on many bands, measured once for all figures.

    Raises:
        MeasureError: no checkpoints, or fewer than two seeds.
    """
    return band_report(data.folder, replace(PAGE_BANDS, named=default_named(data.vocab)), Console())


@STUDY.figure(
    "bands",
    "What concentrates, and when: many bands over training",
    order=120,
    rank=3,
    runs="A",
    refused=CHECKPOINTS,
)
def bands(data: Stored) -> Section:
    """Show what concentrates, and when: on bands inside and outside training, over training."""
    report = _report(data)
    table = report.tables["training"]
    return Section(
        text=f"{smallest_batch(data)} H_S and H_peak are debiased for the noise of the class means and given less "
        "their nulls: 0 is no structure. Bands inside training and bands outside it have the same moduli. The top is "
        "the highest of the measured moments, which favours a fall from it a little. Where noise is most of the energy "
        "no number is given, and the last moment is then an earlier one. Intervals are not corrected for their number.",
        figure=report.figures["training"],
        caption="Means over bands, shading is the range of seeds; grey: the 97.5 % level of noise on one band.",
        table=_contrasts(table, "fraction", "part of training"),
        tables={"bands-training": table, "bands-every": report.tables["bands"]},
        findings=(course_finding(table, "over training", concentrated(report.tables["summary"])),),
    )


@STUDY.figure(
    "sequence", "When it dissolves: along the sequence", order=130, rank=11, runs="A", refused=CHECKPOINTS
)
def sequence(data: Stored) -> Section:
    """Show when it dissolves along the sequence: once the step can be read from context."""
    report = _report(data)
    table = report.tables["position"]
    clean = table[table["regime"] == "clean"]
    return Section(
        text="The same bands at the end of training, by position. At the first one a model knows one token, hence at "
        "best the bigram statistics; from the second on the step can be read.",
        figure=report.figures["position"],
        caption="Mixed data combine the walk with up to two others; these runs were not trained on such data. Numbers "
        "are left out where noise is most of the energy.",
        table=_contrasts(
            clean.assign(**{c: clean[c] + 1 for c in ("top_position", "last_position")}),
            "position",
            "position",
        ),
        tables={"sequence": table},
        findings=(course_finding(clean, "Along the sequence"),),
    )


@STUDY.figure(
    "seeds",
    "How many seeds and bands a stage difference needs",
    order=140,
    rank=10,
    runs="A",
    refused=CHECKPOINTS,
)
def seeds(data: Stored) -> Section:
    """Show how many seeds and bands a stage difference needs."""
    report = _report(data)
    planning, components = report.tables["planning"], report.tables["components"]
    if planning.empty:
        raise MeasureError(
            "seeds are planned for a difference of two stages, and these runs have one; train another"
        )
    return Section(
        text="For power 0.8 at the 5 % level, from the variance over seeds, bands, seeds × bands and probe samples. "
        "“a / b”: a seeds for a claim about these very bands, b for one about bands of this kind. The components rest "
        f"on {counted(seeds_at_smallest_batch(data), 'seed')}: read the numbers as orders of magnitude.",
        figure=report.figures["planning"],
        caption="Left: what the spread of a stage difference is made of. Right: seeds needed to see the observed "
        "difference.",
        table=_needed(planning),
        tables={"seeds-needed": planning, "seeds-components": components},
        findings=(planning_finding(planning, seeds_at_smallest_batch(data)),),
    )


def _contrasts(table: pd.DataFrame, axis: str, heading: str) -> Table:
    rows = tuple(
        (
            r["quantity"],
            r["stage"],
            r["kind"],
            number(r["first"]),
            f"{number(r['top'])} at {r[f'top_{axis}']:.2g}",
            f"{number(r['last'])} at {r[f'last_{axis}']:.2g}",
            interval(r["change"], r["low"], r["high"]),
            interval(r["after_top"], r["after_low"], r["after_high"]) if r["after_top"] else ABSENT,
            _course(r),
        )
        for r in table.to_dict("records")
    )
    columns = (
        *("quantity", "stage", "bands", "first", f"top, at {heading}", f"last, at {heading}"),
        *("last − first", "last − top", "said"),
    )
    return Table(columns, rows, text=(0, 1, 2, 8))


def _course(r: dict) -> str:
    if side(r["after_low"], r["after_high"]) < 0:
        return "dissolves"
    if side(r["low"], r["high"]) > 0:
        return "grows"
    return CANNOT_TELL


def course_finding(table: pd.DataFrame, along: str, begin: str = "") -> Finding:
    """Return what grows and what dissolves beyond the spread of seeds."""
    courses = table.assign(said=[_course(r) for r in table.to_dict("records")])
    parts = []
    for said in ("grows", "dissolves"):
        own = courses[courses["said"] == said]
        names = [
            f"{quantity} in {stage} ({_kinds(rows['kind'])})"
            for (quantity, stage), rows in own.groupby(["quantity", "stage"], sort=False)
        ]
        parts.append(f"{', '.join(names) or 'nothing'} {said}")
    rest = int((courses["said"] == CANNOT_TELL).sum())
    return Finding(
        f"{begin}{along} beyond the spread of seeds {'; '.join(parts)}; {rest} of {len(courses)} cases of quantity, "
        "stage and kind of band cannot be told.",
        OPEN,
    )


def concentrated(summary: pd.DataFrame) -> str:
    """Return which stages end above the null, by more than seeds differ."""
    end = at_end(summary[summary["regime"] == "clean"])
    end = end[end["position"] == end["position"].max()]
    seeds = fewest_seeds(end)
    end = end[[side(low, high) > 0 for low, high in zip(end["low"], end["high"], strict=True)]]
    names = [
        f"{quantity} in {stage} ({_kinds(rows['kind'])})"
        for (quantity, stage), rows in end.groupby(["quantity", "stage"], sort=False)
    ]
    return (
        f"At the end of training {', '.join(names) or 'nothing'} stands above its null (mean over bands minus that of "
        f"the null, 95 % interval over {counted(seeds, 'seed')} above 0); "
    )


def fewest_seeds(summary: pd.DataFrame) -> int:
    """Return the least number of seeds behind a mean that is given; where noise hides it no seed has a value."""
    known = summary.loc[summary["n"] > 0, "n"]
    return int(known.min()) if len(known) else 0


def _kinds(kinds: pd.Series) -> str:
    known = sorted(kinds)
    return f"bands {' and '.join(known)} training"


def _needed(planning: pd.DataFrame) -> Table:
    sizes = sorted(planning["bands"].unique())
    rows = []
    for (quantity, target, origin, size), own in planning.groupby(
        ["quantity", "target", "origin", "size"], sort=False
    ):
        by_bands = {r["bands"]: r for r in own.to_dict("records")}
        cells = [
            f"{_count(by_bands[n]['new_seeds'])} / {ABSENT if n == 1 else _count(by_bands[n]['new_both'])}"
            for n in sizes
        ]
        rows.append((quantity, target, origin, f"{size:.3g}", *cells))
    columns = (
        "quantity",
        "transition",
        "difference",
        "size",
        *(counted(n, "band") for n in sizes),
    )
    return Table(columns, tuple(rows), text=(0, 1, 2))


def planning_finding(planning: pd.DataFrame, seeds: int) -> Finding:
    """Return how many seeds a stage difference needs."""
    most = int(planning["bands"].max())
    widest = planning[planning["bands"] == most]
    parts = []
    for (quantity, size), own in widest[widest["origin"] == "stated"].groupby(
        ["quantity", "size"], sort=False
    ):
        each = [f"{r['target']} {_count(r['new_seeds'])}" for r in own.to_dict("records")]
        parts.append(f"for {size:g} in {quantity}: {', '.join(each)}")
    observed = widest[widest["origin"] == "observed"]
    enough = int((observed["new_seeds"] <= seeds).sum())
    return Finding(
        f"Seeds that a stage difference needs on {counted(most, 'band')} (power 0.8, 5 %), {'; '.join(parts)}. Of the "
        f"{counted(len(observed), 'difference')} as observed, {enough} need{'s' * (enough == 1)} no more than "
        f"{counted(seeds, 'seed')}, as here.",
        OPEN,
    )


def _count(value: Any) -> str:
    return f"> {LARGEST}" if pd.isna(value) else str(value)
