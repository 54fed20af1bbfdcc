"""Share strategies among the families: seeds, odd moduli, arrays rebuilt from a case."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from theory.values import Array, Case

SEEDS = st.integers(1, 2**31 - 1)


def generator(case: Case, stream: int = 0) -> np.random.Generator:
    """Return the random generator of a case's arrays.

    ``stream`` separates independent uses of the same seed.
    """
    return np.random.default_rng([case["seed"], stream])


def odd(low: int, high: int) -> st.SearchStrategy[int]:
    """Draw odd integers low ≤ c ≤ high, low odd."""
    return st.integers(0, (high - low) // 2).map(lambda i: low + 2 * i)


def record(**fields: st.SearchStrategy[object]) -> st.SearchStrategy[dict[str, Any]]:
    """Draw cases with independent fields."""
    return st.fixed_dictionaries(fields)


def log_uniform(rng: np.random.Generator, low: float, high: float, size: int) -> Array:
    """Draw (size,) values between low and high whose logarithms are uniform."""
    return np.exp(rng.uniform(np.log(low), np.log(high), size))


def reals(low: float, high: float) -> st.SearchStrategy[float]:
    """Draw finite floats in [low, high], rounded to six digits so that a counterexample is easy to read."""
    return st.floats(low, high, allow_nan=False, allow_subnormal=False).map(lambda x: round(x, 6))
