"""The page of `speclens prune`: what unequal ratios of pruning save or cost at equal zeros."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from sims.analysis.pruning import COSTS, OPEN, SAVES, UNIFORM
from sims.pages.number import counted, headed
from sims.pages.page import Page, Section, Tone
from sims.pages.write import beside, made_here, write_folder
from sims.studies.pruning.answers import PruneAnswers, lead, note_of_models, statements
from sims.studies.pruning.figures import cost_figure
from sims.studies.pruning.study import PAGE
from sims.studies.study import sections

TITLE = "How much of each layer can be pruned?"
TONES: Mapping[str, Tone] = {SAVES: "good", COSTS: "bad", OPEN: "open"}
RULE = (
    "An allocation saves if the whole 95 % interval of its difference to uniform ratios lies below 0, and costs if it "
    "lies above; otherwise it cannot be told. Comparisons are not corrected for their number. A score is credited only "
    "where it also beats all of its own shuffles, and with more than depth where it beats those at equal depth: what "
    "saves is told with that. Reversed and shuffled scores are controls, and not counted among what saves."
)


def write_pruning(
    answers: PruneAnswers, paths: Sequence[Path], folder: Path, notes: Sequence[str], device: str
) -> Path:
    """Write `folder`/index.html and tables.md, figures (SVG, PNG) and tables (CSV); return the page.

    Args:
        answers: comparisons of all models.
        paths: of the models.
        folder: made if it does not exist.
        notes: what a reader must know before believing the numbers.
        device: where models were pruned.

    Raises:
        StoreError: something cannot be written.
    """
    setting = answers.data.setting
    compared = answers.summary[answers.summary["by"] != UNIFORM]
    glance = Section(
        name="at-a-glance",
        title="At a glance",
        figure=cost_figure(compared, answers.models),
        caption="Difference of the test loss to that of uniform ratios with as many zeros. "
        + note_of_models(answers),
    )
    page = Page(
        title=TITLE,
        subtitle=f"{counted(len(answers.data.base), 'model')} pruned by {headed('method', setting.methods)}, one ratio "
        f"a {setting.unit} (arXiv 2506.06280, 2410.10912).",
        lead=lead(answers),
        glance=glance if len(compared) else None,
        links=[beside(f"Models {path.name}", path, folder) for path in paths],
        warnings=notes,
        paper="2506.06280",
        rule=RULE,
        findings=statements(answers),
        sections=sections(PAGE, answers),
        provenance=made_here(device),
        tones=TONES,
    )
    return write_folder(page, folder)
