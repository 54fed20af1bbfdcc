"""When ours agrees with a published figure, when it disagrees, and when it cannot tell.

A number was published from one seed, so it is set against the interval in which one further seed of ours would fall
(mean ± t·s·√(1 + 1/n)), not against the narrower interval of our mean. Published runs had other data, too: where runs
of the cell on other data are there, the interval reaches as far as that in which one of those would fall.

number: disagrees if that interval excludes it (to its printed digits), and agrees if it holds it and lies between half
    and double of it, a change only if ours is told from 0 in the same direction: a wider interval holds too much.
direction: agrees or disagrees if our 95 % interval lies on one side of 0; otherwise nothing can be told.
rank correlation: agrees if the permutation test is significant at 5 %; disagrees if it could have been significant and
    even the seeds' interval stays below the published size; otherwise nothing can be told.

Numbers of another size of model or task are not comparable and get no verdict; directions and associations carry over.
Of runs of the published size, a figure whose cells are not all there gets no verdict either: a mean over two of three
batch sizes is another number.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sims.analysis.ranges import REAL, Range
from sims.studies.paper.published import PUBLISHED, Published
from theory.decision import decide, has_width, side, why_undecided

AGREES, DISAGREES, CANNOT_TELL = "agrees", "disagrees", "cannot tell"
NOT_COMPARABLE = "not comparable at this size"
# Runs of the published size, of which a cell that the published figure was read from is missing.
NOT_RUN = "not run yet"
VERDICTS = (DISAGREES, AGREES, CANNOT_TELL, NOT_COMPARABLE, NOT_RUN)
WITHOUT = (NOT_COMPARABLE, NOT_RUN)
SIGNIFICANT = 0.05
# An interval that reaches from less than a half to more than double a published number agrees with too much.
WIDEST = 2.0


@dataclass(frozen=True)
class Ours:
    """What we measured of the same quantity.

    Attributes:
        value, low, high: mean and 95 % interval over seeds; NaN bounds where there is none.
        seeds: how many.
        p, p_min: of a permutation test, and the smallest p that its number of units allows; NaN where none was made.
        note: what a reader must know about it.
        within: the values that it can take.
        on_data: bounds within which one further run on other data would fall; None where none was made.
    """

    value: float
    low: float = math.nan
    high: float = math.nan
    seeds: int = 1
    p: float = math.nan
    p_min: float = math.nan
    note: str = ""
    within: Range = REAL
    on_data: tuple[float, float] | None = None

    def one_more_seed(self) -> tuple[float, float]:
        """Return bounds within which one further seed would fall: the interval widened by √(n + 1), on its scale."""
        return self.within.widened(self.value, self.low, self.high, math.sqrt(self.seeds + 1))

    def one_more_run(self) -> tuple[float, float]:
        """Return bounds within which one further seed would fall, or one further run on other data."""
        low, high = self.one_more_seed()
        if self.on_data is None or not all(map(math.isfinite, self.on_data)):
            return low, high
        return min(low, self.on_data[0]), max(high, self.on_data[1])


@dataclass(frozen=True)
class Check:
    """A published figure, ours, and what follows.

    Attributes:
        published, ours: the two.
        verdict: one of `VERDICTS`.
        reason: why, in words.
        figure: the name of the figure it belongs to.
    """

    published: Published
    ours: Ours
    verdict: str
    reason: str
    figure: str


def record(check: Check) -> dict[str, Any]:
    """Return a published figure and ours as plain values."""
    published, ours = check.published, check.ours
    return {
        **{name: getattr(published, name) for name in ("key", "source", "statement", "value", "sign")},
        **{f"our_{name}": getattr(ours, name) for name in ("value", "low", "high", "seeds", "p")},
        **{name: getattr(check, name) for name in ("verdict", "reason", "figure")},
    }


def check(key: str, ours: Ours, figure: str, comparable: bool, missing: Sequence[str] = ()) -> Check:
    """Judge one published figure (see the module).

    Args:
        key: of `published.PUBLISHED`.
        comparable: whether our runs have the published size, task and budget.
        missing: cells that the published figure was read from and that our runs do not have.
    """
    published = PUBLISHED[key]
    if missing:
        return Check(published, ours, NOT_RUN, f"no run of {', '.join(missing)}", figure)
    if published.association:
        verdict, reason = _association(published, ours, comparable)
    elif published.sign:
        verdict, reason = _direction(published, ours)
    elif not comparable:
        verdict, reason = NOT_COMPARABLE, "another size of model, task or budget"
    else:
        verdict, reason = _number(published, ours)
    return Check(published, ours, verdict, "; ".join(r for r in (reason, ours.note) if r), figure)


def absolute(low: float, high: float) -> tuple[float, float]:
    """Return bounds of |x| from bounds of x."""
    smaller, larger = sorted((abs(low), abs(high)))
    return (0.0 if low <= 0 <= high else smaller), larger


def _number(published: Published, ours: Ours) -> tuple[str, str]:
    if not (math.isfinite(ours.low) and math.isfinite(ours.high) and has_width(ours.low, ours.high)):
        return CANNOT_TELL, _undecided(ours)
    low, high = ours.one_more_run()
    rounding = 0.5 * 10.0**-published.digits
    one = "seed" if ours.on_data is None else "seed, or one on other data,"
    told = f"one further {one} would fall in [{low:.4g}, {high:.4g}]"
    if decide(published.value - rounding, published.value + rounding, low, high) == "outside":
        return DISAGREES, told
    if published.change and side(ours.low, ours.high) != math.copysign(1, published.value):
        return CANNOT_TELL, "our interval holds it, and 0 or the other direction as well"
    least, most = sorted((published.value / WIDEST, published.value * WIDEST))
    if decide(low, high, least, most) != "inside":
        return CANNOT_TELL, f"{told}, which holds it, and {WIDEST:g} times more or less as well"
    return AGREES, told


def _direction(published: Published, ours: Ours) -> tuple[str, str]:
    found = published.sign * side(ours.low, ours.high)
    if not (math.isfinite(ours.low) and math.isfinite(ours.high)):
        return CANNOT_TELL, _undecided(ours)
    if math.isfinite(ours.p) and ours.p > SIGNIFICANT:
        limit = f" (the smallest possible is {ours.p_min:.2g})" if ours.p_min > SIGNIFICANT else ""
        return CANNOT_TELL, f"p = {ours.p:.2g}{limit}"
    if found:
        where = "on the published side" if found > 0 else "on the other side"
        return AGREES if found > 0 else DISAGREES, f"the interval lies {where} of 0"
    return CANNOT_TELL, _undecided(ours)


def _undecided(ours: Ours) -> str:
    """Say why an interval decides nothing; seeds may be there, and a value may not."""
    if math.isnan(ours.value) and ours.seeds > 1:
        return "no value"
    return why_undecided(ours.low, ours.high)


def _association(published: Published, ours: Ours, comparable: bool) -> tuple[str, str]:
    if not math.isfinite(ours.p):
        return CANNOT_TELL, "not tested"
    if ours.p_min > SIGNIFICANT:
        return (
            CANNOT_TELL,
            f"no outcome could be significant here: the smallest possible p is {ours.p_min:.2g}",
        )
    if ours.p <= SIGNIFICANT:
        return AGREES, f"p = {ours.p:.2g}"
    if comparable and side(ours.low, ours.high, published.value) < 0:
        return DISAGREES, f"p = {ours.p:.2g}, and |ρ| stays below {ours.high:.2f} over seeds"
    return CANNOT_TELL, f"p = {ours.p:.2g}"
