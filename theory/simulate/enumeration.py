"""Enumerate every modular walk with its probability: the slow oracle of `theory.formulas.law`."""

from __future__ import annotations

import math
from collections import defaultdict

import numpy as np

from theory.values import Array


def enumerated_law(
    length: int,
    *,
    vocab: int,
    modulus_min: int = 5,
    modulus_power: float = 1.3,
    offset_power: float = 1.2,
    step_fraction: float = 0.125,
    noncoprime: float = 0.3,
) -> dict[tuple[int, ...], Array]:
    """Return p(next | prefix), (V,), for every prefix of 0 to `length` tokens that a walk has.

    Every (c, o, d, a) is walked, about V⁴/12 of them; settings as of `theory.formulas.law.WalkLaw`.

    >>> law = enumerated_law(1, vocab=5)
    >>> len(law), law[()].round(3).tolist()
    (6, [0.2, 0.2, 0.2, 0.2, 0.2])
    """
    chance: dict[tuple[int, ...], float] = defaultdict(float)
    moduli = range(modulus_min, vocab + 1)
    # In units of the smallest modulus: c^−α of all moduli may underflow.
    of_all_moduli = sum((c / modulus_min) ** -modulus_power for c in moduli)
    for c in moduli:
        of_c = (c / modulus_min) ** -modulus_power / of_all_moduli
        offsets = range(vocab - c + 1)
        of_all_offsets = sum((o + 1) ** -offset_power for o in offsets)
        for d, of_d in _step_chances(c, step_fraction, noncoprime).items():
            for o in offsets:
                of_o = (o + 1) ** -offset_power / of_all_offsets
                for a in range(c):
                    walk = tuple(o + (a + d * k) % c for k in range(length + 1))
                    chance[walk] += of_c * of_d * of_o / c
    return _conditional(chance, vocab, length)


def _step_chances(c: int, step_fraction: float, noncoprime: float) -> dict[int, float]:
    """Return p(d | c) of the d that have a chance."""
    found: dict[int, float] = defaultdict(float)
    drawn = range(max(1, math.floor(c * step_fraction)), c)
    divisors = [g for g in range(2, c) if c % g == 0 and g * g <= c]
    for d in drawn:
        found[d] += (1 - noncoprime if divisors else 1.0) / len(drawn)
        for g in divisors:
            found[max(d - d % g, g)] += noncoprime / len(divisors) / len(drawn)
    return {d: p for d, p in found.items() if p > 0}


def _conditional(
    chance: dict[tuple[int, ...], float], vocab: int, length: int
) -> dict[tuple[int, ...], Array]:
    joint: dict[tuple[int, ...], Array] = defaultdict(lambda: np.zeros(vocab))
    for walk, p in chance.items():
        if p == 0:
            continue
        for k in range(length + 1):
            joint[walk[:k]][walk[k]] += p
    return {prefix: row / row.sum() for prefix, row in joint.items()}
