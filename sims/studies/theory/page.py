"""The outcomes on trained runs: a terminal table, and a self-contained page."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from rich.console import Console

from sims.analysis.caveats import caveats
from sims.pages.number import ABSENT, interval, scientific
from sims.pages.page import Page, Section, Tone
from sims.pages.table import Table
from sims.pages.terminal import rich_table, toned
from sims.pages.write import provenance_rows, write_page
from sims.studies.theory.checkpoint_tables import CheckpointTables
from sims.studies.theory.outcome import FAILS, HOLDS, NOT_TESTABLE, Outcome
from sims.system.provenance import provenance

TONES: Mapping[str, Tone] = {HOLDS: "good", FAILS: "bad", NOT_TESTABLE: "open"}
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
    """Return the effect with its interval, or a dash."""
    return interval(outcome.effect, outcome.low, outcome.high, write=scientific)


def overview(outcomes: list[Outcome]) -> Table:
    """Write one line an outcome, the same on the terminal and on the page."""
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
    """Print the table, then the reason of everything that does not simply hold."""
    console.print(rich_table(TITLE, overview(outcomes), TONES))
    for o in outcomes:
        if o.verdict != HOLDS:
            claim = toned(o.verdict, TONES, o.claim)
            console.print(f"{claim} {toned('', {}, f'{o.question}: {o.reason}')}", highlight=False)


def write_against(evidence: CheckpointTables, outcomes: list[Outcome], source: Path, out: Path) -> Path:
    """Write the page to `out` (an .html file, or a folder that gets theory-against.html); return its path.

    Raises:
        StoreError: it cannot be written.
    """
    runs = evidence.runs.runs
    known = provenance_rows(provenance("cpu"))
    page = Page(
        title=TITLE,
        subtitle=f"{len(runs)} runs, {runs['seed'].nunique()} seeds, "
        f"{len(evidence.bounds[['run_id', 'step']].drop_duplicates())} checkpoints with probe bands.",
        warnings=caveats(evidence.runs),
        findings=_tally(outcomes),
        sections=[
            Section(title="All questions", table=overview(outcomes)),
            *(_detail(o) for o in outcomes),
        ],
        provenance=[("runs", str(source)), *known.items()],
        tones=TONES,
    )
    return write_page(page, out if out.suffix == ".html" else out / "theory-against.html")


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


def _detail(outcome: Outcome) -> Section:
    return Section(
        title=f"{outcome.claim} · {outcome.question}",
        text=f"{outcome.verdict}: {outcome.reason}. Measured: {outcome.unit}. Effect {effect(outcome)}; predicted "
        f"{outcome.predicted}.",
        figure=outcome.figure,
    )
