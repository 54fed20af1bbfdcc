"""Choose a threshold on control runs such that another run like them exceeds it with at most a given probability."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sims.analysis.roc import clopper_pearson
from sims.system.errors import MeasureError

# A share of runs below any that a handful of them can tell apart.
LEAST = 1e-3


@dataclass(frozen=True)
class Threshold:
    """Hold a threshold of whole runs, and how often runs like the controls exceed it.

    Attributes:
        value: the threshold.
        alpha: the probability that was asked for.
        controls: n, control runs.
        false: controls that exceed the threshold of the others (leave one out).
        low, high: 95 % of the share of such runs (Clopper–Pearson).
    """

    value: float
    alpha: float
    controls: int
    false: int
    low: float
    high: float

    @property
    def told(self) -> str:
        """Return the rate of false alarms in words: what is asked for, and what was measured."""
        return (
            f"at most {self.alpha:.0%} of runs like the controls reach it in their whole length; measured, each "
            f"control by the threshold of the others: {self.false} of {self.controls} [{self.low:.2f}, {self.high:.2f}]"
        )


def conformal_threshold(largest: Sequence[float], alpha: float) -> Threshold:
    """Return the threshold that another run exceeds with a probability of at most α, whatever the law of the runs.

    It is the ⌈(n+1)(1−α)⌉-th smallest of the largest values of the n controls. The bound holds on average over sets of
    controls, if controls and the other run are exchangeable: drawn alike, and looked at as often.

    Args:
        largest: for each control the largest value of its whole run, or another number that it sounds an alarm above.
        alpha: in (0.001, 1).

    Raises:
        MeasureError: α out of range, a value that is missing, or fewer than 1/α controls.

    >>> conformal_threshold([3.0, 1.0, 2.0, 4.0, 9.0], alpha=0.4).value
    4.0
    """
    if not LEAST < alpha < 1:
        raise MeasureError(f"alpha is {alpha:g}; it is a probability of false alarms, such as 0.1")
    values = np.sort(np.asarray(largest, float))
    n, needed = len(values), math.ceil(1 / alpha)
    if n < needed:
        raise MeasureError(
            f"there are {n} control runs; a rate of false alarms of {alpha:g} needs {needed}; train more, or "
            "raise alpha"
        )
    if np.isnan(values).any():
        raise MeasureError("a control run has no value; leave it out, or measure it as often as the others")
    false = sum(float(value) > _at(np.delete(values, i), alpha) for i, value in enumerate(values))
    return Threshold(_at(values, alpha), alpha, n, false, *clopper_pearson(false, n))


def _at(values: np.ndarray, alpha: float) -> float:
    # (n+1)(1−α) may be a whole number up to rounding.
    return float(values[math.ceil((len(values) + 1) * (1 - alpha) - 1e-9) - 1])


def largest_held(values: Sequence[float]) -> float:
    """Return the largest level that is held at two looks in a row; NaN where no two have a value.

    >>> largest_held([1.0, 5.0, 2.0, 3.0])
    2.0
    """
    series = np.asarray(values, float)
    pairs = np.minimum(series[:-1], series[1:])
    return float(np.nanmax(pairs)) if (~np.isnan(pairs)).any() else math.nan
