"""Choose a threshold on control runs such that another run like them exceeds it with at most a given probability."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from sims.system.errors import MeasureError

# A share of runs below any that a handful of them can tell apart.
LEAST = 1e-3


@dataclass(frozen=True)
class Threshold:
    """Hold a threshold of whole runs, and how often runs like the controls exceed it.

    How many controls exceed the threshold of the others is no measurement of that: it follows from their number.

    Attributes:
        value: the threshold.
        alpha: the probability that was asked for, on average over sets of controls.
        controls: n, control runs.
        low, high: between which the probability of these controls' threshold lies in 95 % of sets of n: the (n+1−k, k)
            Beta law of the share beyond the k-th smallest of n (a share with ties is smaller).
    """

    value: float
    alpha: float
    controls: int
    low: float
    high: float

    @property
    def told(self) -> str:
        """Return the rate of false alarms in words: on average, and of one set of controls."""
        return (
            f"at most {100 * self.alpha:.3g}% of runs like the controls exceed it in their whole length, on average "
            f"over sets of {self.controls} controls; of one such set it is {self.low:.2f} to {self.high:.2f} (95 %)"
        )


def conformal_threshold(largest: Sequence[float], alpha: float) -> Threshold:
    """Return the threshold that another run exceeds with a probability of at most α, whatever the law of the runs.

    It is the ⌈(n+1)(1−α)⌉-th smallest of the largest values of the n controls. The bound holds on average over sets of
    controls, if controls and the other run are exchangeable: drawn alike, and looked at as often.

    Args:
        largest: for each control the largest value of its whole run, or another number that it sounds an alarm above.
        alpha: in (0.001, 1).

    Raises:
        MeasureError: α out of range, a value that is missing, or fewer than 1/α − 1 controls.

    >>> conformal_threshold([3.0, 1.0, 2.0, 4.0, 9.0], alpha=0.4).value
    4.0
    """
    if not LEAST < alpha < 1:
        raise MeasureError(f"alpha is {alpha:g}; it is a probability of false alarms, such as 0.1")
    values = np.sort(np.asarray(largest, float))
    # Of n controls the largest value itself is exceeded with probability 1/(n+1).
    n, needed = len(values), max(1, math.ceil(1 / alpha - 1 - 1e-9))
    if n < needed:
        raise MeasureError(
            f"there are {n} control runs; a rate of false alarms of {alpha:g} needs {needed}; train more, or "
            "raise alpha"
        )
    if np.isnan(values).any():
        raise MeasureError("a control run has no value; leave it out, or measure it as often as the others")
    # (n+1)(1−α) may be a whole number up to rounding.
    k = math.ceil((n + 1) * (1 - alpha) - 1e-9)
    low, high = stats.beta.ppf([0.025, 0.975], n + 1 - k, k)
    return Threshold(float(values[k - 1]), alpha, n, float(low), float(high))


def largest_held(values: ArrayLike) -> float:
    """Return the largest level that is held at two looks in a row; NaN where no two have a value.

    >>> largest_held([1.0, 5.0, 2.0, 3.0])
    2.0
    """
    series = np.asarray(values, float)
    pairs = np.minimum(series[:-1], series[1:])
    return float(np.nanmax(pairs)) if (~np.isnan(pairs)).any() else math.nan
