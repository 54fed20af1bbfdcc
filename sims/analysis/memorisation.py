"""Find when a language model agrees most with the n-grams of its training text, and what happens at that time.

The peak of a curve is its highest look. What decides whether it is one is how far the end lies below it: each seed is
read at the highest look of the other seeds' mean, as a peak of its own would lie above the end by chance.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from sims.analysis.geometry import AGREEING, ALPHA_OPPOSITE, ENTROPY, UNKNOWN, Phase, Phases
from sims.analysis.geometry_claims import whole_phases
from sims.analysis.intervals import mean_interval, student
from sims.analysis.resampling import LEAST_SEEDS
from sims.analysis.verdicts import Outcome, Verdict
from sims.pages.number import counted
from sims.system.errors import MeasureError
from theory.decision import Decision, decide, side, why_undecided

# A peak lies between two others.
LEAST_LOOKS = 3
OUTCOMES: dict[Decision, Outcome] = {"inside": "shown", "outside": "not shown", "undecided": "not resolved"}


@dataclass(frozen=True, eq=False)
class Peak:
    """Hold where the curves of some seeds are highest.

    Attributes:
        name: of the curve, such as "ρ of the 2-gram".
        looks: (n,) tokens.
        curves: (seeds, n).
        tokens: (seeds,) of the highest look of each seed.
        values: (seeds,) there.
        ends: (seeds,) at the last look.
        first, last: tokens of the first and the last look.
        spacing: largest factor between neighbouring looks around the peaks.
        fall: mean over seeds of how far the end lies below the highest look of the other seeds; NaN for one seed.
        low, high: its 95 % interval of Student's t.
        spread: standard deviation of the ends over seeds.
        rising: share of seeds whose highest look is the last.
        verdict: on whether there is a peak.
    """

    name: str
    looks: np.ndarray
    curves: np.ndarray
    tokens: np.ndarray
    values: np.ndarray
    ends: np.ndarray
    first: float
    last: float
    spacing: float
    fall: float
    low: float
    high: float
    spread: float
    rising: float
    verdict: Verdict

    @property
    def seeds(self) -> int:
        """Return the number of seeds."""
        return len(self.tokens)

    @property
    def place(self) -> float:
        """Return the geometric mean of the tokens."""
        return math.exp(float(np.log(self.tokens).mean()))

    @property
    def found(self) -> bool:
        """Return whether there is a peak."""
        return self.verdict.outcome == "shown"

    @property
    def times(self) -> np.ndarray:
        """Return the tokens (seeds,) of the peak; NaN where there is none."""
        return self.tokens if self.found else np.full(self.seeds, math.nan)

    @property
    def sentence(self) -> str:
        """Return the verdict as one sentence."""
        return self.verdict.sentence

    def row(self) -> dict[str, object]:
        """Return the numbers and the verdict as a row of a table; tokens are their geometric mean."""
        numbers = ("first", "last", "spacing", "fall", "low", "high", "spread", "rising")
        return {
            "name": self.name,
            "seeds": self.seeds,
            "tokens": self.place,
            "tokens_min": float(self.tokens.min()),
            "tokens_max": float(self.tokens.max()),
            "value": float(self.values.mean()),
            "end": float(self.ends.mean()),
            **{name: getattr(self, name) for name in numbers},
            **self.verdict.row(),
        }


def peak(tokens: np.ndarray, values: np.ndarray, name: str = "The curve") -> Peak:
    """Say whether curves peak before their end, and where.

    They do if the end lies below the peak by more than it differs between seeds, and the 95 % interval of that fall
    lies above 0.

    Args:
        tokens: (n,) positive and rising.
        values: (seeds, n), or (n,) of one seed.
        name: of the curve.

    Returns:
        "not shown" where two thirds of the seeds are highest at the last look: they are still rising; "not resolved"
        where the fall is not decided, and with fewer than three seeds.

    Raises:
        MeasureError: fewer than three looks, tokens that do not rise, values that are not finite, other shapes.

    >>> tokens = np.geomspace(1, 100, 5)
    >>> peak(tokens, [[0.1, 0.8, 0.9, 0.6, 0.4], [0.1, 0.8, 0.9, 0.6, 0.41], [0.2, 0.7, 0.9, 0.6, 0.4]]).place
    10.000000000000002
    """
    x, y = _checked(tokens, values)
    seeds = len(y)
    top = y.argmax(axis=1)
    fall = _below_top(y, np.full(seeds, len(x) - 1))
    spread = float(y[:, -1].std(ddof=1)) if seeds >= LEAST_SEEDS else math.nan
    rising = float(np.mean(top == len(x) - 1))
    verdict = _peak_verdict(name, seeds, rising, fall, spread)
    return Peak(
        name,
        x,
        y,
        x[top],
        y.max(axis=1),
        y[:, -1],
        float(x[0]),
        float(x[-1]),
        spacing_around(x, x[top]),
        *fall,
        spread,
        rising,
        verdict,
    )


def _checked(tokens: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    x, y = np.asarray(tokens, float), np.atleast_2d(np.asarray(values, float))
    if x.ndim != 1 or y.ndim != 2 or y.shape[1] != len(x) or not len(y):
        raise MeasureError(
            f"tokens have shape {x.shape} and values {np.shape(values)}; they must be (n,) and (n,) or (seeds, n)"
        )
    if len(x) < LEAST_LOOKS:
        raise MeasureError(
            f"there are {len(x)} looks after the start; a peak needs three: measure more often"
        )
    if not np.isfinite(x).all() or not (x > 0).all() or not (np.diff(x) > 0).all():
        raise MeasureError("tokens must be positive and rise; leave out the start, which has no logarithm")
    if not np.isfinite(y).all():
        raise MeasureError("values must be finite; leave out looks at which a seed has none")
    return x, y


def _below_top(y: np.ndarray, places: np.ndarray) -> tuple[float, float, float]:
    """Return how far curves (seeds, n) at places (seeds,) lie below the highest look of the others, with an interval.

    NaN for one seed; the interval is NaN with fewer than three.
    """
    seeds = len(y)
    if seeds < 2:
        return math.nan, math.nan, math.nan
    tops = [np.delete(y, s, axis=0).mean(axis=0).argmax() for s in range(seeds)]
    each = np.arange(seeds)
    return mean_interval(y[each, tops] - y[each, places], least=LEAST_SEEDS)


def _peak_verdict(
    name: str, seeds: int, rising: float, fall: tuple[float, float, float], spread: float
) -> Verdict:
    claim = f"{name} peaks before the end"
    mean, low, high = fall
    if seeds < LEAST_SEEDS:
        return Verdict(claim, "not resolved", f"{counted(seeds, 'seed')}, of {LEAST_SEEDS} needed")
    if rising >= AGREEING - 1e-9:
        return Verdict(
            claim, "not shown", f"still rising: {rising:.0%} of the seeds are highest at the last look"
        )
    numbers = f"the end lies {mean:.2g} [{low:.2g}, {high:.2g}] below, seeds differ by {spread:.2g} there"
    if mean <= spread:
        return Verdict(claim, "not resolved", f"{numbers}, which is no less: level, or still rising")
    if side(low, high) != 1:
        return Verdict(claim, "not resolved", f"{numbers}; {why_undecided(low, high)}")
    return Verdict(claim, "shown", numbers)


def spacing_around(tokens: np.ndarray, times: np.ndarray) -> float:
    """Return the largest factor between neighbouring looks next to some times; NaN among these is left out.

    >>> spacing_around(np.array([1.0, 2.0, 6.0, 7.0]), np.array([1.0, math.nan]))
    2.0
    """
    known = times[~np.isnan(times)]
    near = [
        b / a for a, b in pairwise(tokens) if any(a <= t * (1 + 1e-9) and t <= b * (1 + 1e-9) for t in known)
    ]
    return float(max(near, default=1.0))


@dataclass(frozen=True)
class Order:
    """Hold by which factor one peak is later than another.

    Attributes:
        factor, low, high: second over first, with its 95 % interval over seeds, widened by the distance of looks; no
            upper bound where the second has no peak.
        verdict: on whether it is later.
    """

    factor: float
    low: float
    high: float
    verdict: Verdict

    def row(self) -> dict[str, object]:
        """Return the numbers and the verdict as a row of a table."""
        return {"factor": self.factor, "low": self.low, "high": self.high, **self.verdict.row()}


def later(first: Peak, second: Peak, factor: float = 1.0) -> Order:
    """Say whether a curve is highest later than the peak of another by more than a factor, paired by seed.

    Args:
        first, second: of the same seeds, in one order.
        factor: at least 1.

    Returns:
        "not shown" where the interval lies below the factor; "not resolved" where it holds it, and where the first has
        no peak. A second without a peak, which may still rise, is taken at its highest looks, and has no upper bound;
        it must have risen since the peak of the first.

    Raises:
        MeasureError: other seeds, or a factor below 1.
    """
    if first.seeds != second.seeds or not 1 <= factor < math.inf:
        raise MeasureError(
            f"peaks of {first.seeds} and {second.seeds} seeds and a factor of {factor}; pass the same seeds, and a "
            "factor of at least 1"
        )
    by = "" if factor == 1 else f" by a factor {factor:g}"
    claim = f"{second.name} is highest later than {first.name}{by}"
    ratio = np.log(second.tokens / first.tokens)
    mean, half = float(ratio.mean()), math.nan
    if len(ratio) >= LEAST_SEEDS:
        step = math.log(max(first.spacing, second.spacing))
        half = student(len(ratio) - 1) * float(ratio.std(ddof=1)) / math.sqrt(len(ratio)) + step
    low, high = math.exp(mean - half), math.exp(mean + half) if second.found else math.inf
    if not first.found:
        return Order(math.exp(mean), low, high, Verdict(claim, "not resolved", first.sentence.rstrip(".")))
    said = f"factor {math.exp(mean):.3g} [{low:.3g}, {high:.3g}]"
    outcome = OUTCOMES[decide(low, high, least=factor)]
    if not second.found:
        open_ = (
            "is still rising at the end" if second.verdict.outcome == "not shown" else "has no certain peak"
        )
        said = f"factor {math.exp(mean):.3g}, at least {low:.3g}: {second.name} {open_}"
        since = np.abs(np.log(second.looks) - np.log(first.tokens)[:, None]).argmin(axis=1)
        if side(*_below_top(second.curves, since)[1:]) != 1:
            outcome, said = "not resolved", f"{said}, and has not certainly risen since"
    return Order(math.exp(mean), low, high, Verdict(claim, outcome, said))


def peaks_within(found: Peak, phases: Phases, label: str = ENTROPY) -> Verdict:
    """Say whether a peak lies in a phase of the geometry, in two thirds of the seeds.

    Args:
        found: of the same seeds as the phases, three or more.
        phases: of the set.
        label: of the phase.

    Returns:
        "not shown" where it lies outside, where there is no such phase, and where the curve is still rising after its
        end; "not resolved" with fewer seeds, where the peak or the phases are not, where the phase rests on RankMe
        only, and after its start where `?` follows, since its end is then not supported.
    """
    claim = f"{found.name} peaks within phase {label}"
    own = [phase for phase in whole_phases(phases) if phase.label == label]
    if found.seeds < LEAST_SEEDS:
        return Verdict(claim, "not resolved", f"{counted(found.seeds, 'seed')}, of {LEAST_SEEDS} needed")
    if phases.status == "not fitted" or (not own and UNKNOWN in phases.word):
        return Verdict(claim, "not resolved", phases.reason)
    if not own:
        return Verdict(claim, "not shown", f"the states go through {phases.word}")
    if any(phase.support != ALPHA_OPPOSITE for phase in own):
        return Verdict(claim, "not resolved", f"{label} rests on RankMe only")
    shown = ", ".join(f"{phase.start:.3g} to {phase.end:.3g}" for phase in own)
    open_ = phases.word.endswith(label + UNKNOWN)
    ended = not open_ and own[-1].end < found.last * (1 - 1e-9)
    if found.verdict.outcome == "not shown" and ended:
        return Verdict(claim, "not shown", f"still rising at the end, after the phase ({shown} tokens)")
    unsupported = f"the end of the phase is not supported: {phases.reason}"
    if found.verdict.outcome == "not shown" and open_:
        return Verdict(claim, "not resolved", f"still rising at the end, and {unsupported}")
    if not found.found:
        return Verdict(claim, "not resolved", found.verdict.reason)
    closed = own[:-1] if open_ else own
    inside = [any(phase.start <= t <= phase.end for phase in closed) for t in found.tokens]
    possible = [i or (open_ and t >= own[-1].start) for i, t in zip(inside, found.tokens, strict=True)]
    said = f"{sum(inside)} of {counted(found.seeds, 'seed')}; the phase is from {shown} tokens"
    if np.mean(inside) >= AGREEING - 1e-9:
        return Verdict(claim, "shown", said)
    if np.mean(possible) >= AGREEING - 1e-9:
        return Verdict(claim, "not resolved", unsupported)
    return Verdict(claim, "not shown", said)


def extremum(tokens: np.ndarray, values: np.ndarray, phases: Phases | None, letters: str) -> np.ndarray:
    """Return the tokens (seeds,) at which curves turn from one phase to the next, by their own least or largest look.

    Args:
        tokens: (n,) positive and rising.
        values: (seeds, n), such as RankMe.
        phases: of the set: the first neighbours with these letters are searched. Without phases (None) a least value
            is searched everywhere, and a largest one after it.
        letters: "WE" for the least value, "EC" for the largest.

    Returns:
        NaN where it is the first or the last of the looks that are searched, and where the phases have no such
        neighbours (`neighbours`).
    """
    if letters not in ("WE", "EC"):
        raise MeasureError(f"the turn is {letters!r}; choose WE (a least value) or EC (a largest one)")
    x, y = _checked(tokens, values)
    least = letters == "WE"
    found = np.full(len(y), math.nan)
    between = None if phases is None else neighbours(phases, letters)
    if phases is not None and between is None:
        return found
    for s, curve in enumerate(y):
        begin, end = between or (x[0] if least else x[curve.argmin()], x[-1])
        inside = np.flatnonzero((x >= begin * (1 - 1e-9)) & (x <= end * (1 + 1e-9)))
        part = curve[inside] if least else -curve[inside]
        place = int(part.argmin()) if len(part) else 0
        if 0 < place < len(inside) - 1:
            found[s] = x[inside[place]]
    return found


def neighbours(phases: Phases, letters: str) -> tuple[float, float] | None:
    """Return where the first two supported phases with these letters in a row begin and end; None without them.

    >>> from sims.analysis.geometry import Phase
    >>> phases = [Phase("W", 1, 4, -1, -2, -0.5, -1), Phase("?", 4, 9, 1, 0.5, 2, 1)]
    >>> print(neighbours(Phases("W?", "flagged", "", 3, 9, tuple(phases)), "WE"))
    None
    """
    found = _neighbours(phases, letters)
    return (found[0].start, found[1].end) if found else None


def alone(phases: Phases, letters: str) -> str:
    """Return those of two phases in a row that rest on RankMe only; empty without such phases."""
    found = _neighbours(phases, letters)
    return "".join(own.label for own in found or () if own.support != ALPHA_OPPOSITE)


def _neighbours(phases: Phases, letters: str) -> tuple[Phase, Phase] | None:
    for a, b in pairwise(whole_phases(phases)):
        if a.label + b.label == letters:
            return a, b
    return None
