"""The sections of the page on pruning."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd

from sims.analysis.pruning import UNIFORM
from sims.analysis.slots import PARTS
from sims.pages.number import cell, interval, number
from sims.pages.page import Block, Cells, Section
from sims.pages.table import Table
from sims.prune.score_names import SHUFFLED, is_drawn
from sims.studies.pruning.answers import PruneAnswers, note_of_models, summary_table
from sims.studies.pruning.figures import cost_figure, ratio_figure
from sims.studies.pruning.study import STUDY

LEVEL = ("noise", "noise_low", "noise_high")


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
    table = _compared(
        answers.shuffles,
        {
            "kept": lambda r: "" if r["control"] == SHUFFLED else "depth",
            "loss": lambda r: number(r["loss"]),
            "mean loss of shuffles": lambda r: number(r["shuffled"]),
            "shuffles": lambda r: str(r["shuffles"]),
            "distinct": lambda r: str(r["distinct"]) if r["distinct"] else "0: one order only, no control",
            "p": lambda r: number(r["p"]),
        },
    )
    return Section(
        text="The same scores given to other blocks (or matrices), with ε chosen for each anew. Where depth is kept, "
        "matrices change places within their block, and blocks such that the rank correlation of their scores with "
        "depth stays exactly. p is the share of shuffles, and the score itself, that are at least as good: with 10 it "
        "is 1/11 at the best. What beats the first kind alone may owe it to depth.",
        table=table,
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
    table = _compared(
        answers.correlations,
        {
            "models": lambda r: str(r["models"]),
            "ρ [95 % over models]": lambda r: interval(r["rho"], r["low"], r["high"], write=cell),
        },
    )
    return Section(
        text="Each block (or matrix) was pruned alone, and the loss measured on the selection text. ρ is the rank "
        "correlation of a score with how cheap that is: +1 where the score has the right order.",
        table=table,
        tables={"sensitivity": answers.correlations, "scores": answers.data.tables["scores"]},
    )


@STUDY.figure(
    "slots",
    "Do exponents differ between kinds of matrices, and does FARMS change that?",
    order=50,
    applies=lambda answers: len(answers.slots) > 0,
)
def slots(answers: PruneAnswers) -> Section:
    """Show how much of the variance of exponents lies between slots, and what FARMS costs beside plain exponents."""
    parts = [answers.slots[answers.slots["part"] == part].to_dict("records") for part in PARTS]
    rows = tuple(
        (
            slot["by"],
            str(slot["models"]),
            *(word for r in (slot, block) for word in (_range(r, "share", "low", "high"), _range(r, *LEVEL))),
        )
        for slot, block in zip(*parts, strict=True)
    )
    columns = ("score", "models", "between slots", "of noise", "between blocks", "of noise")
    plain = answers.against_plain
    tables = {"slots": answers.slots, "noise": answers.data.tables["noise"]}
    blocks: tuple[Block, ...] = ()
    if len(plain):
        against = _compared(
            plain,
            {
                "beside": lambda r: r["against"],
                "Δ (nats) [95 %]": lambda r: interval(r["delta"], r["low"], r["high"]),
                "verdict": lambda r: r["verdict"],
            },
            text=(3, 5),
        )
        blocks, tables = (Cells(against),), {**tables, "against_plain": plain}
    return Section(
        text="Share of the variance of exponents over matrices that lies between the means of slots (q, k, v, o, up, "
        "down), and between those of blocks; mean and 95 % interval over models. Noise: models of Gaussian matrices of "
        "the same shapes, mean and range of the draws. Published for slots of LLaMA: plain 0.45 and FARMS 0.50 (7B), "
        "0.51 and 0.60 (13B). Below: test loss by FARMS less that by plain exponents, paired over models.",
        table=Table(columns, rows, text=(0,)),
        blocks=blocks,
        tables=tables,
    )


def _range(row: Mapping[Any, Any], value: str, low: str, high: str) -> str:
    return interval(row[value], row[low], row[high], write=cell)


def _compared(
    table: pd.DataFrame, columns: Mapping[str, Callable[[Mapping[Any, Any]], str]], text: tuple[int, ...] = ()
) -> Table:
    """Write a table of allocations: method, sparsity and score, and further columns."""
    every = {
        "method": lambda r: r["method"],
        "sparsity": lambda r: f"{r['sparsity']:g}",
        "by": lambda r: r["by"],
        **columns,
    }
    rows = tuple(tuple(write(r) for write in every.values()) for r in table.to_dict("records"))
    return Table(tuple(every), rows, text=(0, 2, *text))


def ratio_table(matrices: pd.DataFrame) -> pd.DataFrame:
    """Return the share of zeros of every block, mean over models: method, sparsity, by, block, ratio."""
    own = matrices[~matrices["by"].map(is_drawn).astype(bool)]
    own = own.assign(
        block=own["block"].str.removeprefix("blocks.").astype(int), size=own["rows"] * own["columns"]
    )
    keys = ["method", "sparsity", "by", "block"]
    totals = own.groupby(["model", *keys], sort=False)[["zeros", "size"]].sum()
    ratio = (totals["zeros"] / totals["size"]).rename("ratio").reset_index()
    return ratio.groupby(keys, sort=False)["ratio"].mean().reset_index()
