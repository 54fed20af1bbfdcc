"""The sections of the page on pruning."""

from __future__ import annotations

import pandas as pd

from sims.analysis.pruning import UNIFORM
from sims.pages.number import cell, interval, number
from sims.pages.page import Section
from sims.pages.table import Table
from sims.prune.score_names import SHUFFLED
from sims.studies.pruning.answers import PruneAnswers, note_of_models, summary_table
from sims.studies.pruning.figures import cost_figure, ratio_figure
from sims.studies.pruning.study import STUDY


@STUDY.figure("costs", "What do unequal ratios save or cost?", order=10)
def costs(answers: PruneAnswers) -> Section:
    """Show the difference to uniform ratios of every allocation."""
    table = answers.summary[answers.summary["by"] != UNIFORM]
    text = (
        "Every allocation sets equally many weights to zero. The spread ε of its ratios was chosen on the selection "
        "text, the loss is that of the test text; calibration, selection and test are disjoint. Negative differences "
        "save. "
    )
    return Section(
        text=text + note_of_models(answers),
        figure=cost_figure(table, answers.models) if len(table) else None,
        caption="A grey point a model. The interval is Student’s over models, or over the sequences of a single model.",
        table=summary_table(answers),
        tables={"costs": answers.summary, "models": answers.models},
    )


@STUDY.figure("ratios", "Where are the zeros?", order=20)
def ratios(answers: PruneAnswers) -> Section:
    """Show the share of zeros of every block."""
    own = ratio_table(answers.data.tables["matrices"])
    return Section(
        text="Share of zeros of all pruned matrices of a block, at the chosen ε; mean over models. Shuffles "
        "are not drawn.",
        figure=ratio_figure(own),
        caption="Uniform ratios are the horizontal line.",
        tables={"ratios": own, "matrices": answers.data.tables["matrices"]},
    )


@STUDY.figure(
    "shuffles",
    "Is a score better than its own numbers in another order?",
    order=30,
    applies=lambda answers: len(answers.shuffles) > 0,
)
def shuffles(answers: PruneAnswers) -> Section:
    """Show scores beside their shuffles."""
    rows = tuple(
        (
            r["method"],
            f"{r['sparsity']:g}",
            r["by"],
            number(r["loss"]),
            number(r["shuffled"]),
            str(r["shuffles"]),
            number(r["p"]),
        )
        for r in answers.shuffles.to_dict("records")
    )
    columns = ("method", "sparsity", "by", "loss", "mean loss of shuffles", "shuffles", "p")
    return Section(
        text="The same scores given to other blocks (or matrices), with ε chosen for each shuffle anew. p is the share "
        "of shuffles, and the score itself, that are at least as good: with 10 shuffles it is 1/11 at the best.",
        table=Table(columns, rows, text=(0, 2)),
        tables={"shuffles": answers.shuffles},
    )


@STUDY.figure(
    "sensitivity",
    "Do scores say what can be pruned?",
    order=40,
    applies=lambda answers: len(answers.correlations) > 0,
)
def sensitivity(answers: PruneAnswers) -> Section:
    """Show rank correlations of scores with the measured costs."""
    rows = tuple(
        (
            r["method"],
            f"{r['sparsity']:g}",
            r["by"],
            str(r["models"]),
            interval(r["rho"], r["low"], r["high"], write=cell),
        )
        for r in answers.correlations.to_dict("records")
    )
    return Section(
        text="Each block (or matrix) was pruned alone, and the loss measured on the selection text. ρ is the rank "
        "correlation of a score with how cheap that is: +1 where the score has the right order.",
        table=Table(("method", "sparsity", "by", "models", "ρ [95 % over models]"), rows, text=(0, 2)),
        tables={"sensitivity": answers.correlations, "scores": answers.data.tables["scores"]},
    )


def ratio_table(matrices: pd.DataFrame) -> pd.DataFrame:
    """Return the share of zeros of every block, mean over models: method, sparsity, by, block, ratio."""
    own = matrices[~matrices["by"].str.startswith(SHUFFLED)]
    own = own.assign(
        block=own["block"].str.removeprefix("blocks.").astype(int), size=own["rows"] * own["columns"]
    )
    keys = ["method", "sparsity", "by", "block"]
    totals = own.groupby(["model", *keys], sort=False)[["zeros", "size"]].sum()
    ratio = (totals["zeros"] / totals["size"]).rename("ratio").reset_index()
    return ratio.groupby(keys, sort=False)["ratio"].mean().reset_index()
