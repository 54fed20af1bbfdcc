"""Decide what an interval says about a level or a range of values: the one rule behind every verdict."""

from __future__ import annotations

import math
from typing import Literal

Decision = Literal["inside", "outside", "undecided"]
# An interval narrower than this share of its bounds has no width but that of rounding.
ROUNDING = 1e-9


def decide(low: float, high: float, least: float = -math.inf, most: float = math.inf) -> Decision:
    """Decide whether a measured interval lies in a range of values, or out of it.

    It is "inside" or "outside" if all of it is, bounds of the range excluded: an interval that holds a level is never
    on one side of it. Everything else is "undecided": an interval across a bound, one that is missing (NaN), and one
    without a width, since a few seeds that agree by chance show no spread. Whatever narrower interval lies within a
    decided one is decided alike.

    Args:
        low, high: the measured interval; one of them may be infinite.
        least, most: the range.

    >>> decide(0.1, 0.3, least=0.0), decide(-0.3, -0.1, least=0.0), decide(0.0, 0.3, least=0.0)
    ('inside', 'outside', 'undecided')
    >>> decide(0.5, 0.5, least=0.0)
    'undecided'
    """
    if not has_width(low, high):
        return "undecided"
    if (least == -math.inf or low > least) and (most == math.inf or high < most):
        return "inside"
    return "outside" if high < least or low > most else "undecided"


def side(low: float, high: float, level: float = 0.0) -> int:
    """Return +1 where an interval lies above a level, −1 where it lies below, 0 where that is undecided.

    >>> side(0.1, 0.3), side(-0.3, -0.1), side(-0.1, 0.1), side(0.2, 0.2)
    (1, -1, 0, 0)
    """
    return {"inside": 1, "outside": -1, "undecided": 0}[decide(low, high, least=level)]


def has_width(low: float, high: float) -> bool:
    """Return whether an interval is one: not missing, not reversed, and wider than rounding.

    >>> has_width(0.1, 0.2), has_width(0.1, 0.1), has_width(float("nan"), 0.1), has_width(0.1, math.inf)
    (True, False, False, True)
    """
    if not low < high:
        return False
    return math.isinf(low) or math.isinf(high) or high - low > ROUNDING * max(abs(low), abs(high))


def why_undecided(low: float, high: float, level: float = 0.0) -> str:
    """Say why an interval is on no side of a level.

    >>> why_undecided(-0.1, 0.1)
    'the interval holds 0'
    """
    if math.isnan(low) or math.isnan(high):
        return "no interval: too few seeds"
    if not has_width(low, high):
        return "all seeds give one value, so that the interval has no width and decides nothing"
    return f"the interval holds {level:g}"
