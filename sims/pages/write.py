"""Write a page as HTML and Markdown, with its figures (SVG, PNG) and tables (CSV) beside it.

Equal content gives equal bytes: no clock, no random id.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from markupsafe import Markup
from matplotlib.figure import Figure

from sims.pages.page import Block, Cells, Formula, Page, Picture, Section, Steps, Text
from sims.pages.style import to_png, to_svg
from sims.pages.table import Table
from sims.system.files import make_folder, write_atomic
from sims.system.provenance import provenance

FINDINGS, PROVENANCE = "What came out", "How it was made"
UNKNOWN = "not recorded"


def write_page(page: Page, *paths: Path, files: Path | None = None) -> Path:
    """Write a page.

    Args:
        page: what is written.
        paths: one file a form, ending in .html or .md.
        files: folder for figures and tables; None writes none (the HTML holds its figures).

    Returns:
        The first of the paths.

    Raises:
        StoreError: something cannot be written.
    """
    for folder in {path.parent for path in paths} | ({files} if files else set()):
        make_folder(folder)
    sections = [(section, tuple(section.content(_drawn(section, files)))) for section in page.sections]
    if files:
        for name, table in (item for section in page.sections for item in section.tables.items()):
            write_csv(files / f"{name}.csv", table)
    for path in paths:
        if path.suffix == ".html":
            text = html(page, sections)
        else:
            text = markdown(page, sections, os.path.relpath(files, path.parent) if files else ".")
        write_atomic(path, lambda file, text=text: file.write(text.encode()))
    return paths[0]


def write_tables(
    folder: Path,
    title: str,
    tables: Mapping[str, pd.DataFrame],
    figures: Mapping[str, Figure],
    shown: Mapping[str, pd.DataFrame],
    notes: Sequence[str] = (),
) -> Path:
    """Write an analysis: `folder`/tables.md, every table as CSV, every figure as SVG and PNG.

    Args:
        folder: made if it does not exist.
        shown: heading → table, in the order of the page.
        notes: what a reader must know before believing the numbers.

    Returns:
        The page.
    """
    sections = [Section(title=heading, table=Table.of_frame(table)) for heading, table in shown.items()]
    sections += [
        Section(name=name, title=f"Figure: {name}", figure=figure) for name, figure in figures.items()
    ]
    sections.append(Section(title="All tables", text=", ".join(f"{n}.csv" for n in tables), tables=tables))
    page = Page(
        title=title,
        warnings=notes,
        sections=sections,
        provenance=list(provenance_rows(provenance("cpu")).items()),
    )
    return write_page(page, folder / "tables.md", files=folder)


def write_csv(path: Path, table: pd.DataFrame) -> None:
    """Write a table as CSV, without its index."""
    text = table.to_csv(index=False)
    write_atomic(path, lambda file: file.write(text.encode()))


def html(page: Page, sections: Sequence[tuple[Section, Sequence[Block]]]) -> str:
    """Return the self-contained HTML page: figures are inline SVG, nothing is loaded from elsewhere."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    count = itertools.count()
    environment.filters["inline"] = lambda svg: _with_ids_of_its_own(svg, next(count))
    template = environment.from_string(
        resources.files("sims.pages").joinpath("template.html").read_text("utf-8")
    )
    return template.render(
        page=page,
        sections=sections,
        facts=Cells(Table.of_facts(list(page.provenance))),
        headings={"findings": FINDINGS, "provenance": PROVENANCE},
    )


def markdown(page: Page, sections: Sequence[tuple[Section, Sequence[Block]]], files: str = ".") -> str:
    """Return the page as Markdown, which links figures where HTML holds them inline.

    Args:
        files: folder of the figures, relative to the page.
    """
    lines = [f"# {page.title}", ""]
    if page.subtitle:
        lines += [page.subtitle, ""]
    lines += [f"> {warning}\n" for warning in page.warnings]
    if page.findings:
        lines += [f"## {FINDINGS}", "", *(f"{k}. {text}" for k, text in enumerate(page.findings, 1)), ""]
    for section, blocks in sections:
        lines += [f"## {section.title}", ""]
        for block in blocks:
            lines += [*_markdown(block, section.title, files), ""]
    lines += [f"## {PROVENANCE}", "", *_facts(page.provenance), ""]
    return "\n".join(lines)


def pipes(table: Table) -> list[str]:
    """Return the lines of a Markdown table."""

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(c.replace("|", "\\|").replace("\n", "<br>") for c in cells) + " |"

    rule = ["---" if i in table.text else "---:" for i in range(len(table.columns))]
    return [line(table.columns), line(rule), *map(line, table.rows)]


def _markdown(block: Block, title: str, files: str) -> Iterator[str]:
    match block:
        case Text():
            yield block.text
        case Picture():
            yield f"![{title}]({(Path(files) / block.name).as_posix()}.svg)"
            if block.caption:
                yield from ("", f"*{block.caption}*")
        case Cells():
            yield from pipes(block.table) if block.table.columns else _facts(block.table.rows)
        case Formula():
            yield f"{block.text} `{block.latex}`".strip()
        case Steps():
            yield from (f"### {block.title}", "")
            yield from (f"{k}. {s.text} `{s.latex}`" for k, s in enumerate(block.steps, 1))


def _facts(rows: Sequence[tuple[str, ...]]) -> list[str]:
    return [f"- {name}: {value}".replace("\n", "; ") for name, value in rows]


def _drawn(section: Section, files: Path | None) -> str:
    """Return the figure of a section as SVG, and write its files where the section has a name."""
    figure = section.figure
    if figure is None:
        return ""
    svg = to_svg(figure)
    if files and section.name:
        # The figure was laid out for the first file, which took as long as drawing it.
        figure.set_layout_engine("none")
        write_atomic(files / f"{section.name}.png", lambda file: to_png(figure, file))
        # A file of its own needs the header that an inline element must not have.
        text = f'<?xml version="1.0" encoding="utf-8"?>\n{svg}'
        write_atomic(files / f"{section.name}.svg", lambda file: file.write(text.encode()))
    return svg


def _with_ids_of_its_own(svg: str, place: int) -> Markup:
    """Make the ids of an SVG element unique on a page with several."""
    return Markup(re.sub(r'(id="|href="#|url\(#)', rf"\g<1>f{place}-", svg))


def provenance_rows(origin: Mapping[str, Any]) -> dict[str, str]:
    """Return command, versions and source of a provenance record as a page shows them, as far as they are recorded."""
    git, known = origin.get("git"), origin.get("versions") or {}
    source = "not a git checkout" if "git" in origin else UNKNOWN
    if git:
        source = str(git.get("commit", UNKNOWN))[:12] + (" with changes" if git.get("dirty") else "")
    versions = ", ".join(f"{name} {version}" for name, version in known.items())
    return {
        "command": str(origin.get("command", UNKNOWN)),
        "versions": f"Python {origin.get('python', UNKNOWN)}, {versions or UNKNOWN}",
        "source": source,
    }
