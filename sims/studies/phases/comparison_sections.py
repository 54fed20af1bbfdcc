"""The sections of the page on sets that differ in one setting: ramps, widths, biases, and nulls."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import pandas as pd

from sims.analysis.geometry import COMPRESSION, ENTROPY, WARMUP
from sims.pages.number import ABSENT
from sims.pages.page import Section
from sims.pages.table import Table
from sims.studies.phases.answers import PhaseAnswers
from sims.studies.phases.figures import comparison_figure
from sims.studies.phases.published import told
from sims.studies.phases.sections import at, curves
from sims.studies.phases.study import STUDY

Groups = Mapping[str, Sequence[tuple[str, str]]]


CAPTION = (
    "Thick: mean over seeds; thin: seeds. Words are those up to the tokens that all sets of a group reach; extremes "
    "and factors are those of whole runs."
)


def titled(groups: Sequence[Sequence[str]]) -> dict[str, Sequence[str]]:
    """Return groups of sets by a title of their own: the first set, and the others where several groups begin alike.

    >>> list(titled([["short", "bias"], ["rope", "wide"], ["rope", "wider"]]))
    ['short', 'rope, wide', 'rope, wider']
    """
    counts = Counter(own[0] for own in groups)
    return {own[0] if counts[own[0]] == 1 else ", ".join(own): own for own in groups}


def _groups(answers: PhaseAnswers, groups: Sequence[Sequence[str]], word: str, name: str) -> Groups:
    """Return by title the sets of each group, with the names that a legend gives them."""
    settings = answers.data.settings
    return {
        settings[own[0]].stage if len(groups) == 1 else title: [
            (cell, word.format(getattr(settings[cell], name))) for cell in own
        ]
        for title, own in titled(groups).items()
    }


def _section(answers: PhaseAnswers, groups: Groups, ordered: bool, **texts: Any) -> Section:
    parts, rows = [], []
    for title, cells in groups.items():
        words = answers.compared([cell for cell, _ in cells])
        for cell, legend in cells:
            parts.append(curves(answers, [cell]).assign(group=title, cell=legend))
            found, (least, most) = words[cell], answers.extremes(cell)
            factors = [told(answers.factor(cell, letter)) for letter in (WARMUP, ENTROPY, COMPRESSION)]
            rows.append((cell, legend, found.word or ABSENT, at(least), at(most), *factors, found.reason))
    return Section(
        figure=comparison_figure(pd.concat(parts, ignore_index=True), ordered),
        table=Table(
            ("runs", "setting", "word", "least RankMe at tokens", "largest after it", "factor in W", "in E", "in C",
             "what limits it"),
            tuple(rows),
            text=(0, 1, 2, 8),
        ),
        caption=CAPTION,
        **texts,
    )  # fmt: skip


@STUDY.figure(
    "ramp", "Is the first phase that of the ramp?", order=50, applies=lambda answers: bool(answers.ramps)
)
def ramp(answers: PhaseAnswers) -> Section:
    """Show RankMe under several warm-ups of the learning rate."""
    return _section(
        answers,
        _groups(answers, answers.ramps, "warm-up {}", "warmup"),
        True,
        text="The first phase is named after the steps in which the learning rate rises. Here they differ, and nothing "
        "else does.",
    )


@STUDY.figure("width", "Is there a bottleneck?", order=60, applies=lambda answers: bool(answers.widths))
def width(answers: PhaseAnswers) -> Section:
    """Show RankMe of several widths."""
    return _section(
        answers,
        _groups(answers, answers.widths, "d = {}", "width"),
        True,
        text="Published: states compress because there are fewer directions than tokens. With a width of the "
        "vocabulary or more there is no such bottleneck.",
    )


@STUDY.figure("bias", "Does a bias take the third phase away?", order=70, applies=lambda a: bool(a.biases))
def bias(answers: PhaseAnswers) -> Section:
    """Show RankMe with and without a bias on the logits."""
    groups = {
        title: [(cell, "with a bias" if answers.data.settings[cell].bias else "no bias") for cell in own]
        for title, own in titled(answers.biases).items()
    }
    return _section(
        answers,
        groups,
        False,
        text="Without a bias on the logits the model needs a direction of its states for the frequencies of the "
        "tokens.",
    )


@STUDY.figure(
    "nulls", "What do runs do in which nothing is to be found?", order=80, applies=lambda a: bool(a.nulls)
)
def nulls(answers: PhaseAnswers) -> Section:
    """Show the null runs beside the others of their stage."""
    groups: dict[str, Sequence[tuple[str, str]]] = {}
    beside: dict[tuple[str, ...], list[str]] = {}
    for cell in answers.data.main:
        if own := tuple(answers.nulls_of(cell)):
            beside.setdefault(own, []).append(cell)
    for own, cells in beside.items():
        cell = min(cells, key=partial(answers.data.differing, own[0]))
        groups[cell] = [(cell, "these runs"), *((n, _null_name(answers, n)) for n in own)]
    groups = groups or {"nulls": [(n, n) for n in answers.nulls]}
    return _section(
        answers,
        groups,
        False,
        text="Text without its order has the frequencies of the tokens alone; text with equal frequencies has no skew; "
        "states as wide as the vocabulary have no bottleneck.",
    )


def _null_name(answers: PhaseAnswers, cell: str) -> str:
    setting = answers.data.settings[cell]
    return setting.null or f"d = {setting.width} ≥ V"
