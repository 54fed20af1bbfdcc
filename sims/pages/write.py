"""Write a page as HTML and Markdown, with its figures (SVG, PNG) and tables (CSV) beside it.

Equal content gives equal bytes: no clock, no random id.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from sims.pages.drawing import drawn
from sims.pages.glossary import terms
from sims.pages.html import html
from sims.pages.markdown import markdown
from sims.pages.page import Block, Cells, Content, Files, Fold, Page, Picture, Section, Statement, Text
from sims.pages.style import to_png
from sims.system.files import make_folder, write_atomic
from sims.system.provenance import provenance

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
    glance = _blocks(page.glance, files) if page.glance else ()
    sections = [(section, _blocks(section, files)) for section in page.sections]
    words = terms(list(_texts(page, [*glance, *(b for _, blocks in sections for b in blocks)])))
    links = [*page.links, *_documentation(), ("Paper", f"https://arxiv.org/abs/{page.paper}")]
    content = Content(page=page, glance=glance, sections=sections, words=words, links=links)
    for path in paths:
        form = html if path.suffix == ".html" else markdown
        beside = Path(os.path.relpath(files, path.parent)).as_posix() if files else "."
        text = form(content, beside)
        write_atomic(path, lambda file, text=text: file.write(text.encode()))
    return paths[0]


def write_folder(page: Page, folder: Path) -> Path:
    """Write `folder`/index.html and tables.md, figures (SVG, PNG) and tables (CSV); return the page.

    Raises:
        StoreError: something cannot be written.
    """
    return write_page(page, folder / "index.html", folder / "tables.md", files=folder)


def _blocks(section: Section, files: Path | None) -> tuple[Block, ...]:
    """Return the content of a section, and write its files."""
    picture = None if section.figure is None else _drawn(section.figure, section, files)
    blocks = tuple(section.content(picture))
    if not files:
        return blocks
    tables = section.files()
    for name, table in tables.items():
        write_csv(files / f"{name}.csv", table)
    figure = section.name if picture else ""
    return (*blocks, Files(tuple(tables), figure)) if tables or figure else blocks


def _texts(page: Page, blocks: Sequence[Block]) -> Iterator[str]:
    """Yield every text of a page."""
    yield from (page.title, page.subtitle, page.lead, page.rule, *page.warnings)
    yield from (found.text if isinstance(found, Statement) else found for found in page.findings)
    yield from (section.title for section in page.sections)
    for block in blocks:
        match block:
            case Text():
                yield block.text
            case Picture():
                yield f"{block.caption} {block.legend}"
            case Cells():
                yield from block.table.columns
                yield from (text for row in block.table.rows for text in row)
            case Fold():
                yield from _texts(Page(title=block.title), block.blocks)
            case _:
                pass


def _documentation() -> list[tuple[str, str]]:
    """Return the link to the documentation that the installed package names, if it names one."""
    try:
        urls = metadata.metadata("spectral-lens").get_all("Project-URL") or []
    except metadata.PackageNotFoundError:
        return []
    known = dict(url.split(", ", 1) for url in urls)
    return [("Documentation", known["Documentation"])] if "Documentation" in known else []


def beside(text: str, target: Path, folder: Path) -> tuple[str, str]:
    """Return a link of a page to a folder, relative to the folder of the page."""
    return text, Path(os.path.relpath(target, folder)).as_posix() + "/"


def write_csv(path: Path, table: pd.DataFrame) -> None:
    """Write a table as CSV, without its index."""
    text = table.to_csv(index=False)
    write_atomic(path, lambda file: file.write(text.encode()))


def _drawn(figure: Figure, section: Section, files: Path | None) -> Picture:
    """Return the figure of a section, and write its files where the section has a name."""
    picture = drawn(figure, section.caption, section.name)
    if files and section.name:
        write_atomic(files / f"{section.name}.png", lambda file: to_png(figure, file))
        # A file of its own needs the header that an inline element must not have.
        text = f'<?xml version="1.0" encoding="utf-8"?>\n{picture.svg}'
        write_atomic(files / f"{section.name}.svg", lambda file: file.write(text.encode()))
    return picture


def made_here(device: str = "cpu") -> list[tuple[str, str]]:
    """Return command, versions and source of this process as a page shows them."""
    return list(provenance_rows(provenance(device)).items())


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
