"""Write a page as Markdown, which links figures where HTML holds them inline."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath

from sims.pages.page import (
    CAVEATS,
    FINDINGS,
    PROVENANCE,
    WORDS,
    Block,
    Cells,
    Content,
    Files,
    Fold,
    Formula,
    Picture,
    Statement,
    Steps,
    Text,
)
from sims.pages.table import Table


def markdown(content: Content, files: str = ".") -> str:
    """Return the page as Markdown.

    Args:
        files: folder of figures and tables, relative to the page.
    """
    page = content.page
    lines = [f"# {page.title}", ""]
    lines += [part for text in (page.subtitle, page.lead) if text for part in (text, "")]
    title = page.glance.title if page.glance else ""
    lines += [part for block in content.glance for part in (*_block(block, title, files, 2), "")]
    if content.links:
        lines += [" · ".join(f"[{text}]({address})" for text, address in content.links), ""]
    if content.words:
        lines += [f"## {WORDS}", "", *(f"- **{t.name}**: {t.meaning}." for t in content.words), ""]
    if page.findings:
        lines += [
            f"## {FINDINGS}",
            "",
            *((page.rule, "") if page.rule else ()),
            *(f"{k}. {_statement(f)}" for k, f in enumerate(page.findings, 1)),
            "",
        ]
    if page.warnings:
        lines += [f"## {CAVEATS}", "", *(f"> {warning}\n" for warning in page.warnings)]
    for section, blocks in content.sections:
        lines += [f"{'#' * section.level} {section.title}", ""]
        for block in blocks:
            lines += [*_block(block, section.title, files, section.level), ""]
    lines += [f"## {PROVENANCE}", "", *_facts(page.provenance), ""]
    return "\n".join(lines)


def pipes(table: Table) -> list[str]:
    """Return the lines of a Markdown table."""

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(c.replace("|", "\\|").replace("\n", "<br>") for c in cells) + " |"

    rule = ["---" if i in table.text else "---:" for i in range(len(table.columns))]
    return [line(table.columns), line(rule), *map(line, table.rows)]


def _statement(found: str | Statement) -> str:
    if isinstance(found, str) or found.decided is None:
        return found if isinstance(found, str) else found.text
    if found.decided:
        return f"**Decided.** {found.text}"
    return f"**Open.** {found.text}" + (f" *What would decide it: {found.needs}.*" if found.needs else "")


def _block(block: Block, title: str, files: str, level: int) -> Iterator[str]:
    folder = PurePosixPath(files)
    match block:
        case Text():
            yield block.text
        case Picture():
            yield f"![{title}]({folder / block.name}.svg)"
            if block.caption:
                yield from ("", f"*{block.caption}*")
        case Cells():
            if block.folded:
                yield from (block.folded, "")
            yield from pipes(block.table) if block.table.columns else _facts(block.table.rows)
        case Formula():
            yield f"{block.text} `{block.latex}`".strip()
        case Steps():
            yield from (f"{'#' * (level + 1)} {block.title}", "") if block.title else ()
            yield from (f"{k}. {s.text} `{s.latex}`" for k, s in enumerate(block.steps, 1))
        case Fold():
            yield f"**{block.title}**"
            for part in block.blocks:
                yield from ("", *_block(part, title, files, level))
        case Files():
            yield ", ".join(f"[{name}.csv]({folder / name}.csv)" for name in block.tables)


def _facts(rows: Sequence[tuple[str, ...]]) -> list[str]:
    return [f"- {name}: {value}".replace("\n", "; ") for name, value in rows]
