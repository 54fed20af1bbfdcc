"""The page of `speclens phases`: which phases the geometry of states goes through, and what carries each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sims.analysis.geometry import UNKNOWN
from sims.pages.number import counted, verb
from sims.pages.page import Page
from sims.pages.table import Table
from sims.pages.write import beside, made_here, write_folder
from sims.studies.claims import OPEN, SHOWN, TONES, claim_table, statements
from sims.studies.phases.answers import PhaseAnswers
from sims.studies.phases.published import WEC, claims
from sims.studies.phases.sections import at, glance
from sims.studies.phases.study import PAGE
from sims.studies.study import sections

TITLE = "Which phases does the geometry of states go through?"
RULE = (
    "Rules do not depend on the runs: three seeds that agree on each turn, tests of every turn and slope corrected "
    "over the sets, α-ReQ that moves the other way, and runs that are alike but for one setting."
)
# Runs of one outcome that a statement names.
NAMED = 3


def write_phases(answers: PhaseAnswers, runs: Sequence[Path], folder: Path, notes: Sequence[str]) -> Path:
    """Write `folder`/index.html and tables.md, figures (SVG, PNG) and tables (CSV); return the page.

    Args:
        answers: the geometry of states of all runs, and what the rules say of it.
        runs: folders of the runs.
        folder: made if it does not exist.
        notes: what a reader must know before believing the numbers.

    Raises:
        StoreError: something cannot be written.
    """
    data = answers.data
    page = Page(
        title=TITLE,
        subtitle=f"{counted(len(data.runs.runs), 'run')} in {counted(len(data.settings), 'set')}. RankMe and α-ReQ of "
        "the final states during training (arXiv 2509.23024); L is the number of blocks, d the width.",
        lead=lead(answers),
        glance=glance(answers),
        links=[beside(f"Source runs {path.name}", path, folder) for path in runs],
        warnings=notes,
        paper="2509.23024",
        rule=RULE,
        findings=list(statements(claims(answers), NAMED)),
        sections=sections(PAGE, answers),
        provenance=made_here(),
        tones=TONES,
    )
    return write_folder(page, folder)


def lead(answers: PhaseAnswers) -> str:
    """Return the words of the sets and the number of claims that are shown, in one sentence."""
    cells = answers.data.main or answers.data.cells
    told = "; ".join(f"{cell}: {spoken(answers, cell)}" for cell in cells[:NAMED])
    more = f"; and {counted(len(cells) - NAMED, 'more set')}" if len(cells) > NAMED else ""
    table = claim_table(claims(answers))
    names = table.groupby("claim", sort=False)["outcome"]
    shown, unsure = (
        int(names.apply(lambda o: (o == SHOWN).any()).sum()),
        int(names.apply(lambda o: (o == OPEN).all()).sum()),
    )
    total = counted(len(names), "statement")
    return (
        f"{told}{more}. Of {total}, {shown} {verb(shown)} shown in some of these runs, and {unsure} "
        f"{verb(unsure)} open in all."
    )


def spoken(answers: PhaseAnswers, cell: str) -> str:
    """Return the word of a set, with how far it is supported."""
    own = answers.words[cell]
    if own.status == "not fitted":
        return "not resolved"
    word = "the published word" if own.word == WEC else "not the published word"
    if UNKNOWN in own.word:
        word = "not supported to its end"
    elif own.status != "ok":
        word = "with limits"
    return f"{own.word} ({word}, {counted(own.seeds, 'seed')})"


def word_table(answers: PhaseAnswers) -> Table:
    """Return the words of all sets for the terminal."""
    rows = []
    for cell in answers.data.cells:
        own, (least, most) = answers.words[cell], answers.extremes(cell)
        rows.append((cell, own.word or "–", str(own.seeds), at(least), at(most), own.reason))
    return Table(
        ("runs", "word", "seeds", "least RankMe [95 %] at tokens", "largest after it", "what limits it"),
        tuple(rows),
        text=(0, 1, 5),
    )


def word_rows(answers: PhaseAnswers) -> list[dict[str, Any]]:
    """Return the words of all sets and runs, one row each."""
    words = answers.found.words.rename(columns={"stage": "set"})
    return words.to_dict("records")  # pyright: ignore[reportReturnType]
