"""What a reproduction leaves behind: figures, tables, and one page in HTML and in Markdown."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from sims.pages.render import render, save_figure
from sims.pages.table import ABSENT, Table
from sims.studies.overview.findings import warnings
from sims.studies.overview.tables import timing
from sims.studies.paper.figure_data import AGAINST, FigureData, Finding, Section
from sims.studies.paper.published import PUBLISHED, Published
from sims.studies.paper.verdicts import NOT_COMPARABLE, VERDICTS, Check, Ours
from sims.system.files import make_folder, write_atomic
from sims.system.provenance import provenance

TITLE = "Spectral Lens: the paper’s toy figures, reproduced"
CHAIN_TITLE = "Spectral Lens: the later stages of the chain"
LANGUAGE_TITLE = "Spectral Lens: the paper’s figures from language models"
FOLDER = "reproduction"
FINDINGS = 5
# The figures that carry the paper's main statements come first.
ORDER = (
    *("fig11b", "fig4b", "bands", "robustness", "tables", "fig1a", "fig4a", "layers"),
    *("fig11a", "seeds", "sequence", "fig7", "fig9", "fig3", "fig18"),
)
RULES = (
    "A number was published from one seed: it disagrees if it lies outside the interval in which one further seed of "
    "ours would fall, and agrees otherwise (a change only if ours is told from 0 in the same direction). A direction "
    "agrees or disagrees if our 95 % interval over seeds lies on one side of 0. A rank correlation agrees if an exact "
    "permutation test is significant at 5 %. Everything else cannot be told. The verdicts are not corrected for their "
    "number."
)
COLUMNS = ("published", "source", "value", "ours [95 % over seeds]", "seeds", "verdict", "why", "figure")


def write(
    found: Sequence[Section], material: FigureData, out: Path, command: str, profile: str, title: str = TITLE
) -> Path:
    """Write figures, tables and pages below `out`.

    Args:
        found: the sections.
        material: what they were made from.
        command: the command that makes them again.
        profile: its name.
        title: of the page; under any but the usual one there is nothing published to set beside.

    Returns:
        The HTML page, `out`/reproduction.html; reproduction.md stands beside it, and `out`/reproduction/ holds the
        figures (SVG, PNG) and tables (CSV).

    Raises:
        StoreError: something cannot be written.
    """
    folder = make_folder(out / FOLDER)
    drawn = {s.name: save_figure(s.figure, folder, s.name) for s in found if s.figure is not None}
    for section in found:
        for name, table in section.tables.items():
            write_atomic(folder / f"{name}.csv", lambda file, t=table: t.to_csv(file, index=False))
    checks = [c for section in found for c in section.checks]
    verdicts = verdict_table(checks)
    sections = [_of(section, drawn.get(section.name, "")) for section in found]
    if title == TITLE:
        sections = [
            _section("Published beside ours", text=RULES, table=verdicts),
            *sections,
            _section(
                "Published, and without a counterpart in these runs",
                text="Numbers of another size, task or budget, and figures that were not asked for. Where we measured "
                "the same quantity it stands beside the published one; no verdict follows from it.",
                table=_without_counterpart(checks),
            ),
        ]
    if material.language:
        sections.append(_section("Not made of language models", text=material.language.left_out))
    content: dict[str, Any] = {
        "title": title,
        "subtitle": _subtitle(material, checks if title == TITLE else None, profile),
        "warnings": [
            *warnings(material.everything),
            *(material.language.warnings if material.language else []),
        ],
        "findings": [_sentence(f, title == TITLE) for f in five([f for s in found for f in s.findings])],
        "sections": sections,
        "provenance": _provenance(material, command),
    }
    if material.language is None:
        _write_csv(verdicts, folder / "verdicts.csv")
    path = out / "reproduction.html"
    page = render(**content)
    write_atomic(path, lambda file: file.write(page.encode()))
    text = markdown(content)
    write_atomic(out / "reproduction.md", lambda file: file.write(text.encode()))
    return path


def five(findings: Sequence[Finding]) -> list[Finding]:
    """The top of the page: findings against the paper, then by the figures' weight, one a figure first."""
    first: dict[str, Finding] = {}
    for finding in findings:
        first.setdefault(finding.figure, finding)
    weight = {name: k for k, name in enumerate(ORDER)}
    leading = list(first.values())
    rest = [f for f in findings if f not in leading]

    def place(f: Finding) -> tuple[bool, int]:
        return f.stance != AGAINST, weight.get(f.figure, len(weight))

    return [*sorted(leading, key=place), *sorted(rest, key=place)][:FINDINGS]


def tally(checks: Sequence[Check]) -> str:
    """How many verdicts of each kind: "1 disagrees, 5 agrees, …"."""
    counts = {v: sum(c.verdict == v for c in checks) for v in VERDICTS}
    return ", ".join(f"{n} {verdict}" for verdict, n in counts.items() if n) or "none compared"


def verdict_table(checks: Sequence[Check]) -> Table:
    """Every judged figure, disagreements first."""
    judged = [c for c in checks if c.verdict != NOT_COMPARABLE]
    rows = tuple(_row(c) for c in sorted(judged, key=lambda c: VERDICTS.index(c.verdict)))
    return Table(COLUMNS, rows, text=(0, 1, 5, 6, 7))


def markdown(content: dict[str, Any]) -> str:
    """The page as Markdown; figures are linked where HTML holds them inline."""
    lines = [f"# {content['title']}", "", content["subtitle"], ""]
    lines += [f"> {warning}\n" for warning in content["warnings"]]
    lines += [
        "## Findings",
        "",
        *(f"{k}. {text}" for k, text in enumerate(content["findings"], start=1)),
        "",
    ]
    for section in content["sections"]:
        lines += [f"## {section['title']}", ""]
        if section["text"]:
            lines += [section["text"], ""]
        if section["svg"]:
            lines += [
                f"![{section['title']}]({FOLDER}/{section['name']}.svg)",
                "",
                f"*{section['caption']}*",
                "",
            ]
        if section["table"]:
            lines += [*_pipes(section["table"]), ""]
    lines += ["## How it was made", "", *(f"- {name}: {value}" for name, value in content["provenance"]), ""]
    return "\n".join(lines)


def _pipes(table: Table) -> list[str]:
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(c.replace("|", "\\|") for c in cells) + " |"

    rule = ["---" if i in table.text else "---:" for i in range(len(table.columns))]
    return [line(table.columns), line(rule), *map(line, table.rows)]


def _of(section: Section, svg: str) -> dict[str, Any]:
    # Five findings stand at the top; here is the place of all of them.
    text = " ".join([section.text, *(f.text for f in section.findings)])
    made = _section(section.title, text=text, svg=svg, caption=section.caption, table=section.table)
    return {**made, "name": section.name}


def _section(
    title: str, *, text: str = "", svg: str = "", caption: str = "", table: Table | None = None
) -> dict[str, Any]:
    return {"title": title, "text": text, "svg": svg, "caption": caption, "table": table, "name": ""}


def _sentence(finding: Finding, stance: bool) -> str:
    """The finding with where it can be seen, and how it stands to the paper."""
    place = re.sub("^fig", "figure ", finding.figure)
    return f"{finding.text} ({f'{finding.stance}; ' if stance else ''}{place})"


def _row(check: Check) -> tuple[str, ...]:
    p = check.published
    ours = _digits(check.ours, p)
    return (
        p.statement,
        p.source,
        _value(p),
        ours,
        str(int(check.ours.seeds)),
        check.verdict,
        check.reason,
        check.figure,
    )


def _value(p: Published) -> str:
    return f"{p.value:.{p.digits}f}" if not p.sign else "direction"


def _digits(ours: Ours, published: Published) -> str:
    digits = max(published.digits, 3)
    if math.isnan(ours.value):
        return ABSENT
    if math.isnan(ours.low):
        return f"{ours.value:.{digits}f}"
    return f"{ours.value:.{digits}f} [{ours.low:.{digits}f}, {ours.high:.{digits}f}]"


def _without_counterpart(checks: Sequence[Check]) -> Table | None:
    beside = {c.published.key: c for c in checks}
    rows = []
    for key, p in PUBLISHED.items():
        known = beside.get(key)
        if known is None:
            rows.append((p.statement, p.source, _value(p), ABSENT))
        elif known.verdict == NOT_COMPARABLE:
            rows.append((p.statement, p.source, _value(p), _digits(known.ours, p)))
    columns = ("published", "source", "value", "ours at another size")
    return Table(columns, tuple(rows), text=(0, 1)) if rows else None


def _subtitle(material: FigureData, checks: Sequence[Check] | None, profile: str) -> str:
    runs = material.everything.runs
    seeds = runs["seed"].nunique()
    if material.language:
        return (
            f"{len(runs)} run{'s' * (len(runs) > 1)} of language models ({material.language.model}); stages "
            f"{', '.join(runs['stage'].unique())}; batch sizes in sequences: {material.language.batches}; "
            f"{seeds} seed{'s' * (seeds > 1)}. The published numbers of these figures are the toy’s, and none of them "
            "stands here."
        )
    what = (
        f"{profile}: {len(runs)} runs; stages {', '.join(runs['stage'].unique())}; batch sizes "
        f"{', '.join(map(str, sorted(runs['batch_size'].unique())))}; {seeds} seeds."
    )
    if checks is None:
        return f"{what} No figure of these stages was published for the toy."
    size = (
        "These runs have the published size, task and budget."
        if material.comparable
        else "These runs are smaller than the published ones: directions and orders are compared, numbers are not."
    )
    return f"{what} {size} Published figures: {tally(checks)}."


def _provenance(material: FigureData, command: str) -> list[tuple[str, str]]:
    origin = provenance("cpu")
    git = origin["git"]
    source = "not a git checkout"
    if git is not None:
        source = git["commit"][:12] + (" with changes" if git["dirty"] else "")
    seconds = timing(material.everything)
    shares = ", ".join(f"{part} {s:.0f} s" for part, s in seconds.items())
    rates = "the best of several a cell" if material.scanned else "one a cell"
    return [
        ("command", command),
        ("analysed", origin["started"]),
        (
            "versions",
            f"Python {origin['python']}, " + ", ".join(f"{n} {v}" for n, v in origin["versions"].items()),
        ),
        ("source", source),
        ("machine", f"{origin['device_name']}, {origin['cores']} cores"),
        ("time of all runs", f"{seconds.sum():.0f} s, summed over processes ({shares})"),
        ("learning rates", rates),
    ]


def _write_csv(table: Table, path: Path) -> None:
    frame = pd.DataFrame(list(table.rows), columns=list(table.columns))
    write_atomic(path, lambda file: frame.to_csv(file, index=False))
