"""The sections of the page on learning rates of matrices."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from sims.analysis.pruning import OPEN, SAVES
from sims.analysis.rates import arms_of, is_control
from sims.pages.number import ABSENT, interval, number, significant
from sims.pages.page import Section
from sims.pages.table import Table
from sims.studies.claims import claim_table
from sims.studies.rates.answers import END, START, RatesAnswers
from sims.studies.rates.figures import delta_figure, multiplier_figure, rate_figure, spread_figure
from sims.studies.rates.measured import EXPONENTS
from sims.studies.rates.published import claims, signed
from sims.studies.rates.study import STUDY
from toymodel.rates import SHUFFLED


@STUDY.figure("claims", "What was published, and what these runs show", order=10)
def published(answers: RatesAnswers) -> Section:
    """Show every claim with its verdict."""
    return Section(
        text="A claim on the loss is shown if the arm saves, and not shown if it costs. It is the order of the "
        "exponents only if the same multipliers (up to one common factor), given to other matrices, are worse in each "
        "of ten shuffles. Published comparisons have neither shuffles, nor depth, nor the reversed order, and tune the "
        "range of multipliers for each network.",
        table=Table.of_frame(claim_table(list(claims(answers)))),
    )


@STUDY.figure("losses", "What do unequal learning rates save or cost?", order=20)
def losses(answers: RatesAnswers) -> Section:
    """Show the difference to one rate of every arm, each at its own best base rate."""
    return Section(
        text="Validation loss at the end, less that of one rate for all matrices; each arm at the base rate of its "
        "lowest mean loss, paired over seeds. Initial weights, batches and the mean multiplier are equal. Negative "
        "differences save.",
        figure=delta_figure(answers.summary, answers.draws) if len(answers.summary) else None,
        caption="The interval is Student’s over seeds. Shuffles are dots: the mean over seeds of each.",
        table=summary_table(answers),
        tables={"arms": answers.summary, "runs": answers.data.losses, "shuffle-draws": answers.draws},
    )


@STUDY.figure("base-rates", "Which base rate is best for each?", order=30)
def base_rates(answers: RatesAnswers) -> Section:
    """Show the loss over the base rate."""
    table = answers.data.losses
    means = table.groupby(["cell", "arm", "draw", "lr"], sort=False)["loss"].mean().reset_index()
    means = means.assign(shuffle=means["arm"].str.startswith(SHUFFLED)).sort_values("lr", kind="stable")
    edges = answers.summary[(answers.summary["edge"] != "") | (answers.summary["base_edge"] != "")]
    told = (
        " Where the best rate is the lowest, the highest or the only one that was tried, a better one may lie beyond; "
        "the table of arms says where."
        if len(edges)
        else ""
    )
    return Section(
        text=f"Mean over seeds.{told}",
        figure=rate_figure(means),
        caption="A line an arm; runs that diverged are not drawn.",
        tables={"base-rates": means},
    )


@STUDY.figure(
    "shuffles",
    "Is a score better than its own multipliers in another order?",
    order=40,
    applies=lambda answers: len(answers.shuffles) > 0,
)
def shuffles(answers: RatesAnswers) -> Section:
    """Show scores beside their shuffles and their other controls."""
    rows = tuple(
        (
            r["cell"],
            r["arm"],
            number(r["loss"], 4),
            number(r["shuffled"], 4),
            f"{r['as_good']} of {r['draws']}" if r["p"] > 0 else ABSENT,
            f"{r['rates']} of {r['grid']}",
            number(r["p"]),
        )
        for r in answers.shuffles.to_dict("records")
    )
    fewer = answers.shuffles["rates"] < answers.shuffles["grid"]
    told = (
        " Shuffles with fewer base rates than the score have less to choose from: that favours the score, so that such "
        "shuffles can only refute it."
        if fewer.any()
        else ""
    )
    columns = ("runs", "by", "loss", "mean loss of shuffles", "as good", "rates of shuffles", "p")
    return Section(
        text="The multipliers of a score, up to one common factor, given to other matrices in an order that stays over "
        "training. Score and shuffles count by their mean loss over seeds, each at its own best base rate: the score "
        "of all that were tried, shuffles of those that all of them have. p is the share of shuffles, and the score "
        f"itself, that are at least as good: with 10 shuffles it is 1/11 at the best.{told}",
        table=Table(columns, rows, text=(0, 1)),
        tables={"shuffles": answers.shuffles, "controls": answers.controls},
    )


@STUDY.figure(
    "multipliers", "Which matrices get a higher rate?", order=50, applies=lambda a: len(a.multipliers) > 0
)
def multipliers(answers: RatesAnswers) -> Section:
    """Show the multipliers over training."""
    table = answers.multipliers
    shown = [
        (c, arm) for c in answers.data.cells for arm in arms_of(answers.data.of(c)) if not is_control(arm)
    ]
    shown = [(c, arm) for c, arm in shown if ((table["cell"] == c) & (table["arm"] == arm)).any()]
    return Section(
        text="What the rule gives for the stored weights, mean over seeds, at the best base rate of uniform. A matrix "
        "of zeros has no exponent, and multiplier 1.",
        figure=multiplier_figure(table, shown) if shown else None,
        caption="A line a matrix, a colour a type.",
        tables={"multipliers": table, "matrices": answers.matrices},
    )


@STUDY.figure(
    "spread", "Are exponents more even after training?", order=60, applies=lambda a: len(a.spreads) > 0
)
def spread(answers: RatesAnswers) -> Section:
    """Show the spread of exponents over matrices, and how they go with depth."""
    table = answers.spreads
    cells = [cell for cell in answers.data.cells if (table["cell"] == cell).any()]
    levels = [(cell, quantity, *answers.noise(cell, quantity)) for cell in cells for quantity in EXPONENTS]
    noise = pd.DataFrame(levels, columns=["cell", "quantity", "mean", "low", "high"])
    ends, order = table[table["when"] == END], arms_of(answers.data.losses)
    return Section(
        text="Standard deviation of the exponent over all matrices of the blocks, at the best base rate of uniform for "
        "every arm. Grey: the same of independent Gaussian matrices of these shapes, 95 % of which lie there. "
        "There is nothing to make even within it but errors of the estimator. ρ is the rank correlation of the "
        "exponent with the number of the block.",
        figure=spread_figure(
            ends.sort_values("arm", key=lambda arm: arm.map(order.index), kind="stable"), noise
        ),
        caption="At the last checkpoint.",
        table=spread_table(answers, noise),
        tables={"spreads": table, "spread-changes": answers.changes, "spread-noise": noise},
    )


@STUDY.figure("missing", "Which runs are missing?", order=70, applies=lambda a: len(a.missing) > 0)
def missing(answers: RatesAnswers) -> Section:
    """Show the commands that train what the rules lack."""
    rows = tuple(
        (r["cell"], r["arms"], str(r["runs"]), r["command"]) for r in answers.missing.to_dict("records")
    )
    return Section(
        text="The rules ask for every arm at every base rate of its cell, five seeds at least, and ten shuffles of "
        "each score at the same rates and seeds.",
        table=Table(("runs", "arms", "number", "command"), rows, text=(0, 1, 3)),
    )


def summary_table(answers: RatesAnswers, notes: bool = True) -> Table:
    """Write the summary: one row a cell and arm; with a last column of reasons, or without."""
    columns = (
        "runs",
        "by",
        "seeds",
        "base rate",
        "loss (nats)",
        "Δ to one rate [95 %]",
        "p (Holm)",
        "verdict",
        "note",
    )
    rows = tuple(
        (
            r["cell"],
            r["arm"],
            str(r["seeds"]),
            _rate(r["lr"], r["edge"]),
            number(r["loss"], 4),
            interval(r["delta"], r["low"], r["high"], write=signed),
            number(r["p_holm"]),
            r["verdict"],
            _note(answers, r),
        )
        for r in answers.summary.to_dict("records")
    )
    if not notes:
        return Table(columns[:-1], tuple(row[:-1] for row in rows), text=(0, 1, 7))
    return Table(columns, rows, text=(0, 1, 7, 8))


def _rate(lr: float, edge: str) -> str:
    return f"{significant(lr)}{f' ({edge} tried)' if edge else ''}"


def _note(answers: RatesAnswers, row: Mapping[Any, Any]) -> str:
    if row["verdict"] == OPEN:
        return str(row["reason"])
    credited = row["verdict"] == SAVES and not is_control(row["arm"])
    return answers.credit(row["cell"], row["arm"]) if credited else ""


def spread_table(answers: RatesAnswers, noise: pd.DataFrame) -> Table:
    """Write the spread of exponents of every arm at the start and at the end."""
    rows = []
    table, changes = answers.spreads, answers.changes
    levels = {(r["cell"], r["quantity"]): r for r in noise.to_dict("records")}
    for (cell, quantity), own in table.groupby(["cell", "quantity"], sort=False):
        for arm in arms_of(answers.data.of(str(cell))):
            at = own[own["arm"] == arm]
            sd = {when: number(at.loc[at["when"] == when, "sd"].mean()) for when in (START, END)}
            rho = number(at.loc[at["when"] == END, "rho"].mean(), 2)
            change = changes[
                (changes["cell"] == cell) & (changes["quantity"] == quantity) & (changes["arm"] == arm)
            ]
            told = [
                interval(r["mean"], r["low"], r["high"])
                for r in change.to_dict("records")
                if r["when"] == END
            ]
            level = levels[str(cell), str(quantity)]
            band = f"{level['mean']:.3f} [{level['low']:.3f}, {level['high']:.3f}]"
            rows.append((str(cell), str(quantity), arm, sd[START], sd[END], *(told or ["–"]), band, rho))
    columns = (
        "runs",
        "exponent",
        "by",
        "sd at the start",
        "at the end",
        "Δ to uniform [95 %]",
        "Gaussian",
        "ρ",
    )
    return Table(columns, tuple(rows), text=(0, 1, 2))
