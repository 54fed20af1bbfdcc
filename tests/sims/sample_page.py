"""A page with everything that pages have, from made-up runs; the tests of pages look at it."""

import sys
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure
from test_analysis import synthetic

from sims.pages.page import Cells, Fold, Formula, Page, Section, Statement, Steps, Text
from sims.pages.table import Table
from sims.pages.write import write_page
from sims.studies.glance import glance
from sims.studies.overview.study import PAGE
from sims.studies.robustness.figures import robustness_figure
from sims.studies.study import sections

LEAD = (
    "untied ends at the lowest loss; whether it concentrates more than muon cannot be told from these seeds."
)


def sample() -> Page:
    """Return the sections of a report of made-up runs, and every other kind of block."""
    runs = synthetic()
    wide = Table(tuple(f"column {k}" for k in range(30)), (("a long word: " + "x" * 80, *["1.234"] * 29),))
    facts = Table.of_facts([("tested", "60 cases\nno more")])
    blocks = (
        Text("A paragraph.", "note"),
        Formula("$x^2$", text="first:"),
        Steps("Derivation", (Formula("$y$", text="second:"),)),
        Cells(wide),
        Cells(facts, "Facts"),
        Fold("More", (Text("hidden"), Text("yes", "good"), Text("no", "bad"), Text("perhaps", "open"))),
    )
    return Page(
        title="A page of everything",
        subtitle="12 made-up runs",
        lead=LEAD,
        glance=glance(runs),
        links=[("Source runs", "./")],
        warnings=["These runs are made up."],
        findings=[
            "A plain fact.",
            Statement("The loss falls.", True),
            Statement("H_peak may rise.", False, "about 9 seeds"),
        ],
        sections=[
            *sections(PAGE, runs),
            Section(
                name="whole", title="A figure that stays whole", figure=whole(), caption="Rows with words."
            ),
            Section(name="blocks", title="All blocks", blocks=blocks),
            Section(
                title="A part of it", level=3, text="Below.", tables={"numbers": pd.DataFrame({"x": [1]})}
            ),
        ],
        provenance=[("command", "a test"), ("configuration", "key=value, " * 40)],
        tones={"up": "good", "down": "bad", "cannot tell": "open"},
    )


def whole() -> Figure:
    """Draw a grid of verdicts, which is wider than a telephone and has one panel."""
    one = {"group": "windows", "reference": 0.5, "reference_sign": 1, "effect": -0.2, "sign": 0}
    rows = [
        {**one, "conclusion": f"conclusion {k}", "variation": f"ranks {j}", "verdict": "cannot tell"}
        for k in range(5)
        for j in range(12)
    ]
    return robustness_figure(pd.DataFrame(rows))


def write(folder: Path) -> Path:
    """Write the page as HTML and Markdown, with its files, and return the HTML."""
    return write_page(sample(), folder / "page.html", folder / "page.md", files=folder / "page")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
