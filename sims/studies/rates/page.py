"""The page of `speclens rates`: what unequal learning rates save or cost, and what is credited with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from sims.analysis.pruning import COSTS, OPEN, SAVES
from sims.analysis.rates import is_control
from sims.pages.number import counted, verb
from sims.pages.page import Page, Section, Tone
from sims.pages.write import beside, made_here, write_folder
from sims.studies import claims as words
from sims.studies.claims import statements
from sims.studies.rates.answers import RatesAnswers
from sims.studies.rates.figures import delta_figure
from sims.studies.rates.published import claims, delta
from sims.studies.rates.study import PAGE
from sims.studies.study import sections

TITLE = "Do learning rates by spectra help?"
TONES: Mapping[str, Tone] = {SAVES: "good", COSTS: "bad", OPEN: "open", **words.TONES}
RULE = (
    "An arm saves if the whole 95 % interval of its difference to one rate lies below 0, paired over five seeds or "
    "more, and Holm’s p over all arms is at most 0.05; it costs if it lies above; otherwise it cannot be told. A score "
    "is credited only where it also beats all ten of its own shuffles. Depth and reversed scores are controls. The "
    "rules do not depend on the runs."
)


def write_rates(answers: RatesAnswers, paths: Sequence[Path], folder: Path, notes: Sequence[str]) -> Path:
    """Write `folder`/index.html and tables.md, figures (SVG, PNG) and tables (CSV); return the page.

    Args:
        answers: comparisons of all arms.
        paths: folders of the runs.
        folder: made if it does not exist.
        notes: what a reader must know before believing the numbers.

    Raises:
        StoreError: something cannot be written.
    """
    data = answers.data
    glance = Section(
        name="at-a-glance",
        title="At a glance",
        figure=delta_figure(answers.summary, answers.draws) if len(answers.summary) else None,
        caption="Difference of the validation loss to that of one rate for all matrices, each arm at its own best base "
        "rate. The interval is Student’s over seeds; shuffles are means over seeds.",
    )
    page = Page(
        title=TITLE,
        subtitle=f"{counted(len(data.losses), 'run')} of {', '.join(data.cells)}; "
        f"{counted(data.losses['seed'].nunique(), 'seed')}. A multiplier of the learning rate for each matrix of the "
        "blocks, by its exponent, its depth, or at random (arXiv 2312.00359, 2506.06280).",
        lead=lead(answers),
        glance=glance if len(answers.summary) else None,
        links=[beside(f"Source runs {path.name}", path, folder) for path in paths],
        warnings=notes,
        paper="2506.06280",
        rule=RULE,
        findings=list(statements(list(claims(answers)))),
        sections=sections(PAGE, answers),
        provenance=made_here(),
        tones=TONES,
    )
    return write_folder(page, folder)


def lead(answers: RatesAnswers) -> str:
    """Return the verdict in one or two sentences; controls are told apart."""
    table = answers.summary
    if table.empty:
        return "Only runs of one rate were found; train others to compare with them."
    control = table["arm"].map(is_control).astype(bool)
    scores = table[~control]
    cells = counted(len(scores), "comparison")
    saving = scores[scores["verdict"] == SAVES]
    parts = [
        f"{row['arm']} on {row['cell']} ({delta(row)}, {answers.credit(row['cell'], row['arm'])})"
        for row in saving.to_dict("records")
    ]
    first = (
        f"Learning rates by spectra lower the loss in {len(saving)} of {cells}: {'; '.join(parts)}."
        if parts
        else f"In none of {cells} is it shown that learning rates by spectra lower the loss."
    )
    costing, unsure = (int((scores["verdict"] == verdict).sum()) for verdict in (COSTS, OPEN))
    told = [f"{costing} {verb(costing, 'costs', 'cost')}"] if costing else []
    told += [f"{unsure} cannot be told"] if unsure else []
    rest = f" {', '.join(told)}." if told else ""
    aside = [
        f"{r['arm']} on {r['cell']}" for r in table[control & (table["verdict"] == SAVES)].to_dict("records")
    ]
    return first + rest + (f" Of the controls save: {', '.join(aside)}." if aside else "")
