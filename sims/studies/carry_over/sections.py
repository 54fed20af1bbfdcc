"""The sections of the page that compares the toy with language models."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from sims.analysis.layers import early_by_layer, exponents_by_layer
from sims.analysis.runs import Runs
from sims.analysis.spectra import last_spectra
from sims.pages.figures.layers import early_figure, layers_figure
from sims.pages.number import ABSENT, interval, number
from sims.pages.page import Section
from sims.pages.table import Table
from sims.runs.rank_windows import PUBLISHED_RANKS, PUBLISHED_RANKS_TEXT
from sims.studies.carry_over import figures
from sims.studies.carry_over.carry_over import (
    AGREES,
    CANNOT_TELL,
    DISAGREES,
    carry_over,
    labels,
    seed_stability,
)
from sims.studies.carry_over.questions import family_concentration
from sims.studies.carry_over.study import STUDY

RULES = (
    "The same questions are put to both sides by the same functions. An answer needs a 95 % interval over seeds on one "
    "side of 0 (filled marks); two answers agree or disagree, and everything else cannot be told. The answers are not "
    "corrected for their number."
)


@dataclass(frozen=True)
class Sides:
    """The runs that are compared.

    Args:
        toy, text: of the toy, and of language models.
        toy_folder, text_folder: where they lie.
    """

    toy: Runs
    text: Runs
    toy_folder: Path
    text_folder: Path

    @cached_property
    def answers(self) -> pd.DataFrame:
        """Return every question with the answers of both sides."""
        return carry_over(self.toy, self.text)

    @cached_property
    def layers(self) -> pd.DataFrame:
        """Return exponents of the language models' activations by depth."""
        return exponents_by_layer(self.text)

    def __iter__(self) -> Iterator[tuple[str, Runs]]:
        yield from (("toy", self.toy), ("text", self.text))


def reading(row: Mapping[Any, Any], side: str) -> str:
    """Write the value of one side with its interval."""
    return interval(*(row[f"{side}_{name}"] for name in ("value", "low", "high")))


@STUDY.figure("answers", "Which findings carry over", order=10)
def answers(sides: Sides) -> Section:
    """Show every question with the answers of both sides."""
    table = sides.answers
    known = table[["toy_value", "text_value"]].notna().to_numpy().any()
    return Section(
        text=RULES,
        figure=figures.answers_figure(table) if known else None,
        caption="Circles: toy; squares: language model; lines: 95 % intervals over seeds, or from the level of a null "
        "law on. Filled: answered. Right of 0 is “yes” to the statement of the table.",
        table=_answers(table),
        tables={"answers": table},
    )


@STUDY.figure("taxonomy", "Labels of transitions", order=20)
def taxonomy(sides: Sides) -> Section:
    """Compare the labels of transitions."""
    both = labels(sides.toy, sides.text)
    rows = tuple((r["transition"], _label(r, "toy"), _label(r, "text")) for r in both.to_dict("records"))
    return Section(
        text="Outcome / mechanism, from the same thresholds on both sides."
        if rows
        else "Neither side has two stages.",
        table=Table(("transition", "toy", "language model"), rows, text=(0, 1, 2)) if rows else None,
        tables={"taxonomy": both},
    )


@STUDY.figure("seed-stability", "Seed stability", order=30)
def stability(sides: Sides) -> Section:
    """Show how far two seeds of one cell differ."""
    parts = {"toy": seed_stability(sides.toy), "language model": seed_stability(sides.text)}
    table = pd.concat([t.assign(side=side) for side, t in parts.items()])
    rows = tuple(
        (
            *(r["side"], r["stage"], str(r["batch_size"]), str(r["seeds"]), number(r["loss"])),
            *(number(r["js"], 5), number(r["sampling_floor"], 5)),
        )
        for r in table.to_dict("records")
    )
    columns = (
        *("side", "stage", "B", "seeds", "at loss (nats)"),
        *("JS between seeds (nats)", "of sampling alone"),
    )
    return Section(
        text="How far two seeds of one cell are apart at equal loss, beside what two samples of the same activations "
        "would be. A dash: one seed has no distance to another.",
        table=Table(columns, rows, text=(0, 1)),
        tables={"seed-stability": table},
    )


@STUDY.figure("spectra", "Spectra and RankMe", order=40)
def spectra(sides: Sides) -> Section:
    """Show spectra and RankMe of the final activations on both sides."""
    last = [last_spectra(runs, "activation", "final").assign(side=side) for side, runs in sides]
    rankme = [
        runs.values("rankme", "activation", "final").sort_values("tokens").assign(side=side)
        for side, runs in sides
    ]
    trained = pd.concat(rankme)
    return Section(
        figure=figures.spectra_figure(pd.concat(last), trained[trained["step"] > 0]),
        caption="Eigenvalues of the centred covariance of what the head reads, scaled by the width so that models of "
        "different width lie over each other; one line a run.",
    )


def _layered(sides: Sides) -> bool:
    return not sides.layers.empty


@STUDY.figure("layers", "Layer by layer: exponents of the language model", order=50)
def layers(sides: Sides) -> Section:
    """Show exponents by depth."""
    if not _layered(sides):
        return Section(
            title="Layer by layer",
            text=f"No exponent of ranks {PUBLISHED_RANKS} was fitted in the language model’s activations.",
        )
    return Section(
        figure=layers_figure(sides.layers, PUBLISHED_RANKS),
        caption=f"Exponent of ranks {PUBLISHED_RANKS_TEXT} of the activations by depth, mean over batch sizes and "
        "seeds; the later the checkpoint, the darker its line. The toy is measured where the head reads, at depth 1.",
        tables={"layers": sides.layers},
    )


@STUDY.figure(
    "early-by-layer", "Layer by layer: early prediction of token efficiency", order=60, applies=_layered
)
def early(sides: Sides) -> Section:
    """Show how early each layer's exponent predicts token efficiency."""
    table = early_by_layer(sides.text)
    own = table[table["window"] == PUBLISHED_RANKS]
    return Section(
        figure=early_figure(own) if own["rho"].notna().any() else None,
        caption=f"Spearman correlation over batch sizes of token inefficiency with α({PUBLISHED_RANKS_TEXT}), by the "
        "layer and the share of training at which it is measured; a star where q ≤ 0.05 within a stage and layer. "
        "Layers of one model are not independent of each other.",
        tables={"early-by-layer": table},
    )


@STUDY.figure("families", "Token families", order=70)
def families(sides: Sides) -> Section:
    """Show the concentration of token families in the language models' tables."""
    rows = sides.text.values("h_peak", "table")
    table = pd.concat([family_concentration(runs).assign(side=side) for side, runs in sides])
    if rows.empty:
        text = "No family of tokens was probed in the language model."
        return Section(text=text, tables={"families": table})
    cells = tuple(
        (
            *(r["run_id"], r["site"], r["family"]),
            *(number(r["value"]), number(r["null"]), number(r["null_high"])),
            "beyond" if r["value"] > r["null_high"] else "within",
        )
        for r in table[table["side"] == "text"].to_dict("records")
    )
    columns = ("run", "table", "family", "H_peak at the end", "null, mean", "null, 97.5 %", "chance")
    return Section(
        text="Share of the energy of a family’s rows at the strongest frequency of their cycle (one side of the "
        "conjugate pair), as of the toy’s bands. The null is that of rows without structure in the effective dimension "
        "of the whole table; small families have a large one. One test in forty is beyond its level by chance.",
        figure=figures.families_figure(rows),
        caption="Over training; dotted: the null’s 97.5 % level.",
        table=Table(columns, cells, text=(0, 1, 2, 6)),
        tables={"families": table},
    )


def _answers(table: pd.DataFrame) -> Table:
    order = {DISAGREES: 0, AGREES: 1, CANNOT_TELL: 2}
    ranked = table.sort_values("verdict", key=lambda v: v.map(order), kind="stable")
    rows = tuple(
        (r["question"], r["statement"], reading(r, "toy"), reading(r, "text"), r["verdict"], r["reason"])
        for r in ranked.to_dict("records")
    )
    columns = ("question", "statement", "toy [95 %]", "language model [95 %]", "verdict", "why")
    return Table(columns, rows, text=(0, 1, 4, 5))


def _label(r: Mapping[Any, Any], side: str) -> str:
    parts = [r[f"{side}_outcome"], r[f"{side}_mechanism"]]
    return " / ".join(parts) if any(parts) else ABSENT
