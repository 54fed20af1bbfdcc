"""The outcomes on trained runs: a terminal table, and a self-contained page."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from rich.console import Console

from sims.analysis.caveats import caveats
from sims.pages.drawing import drawn
from sims.pages.number import ABSENT, counted, interval, missing, scientific, verb
from sims.pages.page import Cells, Fold, Page, Section, Statement, Text, Tone
from sims.pages.table import Table
from sims.pages.terminal import rich_table, toned
from sims.pages.write import provenance_rows, write_page
from sims.studies.glance import glance
from sims.studies.theory.checkpoint_tables import CheckpointTables
from sims.studies.theory.outcome import FAILS, HOLDS, NOT_TESTABLE, Outcome
from sims.system.provenance import provenance
from theory.claims import CLAIMS
from theory.families import FAMILIES

TONES: Mapping[str, Tone] = {HOLDS: "good", FAILS: "bad", NOT_TESTABLE: "open"}
CALLED: Mapping[str, str] = {HOLDS: "Holds", FAILS: "Fails", NOT_TESTABLE: "Open"}
RULES = (
    "Every question was fixed before anything was measured. It holds if the whole 95 % interval over seeds lies in "
    "what the claim accepts, and fails if all of it lies outside; otherwise these runs cannot tell. Statements that "
    "must be true of every checkpoint are decided by the worst one, without an interval. Each question is taken by "
    "itself: of intervals where there is nothing to find, one in twenty leaves the limit out by chance. What "
    "would decide an open question is reckoned as if mean and spread of the seeds stayed what they are."
)
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
        subtitle=f"{counted(len(runs), 'run')}, {counted(runs['seed'].nunique(), 'seed')}, "
        f"{counted(len(evidence.bounds[['run_id', 'step']].drop_duplicates()), 'checkpoint')} with probe bands.",
        lead=_lead(outcomes),
        glance=glance(evidence.runs),
        warnings=[*caveats(evidence.runs), *evidence.notes],
        findings=list(statements(outcomes)),
        sections=[
            Section(title="All questions", text=RULES, blocks=(Cells(overview(outcomes)),)),
            *_by_family(outcomes),
        ],
        provenance=[("runs", str(source)), *known.items()],
        tones=TONES,
    )
    return write_page(page, out if out.suffix == ".html" else out / "theory-against.html")


def _lead(outcomes: list[Outcome]) -> str:
    holds, fails = (sum(o.verdict == v for o in outcomes) for v in (HOLDS, FAILS))
    left = len(outcomes) - holds - fails
    return (
        f"Of {counted(len(outcomes), 'question')} that the theory asks of these runs, {holds} {verb(holds)} answered "
        f"as it predicts, {fails} against it, and {left} {verb(left, 'stays', 'stay')} open."
    )


def statements(outcomes: list[Outcome]) -> Iterator[Statement]:
    """Yield one sentence for each question and verdict: what holds, what fails, then what is open and why."""
    for verdict in (HOLDS, FAILS, NOT_TESTABLE):
        groups: dict[tuple[str, str], list[Outcome]] = {}
        for o in outcomes:
            if o.verdict == verdict:
                groups.setdefault((o.claim, o.asked[0]), []).append(o)
        for (claim, question), own in groups.items():
            told = "; ".join(filter(None, map(_told, own)))
            text = f"{question} {CALLED[verdict]}{f': {told}' if told else ''} ({claim})."
            yield Statement(text, verdict != NOT_TESTABLE, "; ".join(filter(None, map(_needs, own))))


def _told(outcome: Outcome) -> str:
    """Return the runs that were asked and the effect, or why there is none."""
    measured = outcome.reason if missing(outcome.effect) else effect(outcome)
    return " ".join(filter(None, (outcome.asked[1], measured)))


def _needs(outcome: Outcome) -> str:
    of = outcome.asked[1]
    return f"{outcome.needs}{f' ({of})' if of else ''}" if outcome.needs else ""


def _by_family(outcomes: list[Outcome]) -> Iterator[Section]:
    """Yield a section for each family of claims, with what its claims mean, then those of its questions."""
    known = {claim.id: claim for claim in CLAIMS}
    families: dict[int, list[Outcome]] = {}
    for outcome in outcomes:
        families.setdefault(int(_claims(outcome)[0].split(".")[0][1:]), []).append(outcome)
    for number, own in sorted(families.items()):
        name = f"T{number}"
        claims = dict.fromkeys(c for o in own for c in _claims(o) if c in known)
        yield Section(
            name=name,
            title=f"{name} · {FAMILIES[name].title}",
            text=FAMILIES[name].sentence,
            blocks=tuple(Text(f"{c}: {known[c].meaning}") for c in claims),
        )
        yield from map(_detail, own)


def _claims(outcome: Outcome) -> list[str]:
    """Return the ids of the claims that a question follows from."""
    return re.findall(r"T\d+(?:\.[a-z-]+)?", outcome.claim)


def _detail(outcome: Outcome) -> Section:
    evidence = () if outcome.figure is None else (Fold("The measurements", (drawn(outcome.figure),)),)
    return Section(
        title=f"{outcome.claim} · {outcome.question}",
        blocks=(
            Text(f"{outcome.verdict}: {outcome.reason}", TONES[outcome.verdict]),
            Text(f"Measured: {outcome.unit}. Effect {effect(outcome)}; predicted {outcome.predicted}."),
            *evidence,
        ),
        level=3,
    )
