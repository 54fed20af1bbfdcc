"""The page of a reproduction, in HTML and in Markdown."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from sims.analysis.caveats import caveats, seconds_by_part
from sims.pages.number import ABSENT, counted, headed, interval, number
from sims.pages.page import Finding, Page, Section, Tone
from sims.pages.table import Table
from sims.pages.write import beside, provenance_rows, write_page
from sims.studies.glance import glance
from sims.studies.paper.figure_data import AGAINST, FigureData
from sims.studies.paper.published import PUBLISHED, Published
from sims.studies.paper.sections import left_out
from sims.studies.paper.share import cells_section
from sims.studies.paper.study import PAGE
from sims.studies.paper.verdicts import (
    AGREES,
    CANNOT_TELL,
    DISAGREES,
    NOT_COMPARABLE,
    NOT_RUN,
    VERDICTS,
    WITHOUT,
    Check,
    Ours,
    check,
)
from sims.studies.study import figures
from sims.system.provenance import provenance

TITLE = "Spectral Lens: the paper’s toy figures, reproduced"
CHAIN_TITLE = "Spectral Lens: the later stages of the chain"
LANGUAGE_TITLE = "Spectral Lens: the paper’s figures from language models"
FINDINGS = 5
RULES = (
    "A number was published from one seed: it disagrees if it lies outside the interval in which one further seed"
    " of ours would fall (where we have runs on other data: one further seed or one further data set), and agrees"
    " otherwise (a change only if ours is told from 0 in the same direction). A direction agrees or disagrees if "
    "our 95 % interval over seeds lies on one side of 0. A rank correlation agrees if an exact permutation test "
    "is significant at 5 %. Everything else cannot be told. The verdicts are not corrected for their number: "
    "where nothing differs, about one number in twenty disagrees by chance."
)
OF_CELLS = (
    "Figures of cells that were not run yet, that were not asked for, or of steps that no run of ours gets to. Means "
    "over batch sizes need all of them."
)
COLUMNS = ("published", "source", "value", "ours [95 % over seeds]", "seeds", "verdict", "why", "figure")
TONES: Mapping[str, Tone] = {AGREES: "good", DISAGREES: "bad", CANNOT_TELL: "open"}


def write(
    found: Sequence[Section], data: FigureData, out: Path, command: str, profile: str, title: str = TITLE
) -> Path:
    """Write figures, tables and pages below `out`.

    Args:
        found: the sections.
        data: what they were made from.
        command: the command that makes them again.
        profile: its name.
        title: of the page; under any but the usual one there is nothing published to compare with.

    Returns:
        The HTML page, `out`/reproduction.html; reproduction.md is written too, and `out`/reproduction/ holds the
        figures (SVG, PNG) and tables (CSV).

    Raises:
        StoreError: something cannot be written.
    """
    checks = all_checks(found, data)
    verdicts = verdict_table(checks)
    sections = [_with_findings(section) for section in found]
    share = cells_section(data, checks) if data.comparable else None
    if title == TITLE:
        sections = [
            Section(title="Published beside ours", text=RULES, table=verdicts),
            *([share] if share else []),
            *sections,
            Section(
                title="Published, and without a counterpart in these runs",
                text=OF_CELLS
                if data.comparable
                else "Numbers of another size, task or budget, and figures that were not asked for. Where we measured "
                "the same quantity it stands beside the published one; no verdict follows from it.",
                table=_without_counterpart(checks, data.comparable),
            ),
        ]
    if data.language:
        sections.append(Section(title="Not made of language models", text=left_out()))
    else:
        more = share.tables if share else {}
        sections[0] = replace(
            sections[0], tables={**sections[0].tables, "verdicts": verdicts.frame(), **more}
        )
    page = Page(
        title=title,
        subtitle=_subtitle(data, checks if title == TITLE else None, profile),
        lead=_lead(checks) if title == TITLE and not data.language else "",
        glance=glance(data.a),
        links=[beside("Source runs", data.folder, out)],
        warnings=[*caveats(data.everything), *(data.language.warnings if data.language else [])],
        findings=[_sentence(f, title == TITLE) for f in five([f for s in found for f in s.findings])],
        sections=sections,
        provenance=_provenance(data, command),
        tones=TONES,
    )
    return write_page(page, out / f"{PAGE}.html", out / f"{PAGE}.md", files=out / PAGE)


def all_checks(found: Sequence[Section], data: FigureData) -> list[Check]:
    """Return the checks of all sections and, of runs of the published size, one for each figure that lacks a cell."""
    checks = [c for section in found for c in section.checks]
    made = {c.published.key for c in checks}
    lacking = {key: data.missing(key) for key in PUBLISHED if key not in made}
    none = Ours(float("nan"), seeds=0)
    return checks + [check(key, none, "", True, cells) for key, cells in lacking.items() if cells]


def five(findings: Sequence[Finding]) -> list[Finding]:
    """Return the top of the page: findings against the paper, then by the rank of figures, one a figure first."""
    first: dict[str, Finding] = {}
    for finding in findings:
        first.setdefault(finding.figure, finding)
    known = figures(PAGE)
    leading = list(first.values())
    rest = [f for f in findings if f not in leading]

    def place(f: Finding) -> tuple[bool, float]:
        return f.stance != AGAINST, known[f.figure].rank if f.figure in known else float("inf")

    return [*sorted(leading, key=place), *sorted(rest, key=place)][:FINDINGS]


def tally(checks: Sequence[Check]) -> str:
    """Count the verdicts of each kind: "1 disagrees, 5 agree, …"."""
    return ", ".join(_counts(checks, VERDICTS)) or "none compared"


def _counts(checks: Sequence[Check], verdicts: Sequence[str], none: bool = False) -> list[str]:
    """Return how many checks have each verdict, in words; those that none has only with `none`."""
    many = {DISAGREES: "disagree", AGREES: "agree", CANNOT_TELL: "cannot be told"}
    one = {CANNOT_TELL: "cannot be told"}
    found = [(verdict, sum(c.verdict == verdict for c in checks)) for verdict in verdicts]
    return [f"{n} {(one if n == 1 else many).get(v, v)}" for v, n in found if n or none]


def _lead(checks: Sequence[Check]) -> str:
    """Return the verdict of the page in one sentence."""
    judged = [c for c in checks if c.verdict not in WITHOUT]
    if not judged:
        return "None of the published numbers can be compared with these runs."
    agree, disagree, open_ = _counts(judged, (AGREES, DISAGREES, CANNOT_TELL), none=True)
    return (
        f"Of {len(judged)} published statements that these runs can be compared with, {agree}, {disagree} and "
        f"{open_} from seeds."
    )


def verdict_table(checks: Sequence[Check]) -> Table:
    """Write every judged figure, disagreements first."""
    judged = [c for c in checks if c.verdict not in WITHOUT]
    rows = tuple(_row(c) for c in sorted(judged, key=lambda c: VERDICTS.index(c.verdict)))
    return Table(COLUMNS, rows, text=(0, 1, 5, 6, 7), links=(7,))


def _with_findings(section: Section) -> Section:
    """Put all findings of the section into its text; only five of the page are at its top."""
    return replace(section, text=" ".join([section.text, *(f.text for f in section.findings)]))


def _sentence(finding: Finding, stance: bool) -> str:
    """Return the finding with its figure, and how it relates to the paper."""
    place = re.sub("^fig", "figure ", finding.figure)
    return f"{finding.text} ({f'{finding.stance}; ' if stance and finding.stance else ''}{place})"


def _row(check: Check) -> tuple[str, ...]:
    p = check.published
    return (
        p.statement,
        p.source,
        _value(p),
        _ours(check.ours, p),
        str(int(check.ours.seeds)),
        check.verdict,
        check.reason,
        check.figure,
    )


def _value(p: Published) -> str:
    return number(p.value, p.digits) if not p.sign else "direction"


def _ours(ours: Ours, published: Published) -> str:
    return interval(ours.value, ours.low, ours.high, max(published.digits, 3))


def _without_counterpart(checks: Sequence[Check], comparable: bool) -> Table | None:
    beside = {c.published.key: c for c in checks}
    rows = []
    if comparable:
        for key, p in PUBLISHED.items():
            known = beside.get(key)
            if known is None or known.verdict == NOT_RUN:
                why = "not given by these runs" if known is None else known.reason
                rows.append((p.statement, p.source, _value(p), why))
        return Table(("published", "source", "value", "why"), tuple(rows), text=(0, 1, 3)) if rows else None
    for key, p in PUBLISHED.items():
        known = beside.get(key)
        if known is None:
            rows.append((p.statement, p.source, _value(p), ABSENT))
        elif known.verdict == NOT_COMPARABLE:
            rows.append((p.statement, p.source, _value(p), _ours(known.ours, p)))
    columns = ("published", "source", "value", "ours at another size")
    return Table(columns, tuple(rows), text=(0, 1)) if rows else None


def _subtitle(data: FigureData, checks: Sequence[Check] | None, profile: str) -> str:
    runs = data.everything.runs
    seeds = counted(runs["seed"].nunique(), "seed")
    if data.language:
        return (
            f"{counted(len(runs), 'run')} of language models ({data.language.model}); "
            f"{headed('stage', runs['stage'].unique())}; batch sizes in sequences: {data.language.batches}; "
            f"{seeds}. The published numbers of these figures are the toy’s, and none of them stands here."
        )
    what = (
        f"{profile}: {counted(len(runs), 'run')}; {headed('stage', runs['stage'].unique())}; "
        f"{headed('batch size', sorted(runs['batch_size'].unique()))}; {seeds}."
    )
    if checks is None:
        return f"{what} No figure of these stages was published for the toy."
    size = (
        "These runs have the published size, task and budget."
        if data.comparable
        else "These runs are smaller than the published ones: directions and orders are compared, numbers are not."
    )
    return f"{what} {size} Published figures: {tally(checks)}."


def _provenance(data: FigureData, command: str) -> list[tuple[str, str]]:
    origin = provenance("cpu")
    known = provenance_rows(origin)
    seconds = seconds_by_part(data.everything)
    shares = ", ".join(f"{part} {s:.0f} s" for part, s in seconds.items())
    rates = "the best of several a cell" if data.scanned else "one a cell"
    return [
        ("command", command),
        ("versions", known["versions"]),
        ("source", known["source"]),
        ("machine", f"{origin['device_name']}, {origin['cores']} cores"),
        ("time of all runs", f"{seconds.sum():.0f} s, summed over processes ({shares})"),
        ("learning rates", rates),
    ]
