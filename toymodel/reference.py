"""Slow oracles of the subject: the toy task written as a plain loop over sequences.

Nothing here is shared with :mod:`toymodel.task`: the laws are written out per sequence and the walk follows
its recurrence. Tests compare the two in distribution, the benchmark compares their speed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from toymodel.task import TaskConfig


@dataclass(frozen=True)
class Walk:
    """One component of one sequence: modulus c, offset o, step d, phase a, and its weight in the mean."""

    c: int
    o: int
    d: int
    a: int
    weight: float


def draw_sequences(
    config: TaskConfig, rng: np.random.Generator, n: int
) -> tuple[np.ndarray, list[list[Walk]]]:
    """n sequences drawn one after the other from the laws of ``config``.

    Returns:
        (n, T+1) int64 tokens, and the components of each sequence.
    """
    moduli = np.arange(config.modulus_min, config.vocab + 1)
    modulus_p = moduli**-config.modulus_power
    modulus_p /= modulus_p.sum()
    sequences: list[list[Walk]] = []
    tokens = np.empty((n, config.length + 1), np.int64)
    for row in range(n):
        count = int(rng.integers(config.components_min, config.components_max + 1))
        walks = [_draw_walk(config, rng, int(rng.choice(moduli, p=modulus_p))) for _ in range(count)]
        tokens[row] = _tokens(config, rng, walks)
        sequences.append(walks)
    return tokens, sequences


def walk_tokens(walk: Walk, positions: int) -> list[int]:
    """o + s_k for k = 0..positions-1 by the recurrence s_0 = a, s_{k+1} = (s_k + d) mod c."""
    out, state = [], walk.a
    for _ in range(positions):
        out.append(walk.o + state)
        state = (state + walk.d) % walk.c
    return out


def _draw_walk(config: TaskConfig, rng: np.random.Generator, c: int) -> Walk:
    offset_p = np.arange(1, config.vocab - c + 2) ** -config.offset_power
    offset_p /= offset_p.sum()
    o = int(rng.choice(len(offset_p), p=offset_p))
    d = int(rng.integers(max(1, math.floor(c * config.step_fraction)), c))
    divisors = [g for g in range(2, math.isqrt(c) + 1) if c % g == 0]
    if divisors and rng.random() < config.noncoprime:
        g = divisors[rng.integers(len(divisors))]
        d = min(max(d // g * g, g), c - 1)
    weight = 1.0 + float(rng.pareto(config.pareto)) if config.pareto > 0 else 1.0
    return Walk(c, o, d, int(rng.integers(c)), weight)


def _tokens(config: TaskConfig, rng: np.random.Generator, walks: list[Walk]) -> np.ndarray:
    positions = config.length + 1
    weights = np.array([walk.weight for walk in walks])
    mean = weights @ np.array([walk_tokens(walk, positions) for walk in walks]) / weights.sum()
    if config.noise > 0:
        if config.noise_df > 0:
            df = config.noise_df
            unit = rng.standard_t(df, positions) / math.sqrt(df / (df - 2))
        else:
            unit = rng.normal(size=positions)
        mean = mean + config.noise * unit
    return np.clip(np.rint(mean), 0, config.vocab - 1).astype(np.int64)
