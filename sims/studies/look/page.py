"""Write a look: a page, its tables beside it, and what a notebook shows."""

from __future__ import annotations

import html
from pathlib import Path
from typing import TYPE_CHECKING

from sims.pages.page import Page
from sims.pages.write import made_here, write_page
from sims.runs.tables import write_table
from sims.studies.look.findings import findings, verdict
from sims.studies.look.sections import glance
from sims.studies.look.study import PAGE
from sims.studies.look.tables import KEY, narrow
from sims.studies.study import sections

if TYPE_CHECKING:
    from sims.studies.look.look import Look

NAME = "index.html"


def write(look: Look, folder: Path) -> Path:
    """Write index.html, rows.csv, rows.parquet and spectra.parquet; return the page.

    Raises:
        StoreError: something cannot be written.
        QueryError: the folder is that of a run.
    """
    page = write_page(page_of(look), folder / NAME)
    write_table(folder / "rows.csv", look.rows)
    write_table(folder / "rows.parquet", look.rows)
    write_table(folder / "spectra.parquet", look.spectra)
    return page


def page_of(look: Look) -> Page:
    """Return the page: the verdict, what came out, the pictures by layer, and the tables, folded."""
    first, *others = [finding.text for finding in findings(look)]
    about = [look.kind, *([] if look.step is None else [f"step {look.step}"])]
    return Page(
        title=f"A look at {look.name}",
        subtitle=", ".join(about),
        lead=first,
        glance=glance(look),
        findings=others,
        links=[("All numbers (CSV)", "rows.csv")],
        warnings=list(look.notes),
        sections=sections(PAGE, look),
        provenance=made_here(),
    )


def notebook(look: Look) -> str:
    """Return the verdict and the table by matrix as HTML."""
    table = narrow(look.rows).frame().to_html(index=False)
    return f"<p><b>{html.escape(verdict(look))}</b></p>{table}<p><small>{html.escape(KEY)}</small></p>"
