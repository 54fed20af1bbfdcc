"""The outcomes as a terminal table and as one self-contained page in the house's template."""

from __future__ import annotations

import math
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
from rich.console import Console
from rich.markup import escape
from rich.table import Table as RichTable

from sims.pages.style import to_svg
from sims.pages.table import ABSENT, Table
from sims.studies.overview.findings import warnings
from sims.studies.theory.checkpoint_tables import CheckpointTables
from sims.studies.theory.outcome import FAILS, HOLDS, NOT_TESTABLE, Outcome
from sims.system.files import make_folder, write_atomic
from sims.system.provenance import provenance

STYLE = {HOLDS: "green", FAILS: "bold red", NOT_TESTABLE: "yellow"}
COLUMNS = (
    "claim",
    "question",
    "effect [95 % over seeds]",
    "predicted",
    "runs / seeds / checkpoints or pairs",
    "verdict",
)
TITLE = "The theory against trained models"


def effect(outcome: Outcome) -> str:
    """The effect with its interval, or a dash."""
    if math.isnan(outcome.effect):
        return ABSENT
    if math.isnan(outcome.low):
        return _digits(outcome.effect)
    return f"{_digits(outcome.effect)} [{_digits(outcome.low)}, {_digits(outcome.high)}]"


def _digits(value: float) -> str:
    if value == 0:
        return "0"
    return f"{value:.3f}" if 1e-3 <= abs(value) < 1e4 else f"{value:.1e}"


def overview(outcomes: list[Outcome]) -> Table:
    """One line an outcome, the same on the terminal and on the page."""
    rows = tuple(
        (
            o.claim,
            o.question,
            effect(o),
            o.predicted,
            f"{o.runs} / {o.seeds} / {o.checkpoints}" if o.runs else ABSENT,
            o.verdict,
        )
        for o in outcomes
    )
    return Table(COLUMNS, rows, text=(0, 1, 3, 5))


def print_outcomes(outcomes: list[Outcome], console: Console) -> None:
    """The table, then the reason of everything that does not simply hold."""
    shown = RichTable(title=TITLE, title_justify="left")
    for name in COLUMNS:
        shown.add_column(name, overflow="fold")
    for o, row in zip(outcomes, overview(outcomes).rows, strict=True):
        shown.add_row(*map(escape, row[:-1]), f"[{STYLE[o.verdict]}]{o.verdict}[/]")
    console.print(shown)
    for o in outcomes:
        if o.verdict != HOLDS:
            told = escape(f"{o.question}: {o.reason}")
            console.print(f"[{STYLE[o.verdict]}]{o.claim}[/] {told}", highlight=False)


def write_page(
    evidence: CheckpointTables, outcomes: list[Outcome], source: Path, out: Path, seconds: float
) -> Path:
    """Write the page to `out` (an .html file, or a folder that gets theory-against.html); returns its path.

    Raises:
        StoreError: it cannot be written.
    """
    path = out if out.suffix == ".html" else out / "theory-against.html"
    make_folder(path.parent)
    template = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(
        resources.files("sims.pages").joinpath("template.html").read_text()
    )
    runs = evidence.runs.runs
    page = template.render(
        title=TITLE,
        subtitle=f"{len(runs)} runs, {runs['seed'].nunique()} seeds, "
        f"{len(evidence.bounds[['run_id', 'step']].drop_duplicates())} checkpoints with probe bands.",
        warnings=warnings(evidence.runs),
        findings=_tally(outcomes),
        sections=[_section("All questions", table=overview(outcomes)), *(_detail(o) for o in outcomes)],
        provenance=_provenance(source, seconds),
    )
    write_atomic(path, lambda file: file.write(page.encode()))
    return path


def _tally(outcomes: list[Outcome]) -> list[str]:
    lines = []
    for verdict in (HOLDS, FAILS, NOT_TESTABLE):
        named = [
            f"{o.claim} ({o.question.rsplit(' [', 1)[-1].rstrip(']')})"
            for o in outcomes
            if o.verdict == verdict
        ]
        if named:
            lines.append(f"{len(named)} of {len(outcomes)} {verdict}: {'; '.join(dict.fromkeys(named))}.")
    return lines


def _detail(outcome: Outcome) -> dict[str, Any]:
    text = (
        f"{outcome.verdict}: {outcome.reason}. Measured: {outcome.unit}. Effect {effect(outcome)}; predicted "
        f"{outcome.predicted}."
    )
    title = f"{outcome.claim} · {outcome.question}"
    svg = to_svg(outcome.figure) if outcome.figure is not None else ""
    return _section(title, text=text, svg=svg)


def _section(title: str, *, text: str = "", svg: str = "", table: Table | None = None) -> dict[str, Any]:
    return {"title": title, "text": text, "svg": svg, "caption": "", "table": table}


def _provenance(source: Path, seconds: float) -> list[tuple[str, str]]:
    origin = provenance("cpu")
    git = origin["git"]
    return [
        ("runs", str(source)),
        ("command", origin["command"]),
        ("started", origin["started"]),
        ("versions", ", ".join(f"{name} {version}" for name, version in origin["versions"].items())),
        (
            "source",
            "not a git checkout"
            if git is None
            else git["commit"][:12] + (" with changes" if git["dirty"] else ""),
        ),
        ("time", f"{seconds:.0f} s"),
    ]
