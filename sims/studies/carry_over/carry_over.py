"""Which findings of the toy carry over to language models: the same questions put to both sets of runs.

A question is read from each side as a value with a 95 % interval over seeds, and answered where the interval lies on
one side of 0. Two answers agree or disagree; where one side has none, because its interval holds 0 or because it has
no interval, nothing can be told. One run of each cell has no interval over seeds: of such runs only what stands against
a null law of its own (the concentration of token families) is answered.

The answers are not corrected for their number.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pandas as pd

from sims.analysis.cells import best_rates
from sims.analysis.matched import Divergences, matched_spectra, sampling_floor
from sims.analysis.runs import Runs
from sims.analysis.taxonomy import taxonomy
from sims.studies.carry_over.questions import QUESTIONS, Question, Reading, Readings, Tables, arrow
from sims.system.errors import MeasureError

AGREES, DISAGREES, CANNOT_TELL = "agrees", "disagrees", "cannot tell"
TOY, TEXT = "toy", "language model"
# Of more samples than these the sampling floor would take longer to draw than it is worth: it is near 0.
FEW_SAMPLES = 10_000


def carry_over(toy: Runs, text: Runs) -> pd.DataFrame:
    """Answer every question on both sides.

    Args:
        toy, text: runs of the toy and of language models.

    Returns:
        One row for each question and thing it is about: question, what, statement, unit, and for toy and text value,
        low, high, seeds, note (prefixed toy_ and text_); verdict and reason.
    """
    sides = Tables(toy), Tables(text)
    rows = []
    for question in QUESTIONS:
        ours, theirs = (_read(question, side) for side in sides)
        rows += [_row(question, *pair) for pair in _paired(ours, theirs)]
    return pd.DataFrame(rows)


def _paired(ours: Readings, theirs: Readings) -> Iterator[tuple[str, Reading, Reading]]:
    """Yield what a question is about, with the readings of both sides."""
    # What a side cannot say at all it cannot say of anything.
    silent = theirs[""] if set(theirs) == {""} else Reading(math.nan, note="no such run")
    for what in dict.fromkeys(filter(None, (*theirs, *ours))) or ("",):
        site = what.split(": ")[0]
        if what in theirs or not any(other.startswith(f"{what}: ") for other in theirs):
            # The toy's mean over all stages stands for one that it does not have; its bands for any family.
            own = ours.get(what) or ours.get(site) or ours.get("") or Reading(math.nan, note="no such run")
            yield what, own, theirs.get(what) or silent


def _read(question: Question, tables: Tables) -> Readings:
    try:
        found = question.read(tables)
    except MeasureError as error:
        return {"": Reading(math.nan, note=str(error))}
    return found or {"": Reading(math.nan, note="not measured")}


def _row(question: Question, what: str, toy: Reading, text: Reading) -> dict[str, object]:
    verdict, reason = judge(toy, text)
    sides = {
        f"{side}_{name}": getattr(reading, name)
        for side, reading in (("toy", toy), ("text", text))
        for name in ("value", "low", "high", "seeds", "note")
    }
    return {
        "question": question.name,
        "what": what,
        "statement": question.statement.format(what=what or "any"),
        "unit": question.unit,
        **sides,
        "verdict": verdict,
        "reason": reason,
    }


def judge(toy: Reading, text: Reading) -> tuple[str, str]:
    """Return whether a finding carries over, and why."""
    if toy.answer and text.answer:
        said = {"+": "yes", "-": "no, below 0"}
        if toy.answer == text.answer:
            return AGREES, f"both: {said[toy.answer]}"
        return DISAGREES, f"{TOY}: {said[toy.answer]}; {TEXT}: {said[text.answer]}"
    return CANNOT_TELL, "; ".join(
        f"{side}: {reading.open}" for side, reading in ((TOY, toy), (TEXT, text)) if not reading.answer
    )


def labels(toy: Runs, text: Runs) -> pd.DataFrame:
    """Return the taxonomy of transitions on both sides.

    Returns:
        transition, toy_outcome, toy_mechanism, text_outcome, text_mechanism; "" where a side has no such transition.
    """
    found: dict[str, dict[str, str]] = {}
    for side, runs in (("toy", toy), ("text", text)):
        for name, label in _labels(runs):
            found.setdefault(name, {}).update({f"{side}_{k}": v for k, v in label.items()})
    columns = [f"{side}_{what}" for side in ("toy", "text") for what in ("outcome", "mechanism")]
    rows = [{"transition": name, **{c: own.get(c, "") for c in columns}} for name, own in found.items()]
    return pd.DataFrame(rows, columns=["transition", *columns])


def _labels(runs: Runs) -> Iterator[tuple[str, dict[str, str]]]:
    try:
        table = taxonomy(best_rates(runs))
    except MeasureError:
        return
    for r in table.to_dict("records"):
        yield arrow(r["before"], r["after"]), {"outcome": r["outcome"], "mechanism": r["mechanism"]}


def seed_stability(runs: Runs) -> pd.DataFrame:
    """Return how far two seeds of one cell are apart at equal loss, in the spectrum of what the head reads.

    Returns:
        stage, batch_size, seeds, loss, js (mean over pairs of seeds, nats; NaN with one seed), sampling_floor (of two
        samples of one Gaussian population with such a spectrum; NaN above 10,000 samples, which would be drawn).

    Raises:
        MeasureError: nothing measured.
    """
    rows = []
    for stage, group in matched_spectra(best_rates(runs), interpolate=True).groupby("stage", sort=False):
        between = Divergences(group.to_dict("records"))
        for size in between.groups:
            own = between.seeds(size)
            first = between.spectra[size, own[0]]
            few = (first.n or 0) <= FEW_SAMPLES
            label = {"stage": stage, "batch_size": size, "seeds": len(own), "loss": group["loss"].iloc[0]}
            floor = sampling_floor(first) if few else math.nan
            rows.append({**label, "js": between.within(size), "sampling_floor": floor})
    return pd.DataFrame(rows)


def alone(runs: Runs) -> bool:
    """Return whether no cell has a second seed, so that nothing has an interval over seeds."""
    return bool(np.all(runs.runs.groupby(["stage", "batch_size"])["seed"].nunique() < 2))
