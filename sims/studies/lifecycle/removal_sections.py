"""The sections of the page on what models lose without their blocks."""

from __future__ import annotations

import numpy as np
import pandas as pd

from sims.pages.number import cell
from sims.pages.page import Section, Text
from sims.pages.table import Table
from sims.studies.lifecycle.answers import LifeAnswers
from sims.studies.lifecycle.figures import importance_figure, removal_figure
from sims.studies.lifecycle.measured import EXPONENTS
from sims.studies.lifecycle.sections import MOST_PANELS, TITLES, correlation
from sims.studies.lifecycle.study import STUDY

RULES = ("last N", "last N interior", "spectral low", "spectral high", "block influence", "weight norm", "depth rule",
         "one at a time")  # fmt: skip


def removed_cells(answers: LifeAnswers) -> list[str]:
    """Return the cells of pictures of the removal of blocks."""
    assert answers.removals is not None
    own = set(answers.removals.cells.values())
    return [c for cells in answers.lines.values() for c in cells.values() if c in own][:MOST_PANELS]


@STUDY.figure(
    "importance",
    "Does the exponent of a block say how important it is?",
    order=80,
    applies=lambda answers: answers.removals is not None,
)
def importance(answers: LifeAnswers) -> Section:
    """Show what the loss rises by without each block against its exponent."""
    table = answers.importances
    rows = tuple(
        (
            r["cell"],
            TITLES[r["name"]],
            r["part"],
            correlation(r),
            cell(r["p"]),
            cell(r["p_holm"]),
            r["reason"],
        )
        for r in table.to_dict("records")
    )
    chosen = removed_cells(answers)
    points = pd.concat([_points(answers, c) for c in chosen], ignore_index=True)
    return Section(
        text="A block is removed by passing its input on. The first block is worth many times any other, and with few "
        "blocks the two ends alone make a rank correlation: claims are decided on the blocks between them.",
        figure=importance_figure(points),
        caption="A point a block and seed. Blocks whose removal lowers the loss are not drawn.",
        table=Table(("runs", "exponent", "blocks", "ρ", "p", "p (Holm)", "why not"), rows, text=(0, 1, 2, 6)),
        tables={"importance": points},
    )


def _points(answers: LifeAnswers, name: str) -> pd.DataFrame:
    assert answers.removals is not None
    cost = answers.removals.importance(name)
    kept = answers.measured_seeds(name)
    alpha = answers.profile(name, EXPONENTS[0])[kept]
    seeds, layers = cost.shape
    block = np.tile(np.arange(layers), seeds)
    return pd.DataFrame(
        {
            "cell": name,
            "seed": np.repeat(np.array(answers.seeds_of(name))[kept], layers),
            "block": block,
            "alpha": alpha.ravel(),
            "importance": cost.ravel(),
            "end": (block == 0) | (block == layers - 1),
        }
    )


@STUDY.figure(
    "removal",
    "Do spectra say which blocks can be removed?",
    order=90,
    applies=lambda answers: answers.removals is not None,
)
def removal(answers: LifeAnswers) -> Section:
    """Show the cost of the sets that rules remove, beside all sets."""
    removals = answers.removals
    assert removals is not None
    costs = removals.costs
    chosen = removed_cells(answers)
    mean = (
        costs[costs["rule"].isin(RULES)]
        .groupby(["cell", "rule", "n"], sort=False)["cost"]
        .mean()
        .reset_index()
    )
    mean = mean.rename(columns={"cost": "value"})
    rules = {rule: rule for rule in RULES if rule in set(mean["rule"])}
    pooled = tuple(
        (
            r["line"],
            r["rule"],
            f"{r['models']}",
            f"{r['cells']}",
            cell(r["score"]),
            cell(r["p"]),
            cell(r["p_holm"]),
            r["reason"],
        )
        for r in answers.pooled.to_dict("records")
    )
    return Section(
        text="Rules remove N blocks: the last ones, those with the lowest or highest ᾱ, those that turn the residual "
        "stream least (block influence), those with the smallest weights, those at the depths that were cheapest in "
        "other seeds (depth rule), or those that are cheapest one at a time, which knows the answer for N = 1. All but "
        "the first keep both ends. Each set is ranked among all sets of interior blocks; the pooled score is the mean "
        "normal score of these ranks, below 0 for cheap sets.",
        figure=removal_figure(mean[mean["cell"].isin(chosen)], removals.every, rules),
        caption="Mean over seeds. Grey: middle of all sets of interior blocks, and 90 % of them.",
        table=Table(
            ("runs", "rule", "models", "ranks", "mean normal score", "p", "p (Holm)", "why not"),
            pooled,
            text=(0, 1, 7),
        ),
        tables={"removal-costs": costs, "removal-advantages": answers.advantages},
        blocks=tuple(Text(note, "note") for note in removals.notes),
    )
