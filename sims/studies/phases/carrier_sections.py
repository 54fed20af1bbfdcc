"""The sections of the page on what carries the phases: memorisation, and ranks of the spectrum."""

from __future__ import annotations

import pandas as pd

from sims.analysis.entropy_phases import phase_balance
from sims.analysis.geometry import FLAT
from sims.analysis.memorisation_runs import CORRELATION, ngram_curves
from sims.measure.geometry import ACTIVATION
from sims.pages.number import ABSENT, cell, interval, missing
from sims.pages.page import Cells, Section
from sims.pages.table import Table
from sims.studies.phases.answers import PhaseAnswers
from sims.studies.phases.figures import parts_figure
from sims.studies.phases.sections import MOST_PANELS, amount, phase_table
from sims.studies.phases.study import STUDY
from sims.system.errors import MeasureError
from sims.text.continuations import ORDERS
from toymodel.transformer import FINAL


def _memory(answers: PhaseAnswers) -> bool:
    return answers.memorised is not None


@STUDY.figure("memorisation", "When are n-grams of the text learned?", order=45, applies=_memory)
def memorisation(answers: PhaseAnswers) -> Section:
    """Show the agreement with n-grams beside the phases."""
    found = answers.memorised
    assert found is not None
    cells = [name for name in answers.data.cells if name in set(found.table["stage"])]
    parts = []
    for name in cells[:MOST_PANELS]:
        key = (name, answers.data.batch(name))
        for law in ORDERS.values():
            wide = ngram_curves(answers.data.runs, key, law, CORRELATION)
            seeds = answers.data.of(name).set_index("run_id")["seed"]
            for run in wide.columns:
                own = {"cell": name, "of": law, "seed": seeds[run], "tokens": wide.index, "value": wide[run]}
                parts.append(pd.DataFrame(own))
    rows = tuple(
        (
            str(r["stage"]),
            r["law"],
            amount(r["tokens"]),
            cell(r["value"]),
            cell(r["end"]),
            r["outcome"],
            r["reason"],
        )
        for r in found.table[found.table["quantity"] == CORRELATION].to_dict("records")
    )
    claims = found.claims[["stage", "claim", "outcome", "reason"]]
    return Section(
        text="ρ_n is the rank correlation of what the model gives the next token and what the n-gram counts of its "
        "training text give it, over held-out positions. ∞ is the longest context that occurs in the text.",
        figure=parts_figure(
            pd.concat(parts, ignore_index=True), phase_table(answers, cells[:MOST_PANELS]), "ρ_n"
        ),
        caption="Thick: mean over seeds; thin: seeds; colours of the background: phases of RankMe.",
        table=Table(
            ("runs", "law", "peak of ρ at tokens", "there", "at the end", "peaks before the end", "why"),
            rows,
            text=(0, 1, 5, 6),
        ),
        tables={
            "memorisation": found.table,
            "memorisation-seeds": found.seeds,
            "memorisation-claims": found.claims,
        },
        blocks=(Cells(Table.of_frame(claims), "Order of the peaks, and what they coincide with"),),
    )


def _spectra(answers: PhaseAnswers) -> bool:
    spectra = answers.data.runs.spectra
    return len(spectra) > 0 and bool(((spectra["object"] == ACTIVATION) & (spectra["site"] == FINAL)).any())


def _rank_name(part: str) -> str:
    return f"rank {part}" if part.isdigit() else f"ranks {part}"


@STUDY.figure("ranks", "Which ranks carry each phase?", order=42, applies=_spectra)
def ranks(answers: PhaseAnswers) -> Section:
    """Show what each group of ranks adds to ln RankMe over training and in each phase."""
    tables, curves, rows, reasons = [], [], [], []
    for name in answers.data.cells:
        balance = answers.balance(name)
        if isinstance(balance, str):
            reasons.append(f"{name}: {balance}")
            continue
        own = phase_balance(balance, answers.words[name], answers.data.run_ids(name))
        if len(own):
            tables.append(own.assign(cell=name))
        rows += [
            (name, r["label"], f"{amount(r['tokens_from'])} to {amount(r['tokens_to'])}", r["part"],
             interval(r["mean"], r["low"], r["high"], 2), ABSENT if missing(r["share"]) else f"{r['share']:.0%}",
             r["reason"])
            for r in own.to_dict("records")
            if r["label"] != FLAT
        ]  # fmt: skip
        steps = balance.steps[balance.steps["tokens_from"] > 0]
        totals = steps.sort_values("tokens_to").groupby(["seed", "part"], sort=False)["contribution"].cumsum()
        curves.append(
            pd.DataFrame(
                {"cell": name, "of": steps["part"].map(_rank_name), "seed": steps["seed"], "tokens": steps["tokens_to"],
                 "value": totals}
            )
        )  # fmt: skip
    if not any(map(len, curves)):
        # A balance of two looks has no step after the first.
        raise MeasureError("; ".join(reasons) or "there is one look after the start")
    shown = list(dict.fromkeys(name for own in curves for name in own["cell"]))[:MOST_PANELS]
    table = pd.concat(curves, ignore_index=True)
    return Section(
        text="ln RankMe is the entropy of the shares of the directions, and each rank adds a term to its change: the "
        "sum of all is the change exactly. Ranks are those of each look: a direction that overtakes another takes its "
        "rank.",
        figure=parts_figure(
            table[table["cell"].isin(shown)], phase_table(answers, shown), "added to ln RankMe"
        ),
        caption="What groups of ranks have added to ln RankMe since the first look after the start. Thick: mean over "
        "seeds; thin: seeds; colours of the background: phases of RankMe.",
        table=Table(
            (
                "runs",
                "phase",
                "tokens",
                "ranks",
                "added to ln RankMe [95 %]",
                "share of the change",
                "why not",
            ),
            tuple(rows),
            text=(0, 1, 2, 3, 6),
        ),
        tables={
            "ranks": pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(),
            "ranks-steps": table,
        },
    )
