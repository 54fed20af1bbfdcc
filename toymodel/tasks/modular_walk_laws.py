"""Laws of the modular walks: hidden variables and tokens, drawn for all sequences at once.

One walk is s_k = (a + d·k) mod c, seen through the tokens t_k = o + s_k; the model predicts t_{k+1}. The
optional mixtures average several walks, the optional noise displaces tokens. Source: the public toy generator
of Liu, Paquette, Sous, "Spectral Lens" (arXiv 2605.05683). The same laws as a plain loop over sequences are in
:mod:`toymodel.reference`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from toymodel.errors import ConfigError

if TYPE_CHECKING:
    from toymodel.tasks.modular_walks import ModularWalks


@dataclass(frozen=True, eq=False)
class Latents:
    """Hold the hidden variables of n sequences of up to M = components_max walks; arrays are read-only.

    A component that a sequence does not have carries weight 0 and the resting walk (c, o, d, a) =
    (1, 0, 0, 0), so that the token formula can be applied to every entry.

    Args:
        modulus, offset, step, phase: (n, M) int32: c, o, d, a.
        weights: (n, M) float64, unnormalised.
        count: (n,) int32, number of components.
    """

    modulus: np.ndarray
    offset: np.ndarray
    step: np.ndarray
    phase: np.ndarray
    weights: np.ndarray
    count: np.ndarray

    def __post_init__(self) -> None:
        for array in (self.modulus, self.offset, self.step, self.phase, self.weights, self.count):
            array.flags.writeable = False

    def __len__(self) -> int:
        return len(self.count)

    def take(self, rows: np.ndarray) -> Latents:
        """Return copies of the given rows (boolean mask or indices)."""
        return Latents(
            self.modulus[rows],
            self.offset[rows],
            self.step[rows],
            self.phase[rows],
            self.weights[rows],
            self.count[rows],
        )


def concatenate(parts: list[Latents]) -> Latents:
    """Join the latents of several draws along n; all must have the same M."""
    names = ("modulus", "offset", "step", "phase", "weights", "count")
    return Latents(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def draw_latents(config: ModularWalks, rng: np.random.Generator, n: int) -> Latents:
    """Draw the hidden variables of n independent sequences from the laws of `config`.

    c ∈ {modulus_min..V}, p ∝ c^-modulus_power; o | c ∈ {0..V-c}, p ∝ (o+1)^-offset_power; d and a as in
    :func:`draw_walk`; the component count uniform on {components_min..components_max}; weights 1, or
    1 + Lomax(pareto).
    """
    width = config.components_max
    count = rng.integers(config.components_min, width + 1, size=n, dtype=np.int32)
    present = np.arange(width) < count[:, None]
    # Absent components are not drawn at all: with one component a sequence this costs nothing.
    total = int(count.sum())
    moduli = _draw_modulus(config, rng, total)
    offsets = _draw_offset(config, rng, moduli)
    steps, phases = draw_walk(config, rng, moduli)
    drawn = rng.pareto(config.pareto, size=total) + 1.0 if config.pareto > 0 else np.ones(total)

    def spread(values: np.ndarray, absent: float, dtype: type) -> np.ndarray:
        out = np.full((n, width), absent, dtype=dtype)
        out[present] = values
        return out

    return Latents(
        spread(moduli, 1, np.int32),
        spread(offsets, 0, np.int32),
        spread(steps, 0, np.int32),
        spread(phases, 0, np.int32),
        spread(drawn, 0.0, np.float64),
        count,
    )


def draw_walk(
    config: ModularWalks, rng: np.random.Generator, moduli: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Draw step d and phase a of walks with the given moduli.

    d is uniform on {max(1, ⌊c·step_fraction⌋)..c-1} and a on {0..c-1}. With probability ``noncoprime``, and
    only where c has one, a divisor g of c with 2 ≤ g ≤ √c is drawn uniformly and d becomes
    clamp(⌊d/g⌋·g, g, c-1). Divisors above √c are never drawn, as in the published generator: c = 10 offers 2
    but not 5.

    Args:
        moduli: (n,) integers c ≥ 2.

    Returns:
        (n,) d and (n,) a, int64.
    """
    lowest = np.maximum(1, np.floor(moduli * config.step_fraction).astype(np.int64))
    steps = rng.integers(lowest, moduli)
    flat, start, size = _divisors(config.vocab)
    chosen = rng.random(len(moduli)) < config.noncoprime
    chosen &= size[moduli] > 0
    picked = moduli[chosen]
    divisor = flat[start[picked] + rng.integers(0, size[picked])]
    steps[chosen] = np.clip(steps[chosen] // divisor * divisor, divisor, picked - 1)
    return steps, rng.integers(0, moduli)


def render(
    config: ModularWalks, latents: Latents, rng: np.random.Generator, noise: float | None = None
) -> np.ndarray:
    """Compute the tokens of the given latents: t_k = clip(round(Σ_i w_i t_k^(i) / Σ_i w_i + noise·ε_k), 0, V-1).

    k = 0..T; ε has unit variance, Gaussian or Student-t with ``noise_df`` degrees of freedom. Halves round to
    even.

    Args:
        latents: n sequences.
        rng: stream of the noise; untouched when there is none.
        noise: standard deviation in tokens; None for ``config.noise``.

    Returns:
        (n, T+1) tokens of type ``config.dtype``, read-only.
    """
    noise = config.noise if noise is None else noise
    width = config.length + 1
    if noise == 0 and bool((latents.count == 1).all()):
        tokens = _walk(latents, 0, width, config.dtype, latents.offset[:, 0])
    else:
        mean = np.zeros((width, len(latents)))
        for i in range(latents.weights.shape[1]):
            mean += latents.weights[:, i] * _walk(latents, i, width, np.dtype(np.int32), latents.offset[:, i])
        mean /= latents.weights.sum(axis=1)
        if noise > 0:
            mean += noise * _unit_noise(config, rng, mean.shape)
        np.rint(mean, out=mean)
        tokens = np.clip(mean, 0, config.vocab - 1, out=mean).astype(config.dtype)
    tokens = np.ascontiguousarray(tokens.T)
    tokens.flags.writeable = False
    return tokens


def walk_states(latents: Latents, component: int, positions: int, dtype: np.dtype) -> np.ndarray:
    """Return the (n, positions) states s_k = (a + d·k) mod c of one component, read-only."""
    states = np.ascontiguousarray(_walk(latents, component, positions, dtype, None).T)
    states.flags.writeable = False
    return states


def possible_walks(config: ModularWalks, tokens: np.ndarray) -> np.ndarray:
    """Return whether each row of tokens (n, k) is the beginning of a walk that has a chance, (n,).

    A modulus c allows the tokens if all increments agree mod c, the step has a chance given c, and some offset o with
    0 ≤ o ≤ V−c puts all tokens within o..o+c−1.

    Args:
        config: of one walk a sequence, without noise.
        tokens: integers in 0..V−1, k ≥ 1.

    Raises:
        ConfigError: several walks or noise, which allow every sequence.
    """
    if config.components_max > 1 or config.noise > 0:
        raise ConfigError(
            f"components_max is {config.components_max} and noise {config.noise}; which tokens are possible is known "
            "for one walk a sequence without noise: pass 1 and 0"
        )
    tokens = np.asarray(tokens, np.int64)
    low, high = tokens.min(axis=1)[:, None], tokens.max(axis=1)[:, None]
    moduli = np.arange(config.modulus_min, config.vocab + 1)
    fits = (high - low < moduli) & (
        np.maximum(high - moduli + 1, 0) <= np.minimum(low, config.vocab - moduli)
    )
    change = np.diff(tokens, axis=1)
    if not change.shape[1]:
        return fits.any(axis=1)
    # All increments are equal mod c where c divides their differences.
    common = np.gcd.reduce(change - change[:, :1], axis=1)[:, None]
    steps = _possible_steps(config)[moduli - config.modulus_min, change[:, :1] % moduli]
    return (fits & (common % moduli == 0) & steps).any(axis=1)


@lru_cache(maxsize=8)
def _possible_steps(config: ModularWalks) -> np.ndarray:
    """Return (C, V) whether a modulus has a step, as `draw_walk` draws it."""
    flat, start, size = _divisors(config.vocab)
    found = np.zeros((config.vocab - config.modulus_min + 1, config.vocab), bool)
    for row, c in zip(found, range(config.modulus_min, config.vocab + 1), strict=True):
        steps = np.arange(max(1, math.floor(c * config.step_fraction)), c)
        divisors = flat[start[c] : start[c] + size[c]]
        if config.noncoprime < 1 or not len(divisors):
            row[steps] = True
        if config.noncoprime > 0:
            for g in divisors:
                row[np.clip(steps // g * g, g, c - 1)] = True
    found.flags.writeable = False
    return found


def _walk(
    latents: Latents, component: int, positions: int, dtype: np.dtype, shift: np.ndarray | None
) -> np.ndarray:
    # Position-major and by addition instead of (a + d·k) % c: three vector operations a position and no
    # division, 3x faster than the remainder. Unsigned, so that s - c wraps to a huge number exactly where
    # s < c, and the minimum of the two is s mod c; s + d < 2c ≤ 2^32 never overflows.
    modulus = latents.modulus[:, component].astype(np.uint32)
    step = latents.step[:, component].astype(np.uint32)
    state = latents.phase[:, component].astype(np.uint32)
    offset = np.zeros_like(state) if shift is None else shift.astype(np.uint32)
    out = np.empty((positions, len(state)), dtype)
    for k in range(positions):
        np.add(state, offset, out=out[k], casting="unsafe")
        state += step
        np.minimum(state, state - modulus, out=state)
    return out


def _unit_noise(config: ModularWalks, rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    if config.noise_df == 0:
        return rng.standard_normal(shape)
    # Var[t_ν] = ν / (ν - 2)
    return rng.standard_t(config.noise_df, shape) * math.sqrt((config.noise_df - 2) / config.noise_df)


def _draw_modulus(config: ModularWalks, rng: np.random.Generator, n: int) -> np.ndarray:
    table = _cumulative(config.modulus_min, config.vocab, config.modulus_power)
    index = np.searchsorted(table, rng.random(n) * table[-1], side="right")
    # u·total can round up to the total itself.
    return config.modulus_min + np.minimum(index, len(table) - 1)


def _draw_offset(config: ModularWalks, rng: np.random.Generator, moduli: np.ndarray) -> np.ndarray:
    # The law given c is one law cut at V - c: its cumulative weights are a prefix of one table.
    table = _cumulative(1, config.vocab, config.offset_power)
    last = config.vocab - moduli
    index = np.searchsorted(table, rng.random(len(moduli)) * table[last], side="right")
    return np.minimum(index, last)


@lru_cache(maxsize=16)
def _cumulative(first: int, last: int, power: float) -> np.ndarray:
    """Return Σ_{j ≤ x} j^-power for x = first..last; in units of first^-power where float64 cannot hold that."""
    numbers = np.arange(first, last + 1, dtype=np.float64)
    if numbers[0] ** -power < np.finfo(np.float64).tiny:
        numbers /= first
    return np.cumsum(numbers**-power)


@lru_cache(maxsize=8)
def _divisors(vocab: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """List the divisors g of every c ≤ vocab with 2 ≤ g ≤ √c: all in one array, where those of c start, how many."""
    candidates = range(2, math.isqrt(vocab) + 1)
    moduli = [np.arange(g * g, vocab + 1, g) for g in candidates]
    if not moduli:
        empty = np.zeros(vocab + 1, np.int64)
        return np.zeros(0, np.int64), empty, empty
    divisors = np.concatenate([np.full(len(m), g, np.int64) for g, m in zip(candidates, moduli, strict=True)])
    owners = np.concatenate(moduli)
    size = np.bincount(owners, minlength=vocab + 1)
    start = np.concatenate([[0], np.cumsum(size)[:-1]])
    return divisors[np.argsort(owners, kind="stable")], start, size
