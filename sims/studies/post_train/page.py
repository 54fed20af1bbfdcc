"""The page of `speclens post-train`: what post-training changes in states and answers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sims.pages.number import counted, verb
from sims.pages.page import Page
from sims.pages.write import beside, made_here, write_folder
from sims.studies.claims import NOT_SHOWN, OPEN, SHOWN, TONES, statements
from sims.studies.post_train.answers import PostAnswers
from sims.studies.post_train.published import claims
from sims.studies.post_train.sections import glance
from sims.studies.post_train.study import PAGE
from sims.studies.study import sections

TITLE = "What does post-training do to the states and to the answers?"
RULE = (
    "The rule does not depend on the runs: the difference to the same number of plain steps from the same weights, "
    "paired over seeds, with its 95 % interval and a test corrected for the number of claims; four seeds at least."
)


def write_post_train(answers: PostAnswers, runs: Path, folder: Path, notes: Sequence[str]) -> Path:
    """Write `folder`/index.html and tables.md, figures (SVG, PNG) and tables (CSV); return the page.

    Args:
        answers: of all models.
        runs: folder of the runs.
        folder: made if it does not exist.
        notes: what a reader must know before believing the numbers.

    Raises:
        StoreError: something cannot be written.
    """
    own, seeds = answers.data.settings[0], answers.data.table["seed"].nunique()
    rlvr = answers.data.of("rlvr")
    page = Page(
        title=TITLE,
        subtitle=f"Stage {' and '.join(answers.data.cells)}, {counted(seeds, 'seed')}; {own.steps} updates of "
        f"{own.batch_size} sequences at learning rate {own.lr:g}: plain steps, narrow data (SFT), preferences (DPO, "
        f"β = {own.beta:g}), rewards (RLVR, REINFORCE with {rlvr.batch_size} samples an update, {rlvr.samples} of a "
        "prompt) (arXiv 2509.23024).",
        lead=lead(answers),
        glance=glance(answers),
        links=[beside("Source runs", runs, folder)],
        warnings=list(notes),
        rule=RULE,
        findings=list(statements(list(claims(answers)))),
        sections=sections(PAGE, answers),
        provenance=made_here(),
        tones=TONES,
        paper="2509.23024",
    )
    return write_folder(page, folder)


def lead(answers: PostAnswers) -> str:
    """Return how many claims are shown, in one sentence."""
    outcomes = [claim.outcome for claim in claims(answers)]
    shown, against, unsure = (outcomes.count(name) for name in (SHOWN, NOT_SHOWN, OPEN))
    return (
        f"Of {counted(len(outcomes), 'published claim')} set against plain steps, {shown} {verb(shown)} shown, for "
        f"{against} these runs show the opposite, and {unsure} {verb(unsure)} not resolved."
    )
