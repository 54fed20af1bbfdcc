"""What was published of the phases of representation geometry, beside what these runs show (arXiv 2509.23024).

The published models have 160 million to 12 billion parameters and one seed each, and their phases are delimited by eye.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache

from sims.analysis.geometry import ALPHA_OPPOSITE, COMPRESSION, ENTROPY, WARMUP
from sims.analysis.geometry_claims import word_verdict
from sims.analysis.resampling import LEAST_SEEDS
from sims.analysis.verdicts import Verdict
from sims.pages.number import ABSENT, compact, counted, interval
from sims.studies.claims import NOT_SHOWN, OPEN, SHOWN, Claim
from sims.studies.phases.answers import VARIANTS, Change, PhaseAnswers, ends_with, has_letter
from sims.studies.phases.carriers import NO_RUNS, carrier_claims
from theory.decision import decide, side, why_undecided

WEC = "WEC"
LEAST_FACTOR, MOST_FACTOR = 2.0, 3.0
ALL = "all sets"
NOTES = (
    "Published RankMe of models wider than 2,048 is that of the first 2,048 principal components: 292 in place of 447 "
    "for λ ∝ 1/rank in 4,096 dimensions.",
    "The published p-values of correlations of geometry and benchmarks take checkpoints as independent; two trends "
    "always correlate.",
    "The published mechanism (skewed frequencies and fewer directions than tokens) gives a third phase from "
    "constructed starts only; from independent starts RankMe declines in 0 to 5 % of runs (speclens theory, "
    "free features under a head).",
)
MEASURE = "not measured; use --measure.geometry (--measuring.geometry)"
RAMPS = "--warmup 0 and --warmup 0.1 (speclens train lm)"
MEAN = "Without a bias on the logits the mean state stands in for it"
BIAS = "--logit-bias (speclens train lm)"
NULL_RUNS = "train on a null text (speclens data --null shuffled) and name it with --texts, or a toy of d ≥ V"
WIDTHS = "--model.d-model 8, 16, 32 and one not below --task.vocab (speclens train small)"


@lru_cache(maxsize=4)
def claims(answers: PhaseAnswers) -> tuple[Claim, ...]:
    """Return every claim: words, what the phases do, what carries them, and what takes them away."""
    return tuple(_claims(answers))


def _claims(answers: PhaseAnswers) -> Iterator[Claim]:
    main = answers.data.main or answers.data.cells
    for make in (_word, _expansion, _compression):
        for cell in main:
            yield make(answers, cell)
    for name in VARIANTS:
        yield from _variants(answers, main, name)
    for cell in main:
        yield _mean_state(answers, cell)
    yield from carrier_claims(answers)
    yield from _no_ramp(answers)
    yield from _ramps(answers)
    yield from _widths(answers)
    yield from _biases(answers)
    yield from _nulls(answers)


def _missing(text: str, published: str, against: str, remedy: str) -> Claim:
    """Return a claim that needs other runs."""
    reason = f"no two sets that differ in this alone; train some with {remedy}"
    return Claim(text, NO_RUNS, published, ABSENT, against, OPEN, reason)


def told(change: Change | None, unit: str = "") -> str:
    """Write a number with its interval, and the tokens between which it changes."""
    if change is None:
        return ABSENT
    return interval(change.value, change.low, change.high, write=compact) + unit


def _seeds(answers: PhaseAnswers, cell: str) -> str:
    """Say that seeds are missing; empty where there are enough."""
    seeds = answers.words[cell].seeds
    return "" if seeds >= LEAST_SEEDS else f"{counted(seeds, 'seed')}, of {LEAST_SEEDS} needed"


def _against(answers: PhaseAnswers, cell: str) -> str:
    nulls = answers.nulls_of(cell)
    words = "; ".join(f"{name}: {answers.words[name].word or ABSENT}" for name in nulls)
    return words or "no null run was named"


def _word(answers: PhaseAnswers, cell: str) -> Claim:
    found = answers.words[cell]
    verdict = word_verdict(found, WEC)
    return Claim.judged(
        "States go through W, E and C",
        cell,
        "WEC by eye, in OLMo and Pythia of 1 to 12 billion",
        found.word or ABSENT,
        _against(answers, cell),
        verdict,
    )


def _expansion(answers: PhaseAnswers, cell: str) -> Claim:
    change, there = answers.factor(cell, ENTROPY), has_letter(answers.words[cell], ENTROPY)
    text = f"RankMe grows {LEAST_FACTOR:g} to {MOST_FACTOR:g} times in E"
    if few := _seeds(answers, cell):
        verdict = Verdict(text, OPEN, few)
    elif there is None or (there and change is None):
        verdict = Verdict(text, OPEN, answers.words[cell].reason or "no look at both ends of E")
    elif change is None:
        verdict = Verdict(text, NOT_SHOWN, f"no phase E: {answers.words[cell].word}")
    elif support := _rankme_only(answers, cell, ENTROPY):
        verdict = Verdict(text, OPEN, support)
    else:
        outcome = decide(change.low, change.high, LEAST_FACTOR, MOST_FACTOR)
        word = {"inside": SHOWN, "outside": NOT_SHOWN}.get(outcome, OPEN)
        verdict = Verdict(text, word, f"factor {told(change)}")  # pyright: ignore[reportArgumentType]
    return Claim.judged(text, cell, "2 to 3 times", told(change), "1", verdict)


def _compression(answers: PhaseAnswers, cell: str) -> Claim:
    text, last = "Training ends in compression", ends_with(answers.words[cell], COMPRESSION)
    change = answers.factor(cell, COMPRESSION) if last else None
    found = answers.words[cell]
    if few := _seeds(answers, cell):
        verdict = Verdict(text, OPEN, few)
    elif last is None or (last and change is None):
        verdict = Verdict(text, OPEN, found.reason or "the end of the word is not known")
    elif change is None:
        verdict = Verdict(text, NOT_SHOWN, f"they go through {found.word}")
    elif support := _rankme_only(answers, cell, COMPRESSION):
        verdict = Verdict(text, OPEN, support)
    else:
        falls = side(change.low, change.high, 1.0) < 0
        reason = f"factor {told(change)}" if falls else why_undecided(change.low, change.high, 1.0)
        verdict = Verdict(text, SHOWN if falls else OPEN, reason)
    against = "flat: ln RankMe moves by less than .02"
    return Claim.judged(text, cell, "all models (Pythia-1B: 555 → 194)", told(change), against, verdict)


def _rankme_only(answers: PhaseAnswers, cell: str, *labels: str) -> str:
    """Say that α-ReQ does not support phases; empty where it does."""
    found = ((label, answers.phase(cell, label)) for label in labels)
    alone = [label for label, own in found if own is not None and own.support != ALPHA_OPPOSITE]
    return f"{' and '.join(alone)} rest{'s' * (len(alone) == 1)} on RankMe only" if alone else ""


def _variants(answers: PhaseAnswers, cells: Sequence[str], name: str) -> Iterator[Claim]:
    text = f"C is there {name}"
    published = "not asked; third party: no, without 32" if name.startswith("without") else "not asked"
    there = [cell for cell in cells if has_letter(answers.words[cell], COMPRESSION)]
    if not there:
        words = dict.fromkeys(answers.words[cell].word or ABSENT for cell in cells)
        reason = f"no third phase to look at: {', '.join(words)}"
        yield Claim(text, ALL, published, ABSENT, "C with all directions", OPEN, reason)
    for cell in there:
        yield _variant(answers, cell, name, text, published)


def _variant(answers: PhaseAnswers, cell: str, name: str, text: str, published: str) -> Claim:
    whole, found = answers.words[cell], answers.variants.get((cell, name))
    letter = None if found is None else has_letter(found, COMPRESSION)
    if few := _seeds(answers, cell):
        verdict = Verdict(text, OPEN, few)
    elif found is None:
        verdict = Verdict(text, OPEN, _not_measured(answers, cell, name))
    elif letter is None:
        verdict = Verdict(text, OPEN, found.reason)
    else:
        reason = f"{found.word} where all directions have {whole.word}"
        verdict = Verdict(text, SHOWN if letter else NOT_SHOWN, reason)
    here = ABSENT if found is None else found.word or ABSENT
    return Claim.judged(text, cell, published, here, f"all directions: {whole.word}", verdict)


def _not_measured(answers: PhaseAnswers, cell: str, name: str) -> str:
    """Say why there is no RankMe of a part of the states."""
    width, left_out = answers.data.settings[cell].width, VARIANTS[name][1].removeprefix("top ")
    if width is not None and left_out and width < int(left_out) + 2:
        return f"of {width} directions fewer than two are left without the first {left_out}"
    return MEASURE


def _mean_state(answers: PhaseAnswers, cell: str) -> Claim:
    text, changes = "In W the states gather around their mean, in E they leave it", answers.mean_share(cell)
    if few := _seeds(answers, cell):
        verdict = Verdict(text, OPEN, few)
    elif changes is None:
        verdict = Verdict(text, OPEN, "it needs the phases W and E, and the share of the mean state")
    elif support := _rankme_only(answers, cell, WARMUP, ENTROPY):
        verdict = Verdict(text, OPEN, support)
    else:
        up, down = (side(c.low, c.high) for c in changes)
        reason = f"share {told(changes[0])} in W, {told(changes[1])} in E"
        outcome = SHOWN if (up, down) == (1, -1) else NOT_SHOWN if up < 0 or down > 0 else OPEN
        verdict = Verdict(text, outcome, reason)
    here = ABSENT if changes is None else f"{told(changes[0])} in W; {told(changes[1])} in E"
    return Claim.judged(text, cell, "not asked", here, "no change; 1/n of Gaussian states", verdict)


# Sets that differ in one setting.


def _no_ramp(answers: PhaseAnswers) -> Iterator[Claim]:
    text, published = "W is there without a ramp of the learning rate", "named after the ramp"
    cells = [c for c in answers.data.main if answers.data.settings[c].warmup == 0]
    if not cells:
        yield Claim(
            text, NO_RUNS, published, ABSENT, "no W", OPEN, f"every set has a ramp; train some with {RAMPS}"
        )
    for cell in cells:
        found = answers.words[cell]
        there = has_letter(found, WARMUP)
        if few := _seeds(answers, cell):
            verdict = Verdict(text, OPEN, few)
        elif there is None:
            verdict = Verdict(text, OPEN, found.reason)
        elif there and (support := _rankme_only(answers, cell, WARMUP)):
            verdict = Verdict(text, OPEN, support)
        else:
            verdict = Verdict(text, SHOWN if there else NOT_SHOWN, found.word)
        yield Claim.judged(text, cell, published, found.word or ABSENT, "no W", verdict)


def _ramps(answers: PhaseAnswers) -> Iterator[Claim]:
    text, published = "W ends at the same tokens whatever the ramp", "not asked"
    if not answers.ramps:
        yield _missing(text, published, "within a factor √2", RAMPS)
    for first, *others in answers.ramps:
        for other in others:
            lacking = [why for cell in (first, other) if (why := _no_end_of_w(answers, cell))]
            found = answers.same_minimum(first, other)
            verdict, here = found.verdict, interval(1 / found.factor, 1 / found.high, 1 / found.low, 2)
            if lacking or not found.seeds:
                here = ABSENT
            if lacking:
                verdict = Verdict(text, OPEN, f"both need a phase W and one after it: {'; '.join(lacking)}")
            yield Claim.judged(text, f"{other} over {first}", published, here, "within a factor √2", verdict)


def _no_end_of_w(answers: PhaseAnswers, cell: str) -> str:
    """Say why a set has no end of W, which needs a supported phase after it; empty where it has one."""
    found = answers.words[cell]
    if not found.word.startswith((WARMUP + ENTROPY, WARMUP + COMPRESSION)):
        return f"{cell}: {found.word or ABSENT}"
    support = _rankme_only(answers, cell, *found.word[:2])
    return f"{cell}: {support}" if support else ""


def _widths(answers: PhaseAnswers) -> Iterator[Claim]:
    needs, brings = "C needs fewer directions than tokens", "Fewer directions than tokens bring C"
    published = {needs: "necessary", brings: "enough, with skewed frequencies"}
    if not answers.widths:
        for text, told_ in published.items():
            yield _missing(text, told_, "d ≥ V", WIDTHS)
    for cells in answers.widths:
        narrow = [cell for cell in cells if not answers.data.settings[cell].is_wide]
        wide = [cell for cell in cells if cell not in narrow]
        found = {
            needs: _taken_away(answers, needs, narrow, wide, WIDTHS),
            brings: _in_all(answers, brings, narrow),
        }
        for text, verdict in found.items():
            yield Claim.judged(
                text, "; ".join(cells), published[text], _words(answers, cells), "d ≥ V", verdict
            )


def _biases(answers: PhaseAnswers) -> Iterator[Claim]:
    text, published = "A bias on the logits takes C away", "not asked"
    if not answers.biases:
        yield _missing(text, published, "without a bias", BIAS)
    for cells in answers.biases:
        without = [cell for cell in cells if not answers.data.settings[cell].bias]
        verdict = _taken_away(answers, text, without, [c for c in cells if c not in without], BIAS)
        yield Claim.judged(
            text, "; ".join(cells), published, _words(answers, cells), "without a bias", verdict
        )
        found = answers.intercept(cells)
        if isinstance(found, str):
            yield Claim(
                MEAN, "; ".join(cells), published, ABSENT, "no difference, paired by seed", OPEN, found
            )
            continue
        for own in (verdict for each in found.verdicts.values() for verdict in each):
            against = "no difference, paired by seed"
            yield Claim.judged(own.claim, "; ".join(cells), published, own.reason, against, own)


def _words(answers: PhaseAnswers, cells: Sequence[str]) -> str:
    """Return the words of some sets, up to the tokens that all of them reach."""
    return "; ".join(f"{cell}: {own.word or ABSENT}" for cell, own in answers.compared(cells).items())


def _taken_away(
    answers: PhaseAnswers, text: str, expected: Sequence[str], others: Sequence[str], remedy: str
) -> Verdict:
    """Say whether C is in one of the sets in which it is expected, and in no other; by RankMe alone."""
    if not expected or not others:
        return Verdict(text, OPEN, f"one side of the comparison is missing; train some with {remedy}")
    words = answers.compared((*expected, *others))
    there = {cell: has_letter(own, COMPRESSION) for cell, own in words.items()}
    told_ = {cell: f"{cell}: {own.word or ABSENT}" for cell, own in words.items()}
    if few := next((why for cell in there if (why := _seeds(answers, cell))), ""):
        return Verdict(text, OPEN, few)
    if wrong := [told_[cell] for cell in others if there[cell]]:
        return Verdict(text, NOT_SHOWN, "; ".join(wrong))
    if not any(there[cell] for cell in expected):
        return Verdict(text, OPEN, f"no third phase to take away: {'; '.join(told_[c] for c in expected)}")
    if unsure := [told_[cell] for cell in others if there[cell] is None]:
        return Verdict(text, OPEN, "; ".join(unsure))
    return Verdict(text, SHOWN, "; ".join(told_.values()))


def _in_all(answers: PhaseAnswers, text: str, cells: Sequence[str]) -> Verdict:
    """Say whether C is in all of some sets; by RankMe alone."""
    there = {cell: has_letter(answers.words[cell], COMPRESSION) for cell in cells}
    told_ = {cell: f"{cell}: {answers.words[cell].word or ABSENT}" for cell in cells}
    if few := next((why for cell in there if (why := _seeds(answers, cell))), ""):
        return Verdict(text, OPEN, few)
    if without := [told_[cell] for cell, own in there.items() if own is False]:
        return Verdict(text, NOT_SHOWN, "; ".join(without))
    unsure = [told_[cell] for cell, own in there.items() if own is None]
    if unsure or not there:
        return Verdict(text, OPEN, "; ".join(unsure) or f"no narrow set; train some with {WIDTHS}")
    return Verdict(text, SHOWN, "; ".join(told_.values()))


def _nulls(answers: PhaseAnswers) -> Iterator[Claim]:
    text = "Null runs have no third phase"
    if not answers.nulls:
        yield Claim(text, NO_RUNS, "not asked", ABSENT, "C", OPEN, f"no null run was named; {NULL_RUNS}")
    for cell in answers.nulls:
        found = answers.words[cell]
        there = has_letter(found, COMPRESSION)
        if few := _seeds(answers, cell):
            verdict = Verdict(text, OPEN, few)
        elif there is None:
            verdict = Verdict(text, OPEN, found.reason)
        else:
            verdict = Verdict(text, NOT_SHOWN if there else SHOWN, found.word)
        yield Claim.judged(text, cell, "not asked", found.word or ABSENT, "C", verdict)
