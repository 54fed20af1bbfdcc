"""Decide claims about the phases of the geometry: which word a set of seeds has, and whether two times coincide."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np

from sims.analysis.geometry import ALPHA_OPPOSITE, FLAT, RANKME_ONLY, UNKNOWN, Phase, Phases
from sims.analysis.intervals import mean_interval
from sims.analysis.phases import TOLERANCE
from sims.analysis.resampling import LEAST_SEEDS
from sims.analysis.verdicts import Verdict
from sims.pages.number import counted
from sims.system.errors import MeasureError


def word_verdict(found: Phases, claimed: str) -> Verdict:
    """Say whether a set of seeds goes through the claimed phases.

    Args:
        found: of three seeds or more.
        claimed: a word of W, E and C, such as "WEC".

    Returns:
        "shown" where the word is the claimed one and nothing limits it; "not shown" where it is another one;
        "not resolved" with fewer seeds or looks, where the supported beginning of a word fits the claim, and where a
        letter rests on RankMe only.

    Raises:
        MeasureError: a claimed word of other letters.

    >>> word_verdict(Phases("WE", "ok", "", 3, 30), "WEC").sentence
    'The states go through WEC: not shown (they go through WE).'
    """
    if not claimed or set(claimed) - set("WEC"):
        raise MeasureError(f"the claimed word is {claimed!r}; it consists of the letters W, E and C")
    claim = f"The states go through {claimed}"
    if found.status == "not fitted":
        return Verdict(claim, "not resolved", found.reason)
    if found.seeds < LEAST_SEEDS:
        return Verdict(claim, "not resolved", f"{counted(found.seeds, 'seed')}, of {LEAST_SEEDS} needed")
    known, unknown, _ = found.word.partition(UNKNOWN)
    if found.word != claimed and not (unknown and claimed.startswith(known)):
        return Verdict(claim, "not shown", f"they go through {found.word}")
    if found.status != "ok":
        return Verdict(claim, "not resolved", found.reason)
    return Verdict(claim, "shown", found.sentence.rstrip("."))


def whole_phases(found: Phases) -> tuple[Phase, ...]:
    """Return one phase a letter of the word: its pieces, and what is flat between them, together.

    The move and the slope are those from the start of the first piece to the end of the last, the slope without an
    interval where there are several. α-ReQ supports a letter if it supports each piece; ρ and p of no slope are the
    largest of the pieces, and the turn is that to the first.

    >>> pieces = (Phase("E", 1.0, 10.0, 0.4, 0.3, 0.5, 0.9), Phase("flat", 10.0, 20.0, 0.0, -0.1, 0.1, 0.0),
    ...           Phase("E", 20.0, 40.0, 0.5, 0.4, 0.6, 0.3))
    >>> [(own.label, own.start, own.end, own.move) for own in whole_phases(Phases("E", "ok", "", 3, 30, pieces))]
    [('E', 1.0, 40.0, 1.2)]
    """
    letters: list[list[Phase]] = []
    flat: list[Phase] = []
    for own in found.phases:
        if own.label == FLAT:
            flat.append(own)
            continue
        if letters and letters[-1][0].label == own.label:
            letters[-1] += [*flat, own]
        else:
            letters.append([own])
        flat = []
    return tuple(_joined(own) for own in letters)


def _joined(pieces: Sequence[Phase]) -> Phase:
    """Return the phases of one letter, and what is flat between them, as one."""
    first, last = pieces[0], pieces[-1]
    if len(pieces) == 1:
        return first
    own = [piece for piece in pieces if piece.label == first.label]
    move = sum(piece.move for piece in pieces)
    tests = [piece.p_level for piece in own if not math.isnan(piece.p_level)]
    return replace(
        first,
        end=last.end,
        move=move,
        slope=move / math.log(last.end / first.start),
        low=math.nan,
        high=math.nan,
        rho=float(np.max([piece.rho for piece in own])),
        support=ALPHA_OPPOSITE if all(piece.support == ALPHA_OPPOSITE for piece in own) else RANKME_ONLY,
        p_level=max(tests, default=math.nan),
    )


@dataclass(frozen=True)
class Coincidence:
    """Hold by which factor one time is later than another, over seeds that have both.

    Attributes:
        seeds: pairs.
        factor, low, high: first over second, with the 95 % interval of Student's t of the differences of logarithms.
        spacing: factor between two looks, to which both are known.
        verdict: on whether they coincide.
    """

    seeds: int
    factor: float
    low: float
    high: float
    spacing: float
    verdict: Verdict

    @property
    def sentence(self) -> str:
        """Return the verdict as one sentence."""
        return self.verdict.sentence

    def row(self) -> dict[str, object]:
        """Return the numbers and the verdict as a row of a table."""
        own = asdict(self)
        own.pop("verdict")
        return {**own, **self.verdict.row()}


def coincidence(
    first: Sequence[float], second: Sequence[float], *, spacing: float, claim: str = "The two times coincide"
) -> Coincidence:
    """Say whether two times, such as the least RankMe and a peak of memorisation, coincide within a factor √2.

    They do if the 95 % interval of the mean difference of ln tokens, paired by seed, lies within ± ln √2 and holds 0 as
    far as the looks can tell.

    Args:
        first, second: (seeds,) tokens of each seed, in one order; NaN where a seed has none.
        spacing: largest factor between neighbouring looks around these times, at least 1.
        claim: what is claimed.

    Returns:
        "not shown" where the interval does not hold 0 by more than the spacing; "not resolved" where it reaches beyond
        a factor √2, with fewer than three pairs, and where looks are a factor √2 or more apart.

    Raises:
        MeasureError: other numbers of seeds, a time that is not positive, a spacing below 1.

    >>> coincidence([1e5, 1.1e5, 0.9e5], [1e5, 1e5, 1e5], spacing=1.2).verdict.outcome
    'shown'
    """
    a, b = (np.asarray(times, float) for times in (first, second))
    if a.ndim != 1 or a.shape != b.shape:
        raise MeasureError(
            f"the times have shapes {a.shape} and {b.shape}; pass one of each seed, in one order"
        )
    given = np.concatenate([a, b])
    if (given[~np.isnan(given)] <= 0).any() or np.isinf(given).any() or not 1 <= spacing < math.inf:
        raise MeasureError(
            "times must be positive, NaN where missing, and the spacing a factor of at least 1"
        )
    pairs = ~(np.isnan(a) | np.isnan(b))
    difference = np.log(a[pairs] / b[pairs])
    seeds = len(difference)
    mean, low, high = mean_interval(difference, least=LEAST_SEEDS)
    step = math.log(spacing)
    factors = (
        f"factor {math.exp(mean):.3g} [{math.exp(low):.3g}, {math.exp(high):.3g}]" if seeds else "no pair"
    )
    if seeds < LEAST_SEEDS:
        outcome, reason = "not resolved", f"{seeds} of {len(a)} seeds have both; the rule needs {LEAST_SEEDS}"
    elif step >= TOLERANCE:
        outcome, reason = "not resolved", f"looks are a factor {spacing:.3g} apart; measure more often"
    elif low > step or high < -step:
        outcome, reason = "not shown", f"{factors}, looks a factor {spacing:.3g} apart"
    elif low < -TOLERANCE or high > TOLERANCE:
        outcome, reason = "not resolved", f"{factors} reaches beyond √2"
    else:
        outcome, reason = "shown", f"{factors}, within √2"
    factor, least, most = (math.exp(value) for value in (mean, low, high))
    return Coincidence(seeds, factor, least, most, spacing, Verdict(claim, outcome, reason))
