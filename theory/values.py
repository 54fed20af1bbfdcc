"""The values that pass between a claim, its measurement and its comparison."""

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
    """Cost of a check: number of distinct cases and of Monte Carlo draws a case (ignored by exact checks)."""

    cases: int
    draws: int = 1


@dataclass(frozen=True)
class Sampling:
    """What a measurement may use: its own generator and the number of draws it is allowed."""

    rng: np.random.Generator
    draws: int


@dataclass(frozen=True)
class Measurement:
    """Measured values with one standard error each (0 for an exact computation)."""

    value: Array
    stderr: Array

    @classmethod
    def exact(cls, value: ArrayLike) -> Measurement:
        """A measurement without sampling error; ``value`` is flattened to (k,)."""
        flat = np.asarray(value, dtype=np.float64).ravel()
        return cls(flat, np.zeros_like(flat))

    @classmethod
    def mean_of(cls, draws: ArrayLike) -> Measurement:
        """Mean over independent draws (n, k), with standard error std/√n, ddof 1.

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
    """Largest accepted error: ``absolute + relative·|predicted| + sigmas·stderr``, and why that much.

    ``absolute`` is one number, or one a component where components have different units.
    """

    reason: str
    absolute: float | tuple[float, ...] = 0.0
    relative: float = 0.0
    sigmas: float = 0.0

    def allowed(self, predicted: Array, stderr: Array) -> Array:
        """(k,) accepted error of each component."""
        return np.asarray(self.absolute) + self.relative * np.abs(predicted) + self.sigmas * stderr
