"""The sections of the page: words, and what carries each phase."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, fields

import pandas as pd

from sims.analysis.geometry import FLAT, Phase
from sims.analysis.phases import SIGNIFICANT
from sims.measure.geometry import ACTIVATION
from sims.pages.number import ABSENT, cell, compact, interval, missing
from sims.pages.page import Section, Text
from sims.pages.table import Table
from sims.studies.claims import Claim
from sims.studies.phases.answers import ALPHA, MEAN_SHARE, RANKME, VARIANTS, Change, PhaseAnswers
from sims.studies.phases.figures import phase_figure, without_figure, words_figure
from sims.studies.phases.published import NOTES, claims
from sims.studies.phases.study import STUDY
from sims.system.errors import MeasureError
from toymodel.transformer import FINAL

# Panels of a picture with one for each set, and rows of one with two panels each.
MOST_PANELS, MOST_ROWS = 12, 4


def glance(answers: PhaseAnswers) -> Section:
    """Draw RankMe and α-ReQ of the first set, with its phases."""
    of = first(answers)
    name, alpha = answers.alpha(of)
    null = answers.data.runs.values(RANKME, ACTIVATION, FINAL)
    null = null[null["run_id"].isin(answers.data.of(of)["run_id"])]["null"]
    ranks = {"published": "ranks 12–100", "width": "ranks 12–0.8 d"}.get(name, "")
    told = f" and α-ReQ ({ranks})" if alpha is not None else ""
    return Section(
        name="at-a-glance",
        title="At a glance",
        figure=phase_figure(
            answers.rankme(of).table(),
            pd.DataFrame() if alpha is None else alpha.table(),
            phase_table(answers, [of]),
            float(null.mean()) if null.notna().any() else None,
        ),
        caption=f"{of}: RankMe{told} of the final states. Thick: mean over seeds; thin: seeds; colours: phases of the "
        f"mean. {answers.words[of].sentence}",
        tables={"rankme": curves(answers, answers.data.cells)},
    )


def first(answers: PhaseAnswers) -> str:
    """Return the set that a picture of one set shows: that with the longest word, of those that are no nulls."""

    def known(name: str) -> tuple[bool, int, int]:
        own = answers.words[name]
        return own.status == "ok", sum(letter in "WEC" for letter in own.word.split("?")[0]), own.seeds

    return max(answers.data.main or answers.data.cells, key=known)


def curves(
    answers: PhaseAnswers, cells: Sequence[str], quantity: str = RANKME, detail: str = ""
) -> pd.DataFrame:
    """Return a number of the states of sets: cell, seed, tokens, value."""
    parts = [
        own.table().assign(cell=name)
        for name in cells
        if (own := answers.curve(name, quantity, detail)) is not None
    ]
    empty = pd.DataFrame({name: pd.Series(dtype=float) for name in ("seed", "tokens", "value", "cell")})
    return pd.concat(parts, ignore_index=True) if parts else empty


def phase_table(answers: PhaseAnswers, cells: Sequence[str]) -> pd.DataFrame:
    """Return the phases of sets, one row each: cell, and the columns of `Phase`."""
    rows = [
        {"cell": name, **row}
        for name in cells
        for row in answers.words[name].rows()
        if "label" in row and row["label"] != FLAT
    ]
    return pd.DataFrame(rows) if rows else pd.DataFrame(columns=["cell", "label", "start", "end"])


def at(change: Change) -> str:
    """Write a number and the tokens at which it is."""
    return f"{interval(change.value, change.low, change.high, write=compact)} at {amount(change.end)}"


def amount(tokens: float) -> str:
    """Write a number of tokens.

    >>> amount(1.54e6), amount(62_512), amount(8)
    ('1.54 M', '62.5 k', '8')
    """
    for scale, name in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if tokens >= scale:
            return f"{tokens / scale:.3g} {name}"
    return f"{tokens:.3g}"


@STUDY.figure("words", "Which phases does each set go through?", order=10)
def words(answers: PhaseAnswers) -> Section:
    """Show the word of every set, with the extremes of RankMe."""
    cells = answers.data.cells
    shown = cells[:MOST_PANELS]
    rows = []
    for name in cells:
        own, (least, most) = answers.words[name], answers.extremes(name)
        rows.append(
            (name, own.word or ABSENT, str(own.seeds), str(own.points), at(least), at(most),
             cell(answers.p_holm(name)), own.reason)
        )  # fmt: skip
    titles = {name: f"{name}: {answers.words[name].word or ABSENT}" for name in shown}
    return Section(
        text="RankMe is the exponential of the entropy of the spectrum of the final states: how many directions they "
        "fill. ln RankMe is segmented against ln tokens: W is a fall before any rise, E a rise, C a fall after it, "
        "? a change that tests or seeds do not support. A phase moves ln RankMe by .02 or more, its slope has a "
        "95 % interval without 0, and two thirds of the seeds share its turn within a factor √2 of its tokens.",
        figure=words_figure(curves(answers, shown), phase_table(answers, shown), titles),
        caption="Thick: mean over seeds; thin: seeds; colours: phases of the mean.",
        table=Table(
            ("runs", "word", "seeds", "looks", "least RankMe [95 %] at tokens", "largest after it", "p (Holm)",
             "what limits it"),
            tuple(rows),
            text=(0, 1, 7),
        ),
        tables={"rankme": curves(answers, cells), "phases": answers.found.phases, "words": answers.found.words},
    )  # fmt: skip


@STUDY.figure("phases", "When does each phase turn, and how fast is it?", order=20)
def phases(answers: PhaseAnswers) -> Section:
    """Show slopes, turns and α-ReQ of every phase."""
    rows = [_phase_row(name, own) for name in answers.data.cells for own in answers.words[name].phases]
    return Section(
        text="The slope is that of ln RankMe for each e-fold of tokens, with its interval over seeds, or of correlated "
        "noise where there are fewer than three. α-ReQ supports a phase if it moves the other way (rank correlation "
        "ρ ≤ −0.5): a spectrum that falls more steeply has fewer directions.",
        table=Table(
            ("runs", "phase", "from", "to tokens", "slope [95 %]", "change of ln RankMe", "ρ with α-ReQ",
             "p of no slope", "p of no turn", "seeds with this turn"),
            tuple(rows),
            text=(0, 1, 6),
        ),
    )  # fmt: skip


def _phase_row(name: str, own: Phase) -> tuple[str, ...]:
    return (
        name,
        own.label,
        amount(own.start),
        amount(own.end),
        interval(own.slope, own.low, own.high, write=lambda v: f"{v:.2g}"),
        f"{own.move:+.2f}",
        "" if own.label == FLAT else f"{cell(own.rho)} ({own.support})",
        cell(own.p_level),
        cell(own.p),
        ABSENT if missing(own.agree) else f"{own.agree:.0%}",
    )


@STUDY.figure("seeds", "Does every run show the phases?", order=30)
def seeds(answers: PhaseAnswers) -> Section:
    """Show the word of every run."""
    runs = answers.data.runs.runs.set_index("run_id")["seed"]
    order = {name: i for i, name in enumerate(answers.data.cells)}
    each = answers.runs.sort_values("stage", key=lambda own: own.map(order), kind="stable")
    rows = tuple(
        (
            str(r["stage"]),
            str(r["run_id"]),
            str(runs[r["run_id"]]),
            r["word"] or ABSENT,
            cell(r["p"]),
            r["reason"],
        )
        for r in each.to_dict("records")
    )
    return Section(
        text="Each run by itself, with intervals of correlated noise. The word of a set needs two thirds of its seeds.",
        table=Table(("runs", "run", "seed", "word", "p", "what limits it"), rows, text=(0, 1, 3, 5)),
    )


@STUDY.figure("without", "What of each phase is left without the first directions?", order=40)
def without(answers: PhaseAnswers) -> Section:
    """Show RankMe without its first directions and with the mean state, and the share of the mean state."""
    cells = answers.data.cells
    kept = [name for name in cells if any((name, variant) in answers.variants for variant in VARIANTS)]
    if not kept:
        raise MeasureError(
            "RankMe without the first directions was not measured; it needs --measure.geometry"
        )
    kept = kept[:MOST_ROWS]
    drawn = {"all directions": (RANKME, ""), **VARIANTS}
    parts = [curves(answers, kept, *which).assign(of=name) for name, which in drawn.items()]
    table = pd.concat([own for own in parts if len(own)], ignore_index=True)
    rows = []
    for name in cells:
        found = [answers.variants.get((name, variant)) for variant in VARIANTS]
        share = answers.mean_share(name)
        told = [ABSENT, ABSENT] if share is None else [_signed(c) for c in share]
        own = [w.word or ABSENT if w else ABSENT for w in found]
        rows.append((name, answers.words[name].word or ABSENT, *own, *told))
    return Section(
        text="RankMe sees little but the first directions. Without them the rest of the spectrum has its word, by "
        "RankMe alone. Centring takes the mean state h̄ away; ‖h̄‖²/E‖h‖² is the share of it in the states (1/n of n "
        "Gaussian states), and with it RankMe is that of the second moment E hhᵀ.",
        figure=without_figure(table, curves(answers, kept, MEAN_SHARE), kept),
        caption="Left: RankMe of all directions, and of parts. Right: share of the mean state. Thick: mean over seeds.",
        table=Table(
            ("runs", "word", *VARIANTS, "mean share from the start to the end of W", "and in E"),
            tuple(rows),
            text=tuple(range(2 + len(VARIANTS))),
        ),
        tables={
            "without": table,
            "mean-share": curves(answers, cells, MEAN_SHARE),
            "alpha": _alphas(answers),
        },
    )


def _alphas(answers: PhaseAnswers) -> pd.DataFrame:
    parts = [
        curves(answers, [name], ALPHA, window).assign(ranks=window)
        for name in answers.data.cells
        for window, own in (answers.alpha(name),)
        if own is not None
    ]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=["cell", "ranks"])


def _signed(change: Change) -> str:
    return interval(change.value, change.low, change.high, write=lambda v: f"{v:+.2f}")


@STUDY.figure("certainty", "How often is a word wrong?", order=90)
def certainty(answers: PhaseAnswers) -> Section:
    """Say how often the rule sees a third phase that is not there, and how often it finds one."""
    rows = (
        ("level at the end, noise .02 of ln RankMe", "0.5 %", "200"),
        ("level at the end, noise .05", "3.5 %", "200"),
        ("rises to the end", "0 %", "200"),
        ("falls by 26 %, noise .02", "100 %", "100"),
        ("falls by 26 %, noise .05", "90 %", "100"),
        ("falls by 26 %, noise .1", "44 %", "100"),
        ("falls by 10 %, noise .02", "74 %", "100"),
        ("falls by 10 %, noise .02, three seeds", "80 %", "30"),
    )
    return Section(
        text="Simulated curves of 30 looks with noise whose neighbours correlate with .5, which fall and rise and then "
        "do what the first column says; single runs but for the last row. Over the sets of this page the p-value of a "
        f"word, the largest of its letters', is corrected by Holm, and holds at {SIGNIFICANT:g}.",
        table=Table(("curve", "has a third phase", "curves"), rows),
    )


@STUDY.figure("claims", "The published claims beside these runs", order=100)
def published(answers: PhaseAnswers) -> Section:
    """Show every claim with its null and verdict."""
    return Section(
        text="Claims need three seeds. A letter that α-ReQ does not support is not resolved; claims on C with and "
        "without something (directions, width, a bias) and on nulls are by RankMe alone.",
        table=Table(
            tuple(f.name for f in fields(Claim)),
            tuple(astuple(c) for c in claims(answers)),
            text=(0, 1, 2, 3, 4, 5, 6),
        ),
        blocks=tuple(Text(note, "note") for note in NOTES),
    )
