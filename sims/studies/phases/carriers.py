"""Claims on what carries the phases: memorisation of the training text, and ranks of the spectrum."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pandas as pd

from sims.analysis.entropy_phases import carriers
from sims.analysis.geometry import COMPRESSION, ENTROPY, WARMUP
from sims.analysis.geometry_claims import whole_phases
from sims.analysis.verdicts import Verdict
from sims.pages.number import ABSENT, interval
from sims.studies.claims import OPEN, Claim
from sims.studies.phases.answers import PhaseAnswers

NO_RUNS = "no such runs"
# Beginning and end of a claim of `memorisation`, and what stands beside it here.
MEMORISATION = (
    ("ρ of the ∞-gram peaks within", "phase E", "Long n-grams are memorised in E", "memorisation peaks in E"),
    ("The least RankMe", "ρ of the 1-gram coincide", "W ends when frequencies of tokens are learned", "not asked"),
    ("ρ of the 2-gram", "than ρ of the 1-gram", "Pairs of tokens are learned after frequencies", "not asked"),
    ("The largest RankMe", "ρ of the ∞-gram coincide", "E ends when long n-grams are memorised", "not asked"),
)  # fmt: skip
NGRAMS = "n-grams were not measured; train with --measuring.ngrams, or measure checkpoints with --ngrams"


def carrier_claims(answers: PhaseAnswers) -> Iterator[Claim]:
    """Yield the claims on memorisation and on ranks, for each set that is no null."""
    main = answers.data.main or answers.data.cells
    for start, end, text, published in MEMORISATION:
        yield from _memorised(answers, main, start, end, text, published)
    for label in (WARMUP, ENTROPY, COMPRESSION):
        yield from _carried(answers, main, label)


def _memorised(
    answers: PhaseAnswers, cells: list[str], start: str, end: str, text: str, published: str
) -> Iterator[Claim]:
    against = "within a factor √2" if end.endswith("coincide") else "no peak before the end, or another phase"
    found = answers.memorised
    table = None if found is None else found.claims
    measured = [] if table is None else [cell for cell in cells if cell in set(table["stage"])]
    if table is None or not measured:
        yield Claim(text, NO_RUNS, published, ABSENT, against, OPEN, NGRAMS)
        return
    chosen = table["claim"].str.startswith(start) & table["claim"].str.endswith(end)
    for cell in measured:
        own = table[chosen & (table["stage"] == cell)]
        for row in own.to_dict("records"):
            factor = (row.get(name, float("nan")) for name in ("factor", "low", "high"))
            yield Claim(text, cell, published, _factor(*factor), against, row["outcome"], row["reason"])
        if own.empty:
            yield Claim(text, cell, published, ABSENT, against, OPEN, _no_peak(answers, cell, end))


def _no_peak(answers: PhaseAnswers, cell: str, end: str) -> str:
    """Say why the peak that a claim ends with has no time to compare."""
    assert answers.memorised is not None
    own = next((peaks for key, peaks in answers.memorised.peaks.items() if key[0] == cell), {})
    named = [peak for peak in own.values() if f"{peak.name} coincide" == end]
    few = "too few looks at n-grams after the start; measure more often"
    return f"{named[0].name}: {named[0].verdict.reason}" if named else few


def _factor(value: float, low: float, high: float) -> str:
    return ABSENT if pd.isna(value) else f"factor {interval(value, low, high, 2)}"


def _carried(answers: PhaseAnswers, cells: list[str], label: str) -> Iterator[Claim]:
    """Yield which ranks add most to a phase."""
    text = f"One group of ranks adds more to {label} than any other"
    published = "not asked; third party: the first 32" if label == COMPRESSION else "not asked"
    there = [cell for cell in cells if answers.phase(cell, label)]
    if not there:
        reason = f"no set has a supported phase {label}"
        yield Claim(text, "all sets", published, ABSENT, "equal contributions", OPEN, reason)
    for cell in there:
        verdict = carried(answers, cell, label)
        told = verdict.reason.split("; ")[0]
        here = told if verdict.outcome != OPEN or told.startswith("ΔS") else ABSENT
        yield Claim.judged(text, cell, published, here, "equal contributions", verdict)


def carried(answers: PhaseAnswers, cell: str, label: str) -> Verdict:
    """Say which group of ranks adds most to the first phase of a set with a letter."""
    claim = f"One group of ranks adds more to phase {label} than any other"
    balance = answers.balance(cell)
    if isinstance(balance, str):
        return Verdict(claim, OPEN, balance)
    words = answers.words[cell]
    found = carriers(balance, replace(words, phases=whole_phases(words)), answers.data.run_ids(cell))
    return next(
        (own for own in found if own.claim == claim),
        Verdict(claim, OPEN, "it lies between two looks at spectra"),
    )
