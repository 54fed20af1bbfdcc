"""When a run memorises, when it generalises, and whether the second came late enough to be called delayed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sims.system.errors import MeasureError

# Training accuracy that counts as memorised, and test accuracies that are timed.
MEMORISED = 0.98
LEVELS = (0.1, 0.5, 0.9)
# Generalisation is delayed where it takes this many times the steps of memorisation, from at most this test accuracy.
LATER = 2.0
STILL_LOW = 0.5


@dataclass(frozen=True)
class Timing:
    """Hold the steps at which a run reached accuracies, each the first of two consecutive looks that are at it.

    Attributes:
        memorised: step of training accuracy ≥ 0.98; None where it was not reached.
        reached: for each of the test accuracies 0.1, 0.5 and 0.9 its step, or None.
        test_at_memorised: test accuracy at the step of `memorised`; None without one.
        delayed: whether test accuracy 0.9 came at least twice as late as memorisation, which found it at most at 0.5.
        reason: why it is not delayed; empty where it is.
    """

    memorised: int | None
    reached: dict[float, int | None]
    test_at_memorised: float | None
    delayed: bool
    reason: str


def first_held(steps: Sequence[int], values: Sequence[float], level: float) -> int | None:
    """Return the first step at which a value is at least the level, at this look and the next; None without one.

    The last look has no next, so it never counts.

    Raises:
        MeasureError: steps that do not rise, another number of values, or a value that is no share.
    """
    x, y = np.asarray(steps), np.asarray(values, float)
    if x.ndim != 1 or x.shape != y.shape or not (np.diff(x) > 0).all():
        raise MeasureError(
            f"there are {x.size} steps and {y.size} accuracies; give one accuracy for each of rising steps"
        )
    outside = ~((y >= 0) & (y <= 1))
    if outside.any():
        raise MeasureError(
            f"the accuracy at step {x[outside][0]} is {y[outside][0]}; accuracies lie between 0 and 1"
        )
    held = np.flatnonzero((y[:-1] >= level) & (y[1:] >= level))
    return int(x[held[0]]) if len(held) else None


def timing(steps: Sequence[int], train: Sequence[float], test: Sequence[float]) -> Timing:
    """Return when a run memorised and generalised, and whether its generalisation was delayed.

    Args:
        steps: rising steps of the looks.
        train, test: accuracies on training and on other sequences at these steps, between 0 and 1.

    Raises:
        MeasureError: as `first_held`.
    """
    memorised = first_held(steps, train, MEMORISED)
    reached = {level: first_held(steps, test, level) for level in LEVELS}
    at = None if memorised is None else float(test[list(steps).index(memorised)])
    reason = _not_delayed(memorised, reached[LEVELS[-1]], at)
    return Timing(memorised, reached, at, not reason, reason)


def _not_delayed(memorised: int | None, generalised: int | None, test: float | None) -> str:
    if memorised is None or test is None:
        return f"training accuracy {MEMORISED} was not held at two looks"
    if generalised is None:
        return f"test accuracy {LEVELS[-1]} was not held at two looks"
    if test > STILL_LOW:
        return f"test accuracy was {test:.3g} already at step {memorised}, when training was memorised"
    if generalised < LATER * memorised:
        return f"test accuracy {LEVELS[-1]} came at step {generalised}, before twice the {memorised} of memorisation"
    return ""
