"""The sections of the page."""

from __future__ import annotations

import pandas as pd

from sims.pages.number import number
from sims.pages.page import Section
from sims.pages.table import Table
from sims.studies.claims import claim_table
from sims.studies.post_train.answers import PLAIN, PostAnswers
from sims.studies.post_train.figures import change_figure, glance_figure, pass_figure
from sims.studies.post_train.measured import BEFORE, KS
from sims.studies.post_train.published import claims, told_change
from sims.studies.post_train.signals import told_signals
from sims.studies.post_train.study import STUDY

NAMES = {BEFORE: "before", PLAIN: "plain", "sft": "SFT", "dpo": "DPO", "rlvr": "RLVR"}
AFTER = {arm: name for arm, name in NAMES.items() if arm != BEFORE}


def since_before(answers: PostAnswers, cell: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the changes since before of one set of runs: their means, and those of every seed."""
    chosen = [
        t[(t["cell"] == cell) & (t["against"] == BEFORE)] for t in (answers.changes, answers.differences)
    ]
    return chosen[0], chosen[1]


def glance(answers: PostAnswers) -> Section:
    """Return the picture of the first screen, of the first set of runs."""
    cell = answers.data.cells[0]
    changes, seeds = since_before(answers, cell)
    passes = answers.passes
    return Section(
        name="at-a-glance",
        title="At a glance",
        figure=glance_figure(
            changes, seeds, passes[passes["cell"] == cell], NAMES, list(answers.data.words.losses.items())[-1]
        ),
        caption="Left and right: change since before post-training; circles are seeds, squares their mean with its "
        "95 % interval. Middle: chance that one of k continuations is right, mean over seeds and prompts.",
    )


@STUDY.figure("claims", "What was published, and what these runs show", order=10)
def published(answers: PostAnswers) -> Section:
    """Show every claim with its verdict."""
    table = claim_table(list(claims(answers)))
    return Section(
        text="Every kind goes on from the same weights with the same number of updates, the same learning rate and "
        "fresh moments of the optimiser. Its control is plain training on more of the same sequences. A claim is shown "
        "if the 95 % interval of the difference to the control, paired over seeds, lies on its side of 0, and a t-test "
        "with Holm's correction for all claims agrees. All runs have one sequence of batches, prompts and samples: the "
        "intervals are over the runs that go on, given these draws, and do not hold what other draws would change.",
        table=Table.of_frame(table),
    )


@STUDY.figure("geometry", "What happens to the geometry of the states?", order=20)
def states(answers: PostAnswers) -> Section:
    """Show RankMe with and without the first directions, and α-ReQ."""
    quantities = {
        "rankme": "ln RankMe",
        "rankme_without": "ln RankMe without the top 8",
        "alpha_req": "α-ReQ",
    }
    quantities = {q: title for q, title in quantities.items() if q in set(answers.data.table["quantity"])}
    changes, seeds = since_before(answers, answers.data.cells[0])
    return Section(
        text="States of the last position of validation sequences, as the head reads them. Panels show changes since "
        "before, the table also the differences to plain steps.",
        figure=change_figure(changes, seeds, quantities, AFTER),
        caption="Change since before; circles are seeds, squares their mean with its 95 % interval.",
        table=change_table(answers, list(quantities)),
        tables={"post-training": answers.data.table, "post-training-changes": answers.changes},
    )


@STUDY.figure("answers", "Are continuations right, and how many different ones are there?", order=30)
def right(answers: PostAnswers) -> Section:
    """Show pass@k and the number of distinct continuations."""
    own = answers.data
    return Section(
        text=f"{own.words.right} Of each of {own.plan.prompts} prompts {own.plan.samples} are drawn; pass@k is the "
        f"share of all sets of k of them that hold a right one. {told_signals(list(own.signals.values()))}".rstrip(),
        figure=pass_figure(answers.passes, answers.data.cells, NAMES),
        caption="Means over seeds and prompts.",
        table=level_table(answers, [*(f"pass@{k}" for k in KS), "distinct", "distinct_possible"]),
        tables={"pass-at-k": answers.passes},
    )


@STUDY.figure("losses", "What is forgotten?", order=40)
def forgotten(answers: PostAnswers) -> Section:
    """Show losses on validation sequences, on the narrow data and on others."""
    words = answers.data.words
    changes, seeds = since_before(answers, answers.data.cells[0])
    return Section(
        text=words.narrow,
        figure=change_figure(changes, seeds, words.losses, AFTER),
        caption="Change in nats since before; circles are seeds, squares their mean with its 95 % interval.",
        table=change_table(answers, list(words.losses)),
    )


def _with_directions(answers: PostAnswers) -> bool:
    return "accuracy" in set(answers.data.table["quantity"])


@STUDY.figure("directions", "Which directions do the predictions need?", order=50, applies=_with_directions)
def kept(answers: PostAnswers) -> Section:
    """Show the accuracy with the first principal directions kept or dropped."""
    quantities = [
        q for q in dict.fromkeys(answers.data.table["quantity"]) if q.startswith(("keep_", "drop_"))
    ]
    return Section(
        text="Share of next tokens that are the most probable ones, where only the first k principal directions of the "
        "final state are kept, or where they are dropped; the mean state stays.",
        table=level_table(answers, ["accuracy", *quantities]),
    )


def change_table(answers: PostAnswers, quantities: list[str]) -> Table:
    """Return the changes of some numbers, those of all kinds."""
    rows = [
        (cell, NAMES[arm], quantity, told(BEFORE), told(PLAIN) if arm != PLAIN else "–")
        for cell in answers.data.cells
        for arm in AFTER
        for quantity in quantities
        for told in [
            lambda against, cell=cell, arm=arm, quantity=quantity: told_change(
                answers.change(cell, arm, against, quantity), quantity
            )
        ]
    ]
    columns = ("runs", "kind", "number", "change since before [95 %]", "against plain steps [95 %]")
    return Table(columns, tuple(rows), text=(0, 1, 2, 3, 4))


def level_table(answers: PostAnswers, quantities: list[str]) -> Table:
    """Return the means of some numbers over seeds, a row a kind, with the difference to plain steps below."""
    rows = []
    for cell in answers.data.cells:
        for arm, name in NAMES.items():
            levels = (number(answers.level(cell, arm, q), 1 if "distinct" in q else 3) for q in quantities)
            rows.append((cell, name, *levels))
        for arm in AFTER:
            if arm != PLAIN:
                told = (told_change(answers.change(cell, arm, PLAIN, q), q) for q in quantities)
                rows.append((cell, f"{NAMES[arm]} − plain", *told))
    titles = tuple(q.replace("_", " ") for q in quantities)
    return Table(("runs", "kind", *titles), tuple(rows), text=(0, 1))
