"""The page of `speclens robustness`: which conclusions move with the choices of the measurement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from sims.analysis.runs import load
from sims.pages.page import Page, Section, Tone
from sims.pages.table import Table
from sims.pages.write import beside, made_here, write_folder
from sims.studies.glance import glance
from sims.studies.robustness.measured import RobustnessReport
from sims.studies.robustness.sections import moves_finding
from sims.studies.robustness.shown import shown_tables
from sims.studies.robustness.tables import CANNOT_TELL, MOVES

TITLE = "Which conclusions move"
TONES: Mapping[str, Tone] = {"stays": "good", MOVES: "bad", CANNOT_TELL: "open"}


def write_robustness(report: RobustnessReport, runs: Path, folder: Path, notes: Sequence[str]) -> Path:
    """Write `folder`/index.html and tables.md, the figure (SVG, PNG) and tables (CSV); return the page.

    Args:
        report: what was measured.
        runs: folder of the runs.
        folder: made if it does not exist.
        notes: what a reader must know before believing the numbers.

    Raises:
        StoreError: something cannot be written.
    """
    shown = {name: Table.of_frame(table) for name, table in shown_tables(report.tables).items()}
    counts, every = "tally", "verdicts"
    others = {name: table for name, table in report.tables.items() if name != counts}
    page = Page(
        title=TITLE,
        lead=moves_finding(report.tables[every]).text,
        glance=glance(load(runs)),
        links=[beside("Source runs", runs, folder)],
        warnings=notes,
        sections=[
            Section(
                name="robustness",
                title="Every conclusion under every choice",
                figure=report.figures["robustness"],
                caption="The effect in each cell, bold where its sign is decided; a difference of stages, or a rank "
                "correlation of a summary with the final loss over stages.",
                table=shown["Every verdict"],
                tables=others,
            ),
            Section(name="conclusions", title="The conclusions", table=shown["The conclusions"]),
            Section(
                name=counts, title="Counts", table=shown["Counts"], tables={counts: report.tables[counts]}
            ),
        ],
        provenance=made_here(),
        tones=TONES,
    )
    return write_folder(page, folder)
