"""What a page consists of; `sims.pages.write` turns it into files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import pandas as pd
from matplotlib.figure import Figure

from sims.pages.glossary import Term
from sims.pages.table import Table

# A part of a drawing in points: left, top, width and height.
Window = tuple[float, float, float, float]
FINDINGS, CAVEATS, WORDS = "What came out", "What to know before believing it", "Words"
PROVENANCE = "How it was made"
# A longer table is folded.
MOST_ROWS = 12
# How a text or a verdict is shown: in a margin colour, or as a small note.
Tone = Literal["", "note", "warn", "good", "bad", "open"]


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    kind: ClassVar[str] = "text"
    text: str
    tone: Tone = ""


@dataclass(frozen=True)
class Picture:
    """A drawn figure; `sims.pages.drawing.drawn` makes it.

    Attributes:
        svg: an SVG element.
        caption: below it.
        name: of its files beside the page; empty where it has none.
        panels: the parts of the drawing that may stand below each other on a narrow screen; none where it stays whole.
        columns: how many of them stand beside each other on a wide screen.
        key: the parts of the drawing that explain colours and lines, which stand above the panels.
        legend: the same in words.
    """

    kind: ClassVar[str] = "picture"
    svg: str
    caption: str = ""
    name: str = ""
    panels: tuple[Window, ...] = ()
    columns: int = 1
    key: tuple[Window, ...] = ()
    legend: str = ""


@dataclass(frozen=True)
class Formula:
    """LaTeX, which HTML shows as MathML, with words before it."""

    kind: ClassVar[str] = "formula"
    latex: str
    text: str = ""


@dataclass(frozen=True)
class Steps:
    """A numbered list of formulas, under a heading if it has one."""

    kind: ClassVar[str] = "steps"
    title: str
    steps: tuple[Formula, ...]


@dataclass(frozen=True)
class Cells:
    """A table as a block of a section.

    Attributes:
        table: the cells.
        folded: heading under which HTML hides it until it is asked for; empty shows it.
    """

    kind: ClassVar[str] = "table"
    table: Table
    folded: str = ""


@dataclass(frozen=True)
class Files:
    """Links to the files of a section, in the folder beside the page.

    Attributes:
        tables: names of CSV files.
        figure: name of an SVG and a PNG file; empty where there is none.
    """

    kind: ClassVar[str] = "files"
    tables: tuple[str, ...] = ()
    figure: str = ""


@dataclass(frozen=True)
class Fold:
    """Blocks that HTML hides under a heading until they are asked for."""

    kind: ClassVar[str] = "fold"
    title: str
    blocks: tuple[Block, ...]


Block = Text | Picture | Formula | Steps | Cells | Files | Fold


@dataclass(frozen=True)
class Finding:
    """A sentence that the numbers chose.

    Attributes:
        text: what came out, with its uncertainty.
        stance: what it says about a published statement, in the words of the study.
        figure: the figure that shows it.
    """

    text: str
    stance: str = ""
    figure: str = ""


@dataclass(frozen=True)
class Statement:
    """A headline sentence of a page.

    Attributes:
        text: what came out, with its uncertainty.
        decided: whether the numbers decide it; None where it only tells what was measured and compares nothing.
        needs: what would decide an open one, such as "about 9 seeds".
    """

    text: str
    decided: bool | None = None
    needs: str = ""


@dataclass(frozen=True, eq=False, kw_only=True)
class Section:
    """One section of a page.

    Attributes:
        name: of its anchor and of the files of its figure; empty for a section without either.
        title, text: what is asked, and how to read the answer.
        figure, caption: the picture; None where there is none.
        table: the numbers worth reading on the page; folded below a figure, or where it is long.
        tables: every number, by name, for CSV files; without them the cells of `table` are written under `name`.
        checks: comparisons with published numbers (of the study that makes them).
        findings: sentences about the numbers, the most telling first.
        blocks: whatever else stands in the section, below all of these.
        level: of its heading: 2, or 3 for a section that belongs to the one before.
    """

    name: str = ""
    title: str = ""
    text: str = ""
    figure: Figure | None = None
    caption: str = ""
    table: Table | None = None
    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    checks: tuple[Any, ...] = ()
    findings: tuple[Finding, ...] = ()
    blocks: tuple[Block, ...] = ()
    level: Literal[2, 3] = 2

    def content(self, picture: Picture | None = None) -> Iterator[Block]:
        """Yield the blocks in the order of the page: the figure first.

        Args:
            picture: the drawn figure, if there is one.
        """
        if picture:
            yield picture
        if self.text:
            yield Text(self.text)
        if self.table is not None:
            folded = picture is not None or len(self.table.rows) > MOST_ROWS
            yield Cells(self.table, _summary(self.table) if folded else "")
        yield from self.blocks

    def files(self) -> dict[str, pd.DataFrame]:
        """Return the tables that are written beside the page, by name."""
        if self.tables or not self.name or self.table is None or not self.table.columns:
            return dict(self.tables)
        return {self.name: self.table.frame()}


def _summary(table: Table) -> str:
    """Say what a folded table holds."""
    count = len(table.rows)
    return f"Table: {', '.join(table.columns)} ({count} row{'s' * (count != 1)})"


@dataclass(frozen=True, eq=False, kw_only=True)
class Page:
    """A page: what came out, the sections, and how it was made.

    Attributes:
        title, subtitle: the head.
        lead: one sentence below it: the verdict.
        glance: its figure is the picture of the first screen, with its caption and tables.
        links: words and addresses beside those of the tables, the documentation and the paper; such as the runs.
        warnings: what a reader must know before believing the numbers.
        rule: how decided and open findings are told apart, above them.
        findings: sentences, in the order in which they are shown.
        sections: in their order.
        provenance: names and values; no times but those of the runs, so that equal runs give equal pages.
        tones: how cells with a given text (a verdict) are shown.
        paper: arXiv number of the paper that the page is about.
    """

    title: str
    subtitle: str = ""
    lead: str = ""
    glance: Section | None = None
    links: Sequence[tuple[str, str]] = ()
    warnings: Sequence[str] = ()
    rule: str = ""
    findings: Sequence[str | Statement] = ()
    sections: Sequence[Section] = ()
    provenance: Sequence[tuple[str, str]] = ()
    tones: Mapping[str, Tone] = field(default_factory=dict)
    paper: str = "2605.05683"


@dataclass(frozen=True, eq=False, kw_only=True)
class Content:
    """A page with its figures drawn, ready to be written in any form.

    Attributes:
        page: what is written.
        glance, sections: the blocks of the picture at the top and of the sections.
        words: of the glossary.
        links: words and addresses at the top.
    """

    page: Page
    glance: Sequence[Block]
    sections: Sequence[tuple[Section, Sequence[Block]]]
    words: Sequence[Term]
    links: Sequence[tuple[str, str]]
