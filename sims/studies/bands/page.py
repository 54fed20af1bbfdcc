"""The page of `speclens bands`: concentration on many bands, and the seeds that a difference needs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sims.analysis.runs import load
from sims.pages.page import Cells, Page, Section
from sims.pages.table import Table
from sims.pages.write import beside, made_here, write_folder
from sims.studies.bands.measured import BandReport
from sims.studies.bands.sections import concentrated, course_finding, fewest_seeds, planning_finding
from sims.studies.bands.shown import shown_tables
from sims.studies.glance import glance

TITLE = "Concentration on many bands"
RANGE = "Means over bands, shading is the range of seeds; grey: up to the 97.5 % level of noise on one band."


def write_bands(report: BandReport, runs: Path, folder: Path, notes: Sequence[str]) -> Path:
    """Write `folder`/index.html and tables.md, figures (SVG, PNG) and tables (CSV); return the page.

    Args:
        report: what was measured.
        runs: folder of the runs.
        folder: made if it does not exist.
        notes: what a reader must know before believing the numbers.

    Raises:
        StoreError: something cannot be written.
    """
    tables, figures = report.tables, report.figures
    shown = {name: Table.of_frame(table) for name, table in shown_tables(tables).items()}
    end = tables["position"][tables["position"]["regime"] == "clean"]
    told = [course_finding(tables["training"], "Over training"), course_finding(end, "Along the sequence")]
    if len(tables["planning"]):
        told.append(planning_finding(tables["planning"], fewest_seeds(tables["summary"])))
    parts = "Parts of the variance, by kind of band"
    sections = [
        Section(
            name="training",
            title="Over training",
            figure=figures["training"],
            caption=RANGE,
            table=shown["Over training"],
            tables={"training": tables["training"], "summary": tables["summary"]},
        ),
        Section(
            name="position",
            title="Along the sequence",
            figure=figures["position"],
            caption=RANGE,
            table=shown["Along the sequence"],
            tables={"position": tables["position"]},
        ),
        Section(
            name="bands",
            title="Bands at the end of training",
            figure=figures["bands"],
            caption="A row a band; points are means, lines the range over seeds. in: inside training, out: outside it.",
            table=shown["Bands at the end of training"],
            tables={"bands": tables["bands"], "measured": report.measured},
        ),
        Section(
            name="planning",
            title="Parts of the variance, and seeds needed",
            figure=figures.get("planning"),
            caption="Left: what makes a difference of stages vary. Right: seeds to see the observed difference.",
            table=shown.get("Seeds needed"),
            tables={name: tables[name] for name in tables if name in ("components", "planning")},
            blocks=(
                Cells(shown["Parts of the variance"], "Parts of the variance"),
                Cells(shown[parts], parts),
            ),
        ),
    ]
    page = Page(
        title=TITLE,
        lead=concentrated(tables["summary"]).rstrip("; ") + ".",
        glance=glance(load(runs)),
        links=[beside("Source runs", runs, folder)],
        findings=[finding.text for finding in told],
        warnings=notes,
        sections=sections,
        provenance=made_here(),
    )
    return write_folder(page, folder)
