"""What a page consists of; `sims.pages.write` turns it into files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import pandas as pd
from matplotlib.figure import Figure

from sims.pages.table import Table

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
    """A drawn figure.

    Attributes:
        svg: an SVG element.
        caption: below it.
        name: of its files beside the page; empty where it has none.
    """

    kind: ClassVar[str] = "picture"
    svg: str
    caption: str = ""
    name: str = ""


@dataclass(frozen=True)
class Formula:
    """LaTeX, drawn where matplotlib can, with words before it."""

    kind: ClassVar[str] = "formula"
    latex: str
    svg: str | None = None
    text: str = ""


@dataclass(frozen=True)
class Steps:
    """A numbered list of formulas under a heading."""

    kind: ClassVar[str] = "steps"
    title: str
    steps: tuple[Formula, ...]


@dataclass(frozen=True)
class Cells:
    """A table as a block of a section."""

    kind: ClassVar[str] = "table"
    table: Table


Block = Text | Picture | Formula | Steps | Cells


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


@dataclass(frozen=True, eq=False, kw_only=True)
class Section:
    """One section of a page.

    Attributes:
        name: of its anchor and of the files of its figure; empty for a section without either.
        title, text: what is asked, and how to read the answer.
        figure, caption: the picture; None where there is none.
        table: the numbers worth reading on the page.
        tables: every number, by name, for CSV files.
        checks: comparisons with published numbers (of the study that makes them).
        findings: sentences about the numbers, the most telling first.
        blocks: whatever else stands in the section, below all of these.
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

    def content(self, svg: str = "") -> Iterator[Block]:
        """Yield the blocks in the order of the page.

        Args:
            svg: the drawn figure, if there is one.
        """
        if self.text:
            yield Text(self.text)
        if svg:
            yield Picture(svg, self.caption, self.name)
        if self.table is not None:
            yield Cells(self.table)
        yield from self.blocks


@dataclass(frozen=True, eq=False, kw_only=True)
class Page:
    """A page: what came out, the sections, and how it was made.

    Attributes:
        title, subtitle: the head.
        warnings: what a reader must know before believing the numbers.
        findings: sentences.
        sections: in their order.
        provenance: names and values; no times but those of the runs, so that equal runs give equal pages.
        tones: how cells with a given text (a verdict) are shown.
    """

    title: str
    subtitle: str = ""
    warnings: Sequence[str] = ()
    findings: Sequence[str] = ()
    sections: Sequence[Section] = ()
    provenance: Sequence[tuple[str, str]] = ()
    tones: Mapping[str, Tone] = field(default_factory=dict)
