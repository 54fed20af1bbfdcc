"""Define the values that a claim, its measurement and its comparison exchange."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
Case = Mapping[str, Any]


@dataclass(frozen=True)
class Effort:
    """Set how many distinct cases a check tests, and how many Monte Carlo draws it makes in each.

    Exact checks ignore the draws.

    >>> Effort(cases=20).draws
    1
    """

    cases: int
    draws: int = 1


@dataclass(frozen=True)
class Sampling:
    """Hold the generator and number of draws of a measurement.

    >>> Sampling(np.random.default_rng(0), draws=100).draws
    100
    """

    rng: np.random.Generator
    draws: int


@dataclass(frozen=True)
class Measurement:
    """Hold measured values (k,) and their standard errors (k,), which are 0 for an exact computation.

    >>> Measurement(np.array([1.0]), np.array([0.1])).stderr
    array([0.1])
    """

    value: Array
    stderr: Array

    @classmethod
    def exact(cls, value: ArrayLike) -> Measurement:
        """Make a measurement of values without sampling error, flattened to (k,)."""
        flat = np.asarray(value, dtype=np.float64).ravel()
        return cls(flat, np.zeros_like(flat))

    @classmethod
    def mean_of(cls, draws: ArrayLike) -> Measurement:
        """Average independent draws (n, k), with standard errors std/√n (ddof 1).

        Raises:
            ValueError: fewer than two draws, for which no error can be stated.
        """
        x = np.asarray(draws, dtype=np.float64)
        if x.shape[0] < 2:
            raise ValueError(f"{x.shape[0]} draw(s) given; a standard error needs at least 2")
        x = x.reshape(x.shape[0], -1)
        return cls(x.mean(0), x.std(0, ddof=1) / np.sqrt(x.shape[0]))


@dataclass(frozen=True)
class Tolerance:
    """Set the largest accepted error, ``absolute + relative·|predicted| + sigmas·stderr``, and its reason.

    ``absolute`` and ``relative`` are one number, or one for each component where components differ in units or errors.

    >>> Tolerance("5 standard errors", sigmas=5.0).allowed(np.array([2.0]), np.array([0.1]))
    array([0.5])
    """

    reason: str
    absolute: float | tuple[float, ...] = 0.0
    relative: float | tuple[float, ...] = 0.0
    sigmas: float = 0.0

    def allowed(self, predicted: Array, stderr: Array) -> Array:
        """Return the (k,) accepted error of each component."""
        return (
            np.asarray(self.absolute) + np.asarray(self.relative) * np.abs(predicted) + self.sigmas * stderr
        )
