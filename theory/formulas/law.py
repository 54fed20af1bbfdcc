"""Give the exact law of the next token of a modular walk, for every context.

A walk is t_k = o + (a + d·k) mod c. Its hidden numbers are drawn as p(c) ∝ c^−α on c_min..V, p(o | c) ∝ (o+1)^−β on
0..V−c, a uniform on 0..c−1, and d uniform on max(1, ⌊c·f⌋)..c−1; with probability q, and only where c has a divisor g
with 2 ≤ g ≤ √c, one of these is drawn uniformly and d becomes max(⌊d/g⌋·g, g).

Two tokens or more fix d = (t₁ − t₀) mod c for each c, and all increments have to agree with it mod c. The offsets that
remain are the interval from max − c + 1 to min of the tokens, within 0..V−c. The next token is t + d where
o > t + d − c, and t + d − c otherwise. So each c takes two sums of p(o | c) over intervals, and a context costs O(V).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from theory.values import Array

Tokens = NDArray[np.int64]

# Chances of walks have at most so many zeros: 18 fewer than float64 has, for sums and products of a few of them.
_DIGITS = 290
# Pairs (context, modulus) that are held at once: about 20 MB.
_PAIRS = 2**18


@dataclass(frozen=True)
class WalkLaw:
    """Hold the settings of modular walks, and return the law of the next token given the tokens before it.

    Tables are made at the first use, once for equal settings: 0.4 s and 90 MB at V = 1024.

    Args:
        vocab: V, number of tokens.
        modulus_min: smallest modulus c; the largest is V.
        modulus_power: α of p(c) ∝ c^−α.
        offset_power: β of p(o | c) ∝ (o+1)^−β.
        step_fraction: f, smallest step as a share of c.
        noncoprime: q, probability that d is rounded down to a multiple of a divisor of c.
        components: number of walks that are averaged; the law is exact for 1.
        noise: standard deviation of the noise of a token; the law is exact for 0.

    Raises:
        ValueError: a setting out of its range, several walks, noise, or powers so large that float64 cannot hold the
            chance of the rarest walk.

    >>> law = WalkLaw(vocab=16)
    >>> law.next_tokens([[3, 5], [3, 4]]).shape, int(law.next_tokens([[0, 4, 1]]).argmax())
    ((2, 16), 5)
    """

    vocab: int
    modulus_min: int = 5
    modulus_power: float = 1.3
    offset_power: float = 1.2
    step_fraction: float = 0.125
    noncoprime: float = 0.3
    components: int = 1
    noise: float = 0.0

    def __post_init__(self) -> None:
        if not 2 <= self.modulus_min <= self.vocab:
            raise ValueError(
                f"modulus_min is {self.modulus_min} and vocab {self.vocab}; pass 2 ≤ modulus_min ≤ vocab"
            )
        for name in ("modulus_power", "offset_power", "step_fraction", "noncoprime"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}; pass a finite number ≥ 0")
        if self.step_fraction >= 1:
            raise ValueError(f"step_fraction is {self.step_fraction}; steps end at c−1: pass a share below 1")
        if self.noncoprime > 1:
            raise ValueError(f"noncoprime is {self.noncoprime}; it is a probability: pass 0 to 1")
        if self.components != 1:
            raise ValueError(
                f"components is {self.components}; the exact law is that of one walk: the rounded mean of several "
                "walks fixes none of them, and the sum would run over about (V⁴/12)^components of them; pass 1"
            )
        if self.noise != 0:
            raise ValueError(
                f"noise is {self.noise}; the exact law is that of walks without noise: with noise every token is "
                "possible in every walk, and the sum would run over about V⁴/12 walks for each context; pass 0"
            )
        if (digits := self._digits()) > _DIGITS:
            raise ValueError(
                f"modulus_power is {self.modulus_power}, offset_power {self.offset_power} and noncoprime "
                f"{self.noncoprime}; the rarest walk has a chance of about 1e-{digits:.0f}, and float64 holds none "
                f"below 1e-{_DIGITS}: lower the powers"
            )

    def _digits(self) -> float:
        """Return −log₁₀ of the chance of the rarest modulus, offset and divisor, without what is polynomial in V."""
        moduli = np.arange(self.modulus_min, self.vocab + 1)
        rare = self.modulus_power * np.log10(moduli / self.modulus_min)
        rare += self.offset_power * np.log10(self.vocab - moduli + 1)
        return float(rare.max()) - (math.log10(self.noncoprime) if self.noncoprime else 0.0)

    def start(self) -> Array:
        """Return the law (V,) of the first token."""
        return _tables(self).pairs.sum(axis=1)

    def next_tokens(self, contexts: ArrayLike) -> Array:
        """Return the law (n, V) of the token after each context.

        Args:
            contexts: (n, k) tokens, k ≥ 1, all the tokens of the walk so far.

        Raises:
            ValueError: tokens that are no integers from 0 to V−1, or a context that no walk has.

        >>> WalkLaw(vocab=8).next_tokens([[3, 4, 5]]).round(2).tolist()
        [[0.17, 0.18, 0.0, 0.0, 0.0, 0.0, 0.65, 0.0]]
        """
        contexts = self._checked(contexts)
        found = np.empty((len(contexts), self.vocab))
        for rows, k, law in self._laws(contexts):
            if k == contexts.shape[1] - 1:
                found[rows] = law
        return found

    def entropies(self, contexts: ArrayLike) -> Array:
        """Return the entropy (n, T) in nats of the token after each position of (n, T) tokens.

        At position k the context is the tokens 0..k. Errors as of `next_tokens`.

        >>> WalkLaw(vocab=8).entropies([[3, 4, 5]]).round(2)
        array([[1.87, 0.6 , 0.89]])
        """
        contexts = self._checked(contexts)
        found = np.empty(contexts.shape)
        for rows, k, law in self._laws(contexts):
            logs = np.log(law, out=np.zeros_like(law), where=law > 0)
            found[rows, k] = 0.0 - (law * logs).sum(axis=1)
        return found

    def losses(self, sequences: ArrayLike) -> Array:
        """Return −ln p(t_{k+1} | t_0..t_k), (n, T) in nats, of (n, T+1) tokens: the loss of the best predictor.

        Raises:
            ValueError: as `next_tokens`; sequences of one token, or that no walk has.

        >>> WalkLaw(vocab=8).losses([[3, 4, 5]]).round(2)
        array([[1.69, 0.34]])
        """
        sequences = self._checked(sequences)
        if sequences.shape[1] < 2:
            raise ValueError("the sequences have one token and no next one; pass two tokens or more")
        found = np.empty((len(sequences), sequences.shape[1] - 1))
        for rows, k, law in self._laws(sequences[:, :-1]):
            share = law[np.arange(len(law)), sequences[rows, k + 1]]
            _check_possible(share, rows, k + 1)
            found[rows, k] = 0.0 - np.log(share)
        return found

    def _checked(self, tokens: ArrayLike) -> Tokens:
        given = np.asarray(tokens)
        if given.ndim != 2 or not given.shape[1] or not np.issubdtype(given.dtype, np.integer):
            raise ValueError(
                f"tokens are {given.dtype} of shape {given.shape}; pass integers of shape (n, k), k ≥ 1"
            )
        if given.size and not (given.min() >= 0 and given.max() < self.vocab):
            raise ValueError(
                f"tokens are {given.min()}..{given.max()}; the vocabulary is 0..{self.vocab - 1}"
            )
        return given.astype(np.int64)

    def _laws(self, tokens: Tokens) -> Iterator[tuple[slice, int, Array]]:
        """Yield rows, a position k and the law (rows, V) of token k+1, for all positions of a part of the rows."""
        size = max(1, _PAIRS // self.vocab)
        for begin in range(0, len(tokens), size):
            rows = slice(begin, begin + size)
            for k, mass in enumerate(_masses(self, tokens[rows])):
                total = mass.sum(axis=1, keepdims=True)
                _check_possible(total[:, 0], rows, k)
                mass /= total
                yield rows, k, mass


def _check_possible(chance: Array, rows: slice, position: int) -> None:
    """Refuse sequences whose tokens up to a position have no chance."""
    lost = np.flatnonzero(~(chance > 0))
    if len(lost):
        raise ValueError(
            f"sequence {rows.start + lost[0]} has no chance from token {position} on: no walk of this law has these "
            "tokens; pass sequences of the same settings"
        )


@dataclass(frozen=True, eq=False)
class _Tables:
    """Hold what does not depend on the context.

    Attributes:
        moduli: (C,) c.
        weights: (C,) p(c)/(c·Z_c), Z_c the sum of (o+1)^−β over 0..V−c.
        steps: (C, V) p(d | c).
        tails: (V+1,) Σ (o+1)^−β over o ≥ x, from the far end: p(o | c) of an interval is a difference of two with
            a relative error of V·ε at most, where sums from the near end would lose the rare offsets.
        pairs: (V, V) p(t_0, t_1).
    """

    moduli: Tokens
    weights: Array
    steps: Array
    tails: Array
    pairs: Array


@lru_cache(maxsize=4)
def _tables(law: WalkLaw) -> _Tables:
    vocab, moduli = law.vocab, np.arange(law.modulus_min, law.vocab + 1)
    offsets = np.arange(1, vocab - law.modulus_min + 2, dtype=float) ** -law.offset_power
    tails = np.zeros(vocab + 1)
    tails[: len(offsets)] = np.cumsum(offsets[::-1])[::-1]
    prior = (moduli / law.modulus_min) ** -law.modulus_power
    # Z_c is a sum from the near end, which has no rare offset to lose.
    weights = prior / prior.sum() / moduli / np.cumsum(offsets)[vocab - moduli]
    steps = _step_law(law, moduli)
    tables = (moduli, weights, steps, tails, _pairs(vocab, moduli, weights, steps, tails))
    for table in tables:
        table.flags.writeable = False
    return _Tables(*tables)


def _step_law(law: WalkLaw, moduli: Tokens) -> Array:
    """Return p(d | c), (C, V)."""
    found = np.zeros((len(moduli), law.vocab))
    for row, c in zip(found, moduli.tolist(), strict=True):
        steps = np.arange(max(1, math.floor(c * law.step_fraction)), c)
        row[steps] = 1.0
        divisors = [g for g in range(2, math.isqrt(c) + 1) if c % g == 0]
        if divisors:
            row *= 1 - law.noncoprime
        for g in divisors:
            rounded = np.bincount(np.maximum(steps // g * g, g), minlength=law.vocab)
            row += law.noncoprime / len(divisors) * rounded
        row /= len(steps)
    return found


def _pairs(vocab: int, moduli: Tokens, weights: Array, steps: Array, tails: Array) -> Array:
    """Return p(t_0, t_1), (V, V), from four products of matrices.

    For tokens m and u = m + δ the offsets of c weigh S[max(u+1−c, 0)] − S[min(m, V−c)+1] (S the tails): a term of c and
    u less one of c and m, so that the sum over c is a product of matrices for each of them.
    """
    tokens, column = np.arange(vocab), moduli[:, None]
    first = tails[np.maximum(tokens + 1 - column, 0)]  # (C, V) by u
    last = tails[np.minimum(tokens, vocab - column) + 1]  # (C, V) by m
    # d = δ going up, and d = c − δ going down.
    up = weights[:, None] * steps
    down = np.where(tokens < column, np.take_along_axis(up, (column - tokens) % column, axis=1), 0.0)
    delta, m = np.nonzero(tokens[:, None] + tokens < vocab)
    pairs = np.zeros((vocab, vocab))
    for chance, at in ((up, (m, m + delta)), (down, (m + delta, m))):
        pairs[at] += (chance.T @ first)[delta, m + delta] - (chance.T @ last)[delta, m]
    return pairs


def _masses(law: WalkLaw, tokens: Tokens) -> Iterator[Array]:
    """Yield p(t_0..t_k, t_{k+1}), (n, V), for each position k of (n, T) tokens."""
    tables, (n, length), vocab = _tables(law), tokens.shape, law.vocab
    yield tables.pairs[tokens[:, 0]]
    if length == 1:
        return
    low, high = np.minimum.accumulate(tokens, axis=1), np.maximum.accumulate(tokens, axis=1)
    change = np.diff(tokens, axis=1)
    # Pairs (row, c) that are still possible: one entry each of row, c, d, weight.
    row, place = np.nonzero(np.abs(change[:, :1]) < tables.moduli)
    c, d = tables.moduli[place], change[row, 0]
    d = np.where(d < 0, d + c, d)
    weight = tables.weights[place] * tables.steps[place, d]
    alive = weight > 0
    for k in range(1, length):
        if k > 1:
            moved = change[row, k - 1]
            alive = ((moved == d) | (moved == d - c)) & (high[row, k] - low[row, k] < c)
        row, c, d, weight = row[alive], c[alive], d[alive], weight[alive]
        first, last = np.maximum(high[row, k] - c + 1, 0), np.minimum(low[row, k], vocab - c)
        above = tokens[row, k] + d
        cut = np.clip(above - c + 1, first, last + 1)
        tails = tables.tails[cut]
        # Where no offset allows one of the two tokens, it may lie outside the vocabulary, with weight 0.
        up, down = row * vocab + np.minimum(above, vocab - 1), row * vocab + np.maximum(above - c, 0)
        mass = np.zeros(n * vocab)
        mass += np.bincount(up, weight * (tails - tables.tails[last + 1]), n * vocab)
        mass += np.bincount(down, weight * (tables.tails[first] - tails), n * vocab)
        yield mass.reshape(n, vocab)
