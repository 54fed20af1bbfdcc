"""Draw modular walks from their laws, for Monte Carlo checks of `theory.formulas.law`."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray


def draw_walks(
    rng: np.random.Generator,
    walks: int,
    length: int,
    *,
    vocab: int,
    modulus_min: int = 5,
    modulus_power: float = 1.3,
    offset_power: float = 1.2,
    step_fraction: float = 0.125,
    noncoprime: float = 0.3,
) -> NDArray[np.int64]:
    """Draw (walks, length) tokens, one walk after the other; settings as of `theory.formulas.law.WalkLaw`.

    >>> draw_walks(np.random.default_rng(0), walks=2, length=3, vocab=8).shape
    (2, 3)
    """
    moduli = np.arange(modulus_min, vocab + 1)
    # In units of the smallest modulus: c^−α of all moduli may underflow.
    chances = (moduli / modulus_min) ** -modulus_power
    tokens = np.empty((walks, length), np.int64)
    for row, c in zip(
        tokens, rng.choice(moduli, size=walks, p=chances / chances.sum()).tolist(), strict=True
    ):
        weights = np.arange(1, vocab - c + 2.0) ** -offset_power
        o = rng.choice(len(weights), p=weights / weights.sum())
        d = int(rng.integers(max(1, math.floor(c * step_fraction)), c))
        divisors = [g for g in range(2, math.isqrt(c) + 1) if c % g == 0]
        if divisors and rng.random() < noncoprime:
            g = divisors[rng.integers(len(divisors))]
            d = max(d // g * g, g)
        row[:] = o + (rng.integers(c) + d * np.arange(length)) % c
    return tokens
