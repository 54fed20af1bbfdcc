"""The page of `speclens lifecycle`: how spectra of weights develop, and what that says of the published claims."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sims.pages.number import counted, verb
from sims.pages.page import Page, Section
from sims.pages.write import beside, made_here, write_folder
from sims.studies.claims import OPEN, SHOWN, TONES, claim_table, statements
from sims.studies.lifecycle.answers import LifeAnswers
from sims.studies.lifecycle.figures import film_figure
from sims.studies.lifecycle.published import claims
from sims.studies.lifecycle.sections import deepest, film
from sims.studies.lifecycle.study import PAGE
from sims.studies.study import sections

TITLE = "How do the spectra of weights develop?"
RULE = (
    "Rules do not depend on the runs: three seeds, and a null for each claim in which it is false. Claims on profiles, "
    "spreads of types and importance are decided with and without the first and the last block, claims over time "
    "under two schedules of the learning rate (two warm-ups count as two). Waves are corrected by Holm over types of "
    "matrices, importance over exponents; verdicts are not corrected for the number of claims and sets."
)
# Runs of one outcome that a statement names.
NAMED = 2


def write_lifecycle(answers: LifeAnswers, runs: Sequence[Path], folder: Path, notes: Sequence[str]) -> Path:
    """Write `folder`/index.html and tables.md, figures (SVG, PNG) and tables (CSV); return the page.

    Args:
        answers: spectra of weights of all runs, and what the rules say of them.
        runs: folders of the runs.
        folder: made if it does not exist.
        notes: what a reader must know before believing the numbers.

    Raises:
        StoreError: something cannot be written.
    """
    data, of = answers.data, deepest(answers)
    page = Page(
        title=TITLE,
        subtitle=f"{counted(len(data.runs), 'run')} in {counted(len(data.cells), 'set')}: {_sets(answers)}. "
        "Singular values of every weight matrix during training (arXiv 2604.22778). L is the number of blocks.",
        lead=lead(answers),
        glance=Section(
            name="at-a-glance",
            title="At a glance",
            figure=film_figure(film(answers, of)),
            caption=f"Stable rank of every matrix over training and depth; {of}, mean over "
            f"{counted(answers.seeds(of), 'seed')}.",
        ),
        links=[beside(f"Source runs {path.name}", path, folder) for path in runs],
        warnings=notes,
        paper="2604.22778",
        rule=RULE,
        findings=list(statements(claims(answers), NAMED)),
        sections=sections(PAGE, answers),
        provenance=made_here(),
        tones=TONES,
    )
    return write_folder(page, folder)


def lead(answers: LifeAnswers) -> str:
    """Return in one sentence which claims are shown in some of the runs."""
    table = claim_table(claims(answers))
    names = list(dict.fromkeys(table["claim"]))
    told = []
    for name in names:
        own = table.loc[table["claim"] == name, "outcome"]
        if shown := int((own == SHOWN).sum()):
            told.append(f"{name[0].lower()}{name[1:]} ({shown} of {len(own)})")
    unsure = [name for name in names if (table.loc[table["claim"] == name, "outcome"] == OPEN).all()]
    rest = f"; {len(unsure)} {verb(len(unsure))} open in all" if unsure else ""
    if not told:
        return f"None of {counted(len(names), 'statement')} is shown in any set of these runs{rest}."
    of = f"{len(told)} of {counted(len(names), 'statement')} {verb(len(told))} shown in some sets of runs"
    return f"{of}: {'; '.join(told)}{rest}."


def _sets(answers: LifeAnswers) -> str:
    """Return the sets of runs by their schedule, with the numbers of blocks."""
    return "; ".join(f"{line} ({', '.join(map(str, cells))} blocks)" for line, cells in answers.lines.items())
