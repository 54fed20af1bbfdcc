"""Turn scores of matrices into multipliers of their learning rates.

With L units (matrices or blocks), their scores α, ᾱ = Σα/L, and rank 0 … L−1 (the earlier first among equal ones):

| map | multiplier |
|---|---|
| linear | low + (high − low)(α − min)/(max − min) |
| step | low + (high − low)·rank/L |
| sqrt | L·√α/Σ√α |
| log2 | L·log₂α/Σlog₂α |
| sigmoid | 10^φ, φ = strength·(1/(1 + e^(−tau·(α − ᾱ))) − ½) |

If all scores are equal, up to rounding, all multipliers are exactly 1, for every map.

Source: TempBalance (Zhou et al., arXiv 2312.00359) for linear, step, sqrt and log2, whose linear map divides 0 by 0 for
equal scores; ModelBalancing for sigmoid.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from toymodel.rates import REVERSED, SHUFFLED, Rates, block_of

# Scores that differ by less, relative to their size, are equal.
ROUNDING = 1e-12


def multipliers(
    scores: Mapping[str, float], sizes: Mapping[str, int], rates: Rates, among: Sequence[str] | None = None
) -> dict[str, float]:
    """Return the multiplier of the learning rate of each matrix that has a score.

    A shuffle gives the multipliers to other matrices (or blocks); divided by their mean, which counts weights, they are
    the same up to one common factor.

    Args:
        scores: finite numbers by matrix, positive for the maps sqrt and log2.
        sizes: numbers of weights of these matrices.
        rates: the settings.
        among: all matrices that take part, of which those with a score are some; None for these alone. A shuffle has
            one order of them all, whichever of them have a score.

    Returns:
        In the order of the scores. With the mean "one", |Σ n·m/Σ n − 1| ≤ 1e-12, n the numbers of weights.

    Raises:
        ValueError: a score that is not finite, or not positive where the map needs that.

    >>> scores, sizes = {"blocks.0.attn.q": 2.0, "blocks.1.attn.q": 4.0}, {"blocks.0.attn.q": 30, "blocks.1.attn.q": 10}
    >>> multipliers(scores, sizes, Rates("alpha", mean="free"))
    {'blocks.0.attn.q': 0.5, 'blocks.1.attn.q': 1.5}
    >>> multipliers(scores, sizes, Rates("alpha"))
    {'blocks.0.attn.q': 0.6666666666666666, 'blocks.1.attn.q': 2.0}
    """
    units = block_means(scores) if rates.unit == "block" else dict(scores)
    chosen = dict(zip(units, mapped(list(units.values()), rates), strict=True))
    if rates.by.startswith(SHUFFLED):
        everyone = dict.fromkeys(_unit(name, rates) for name in (scores if among is None else among))
        chosen = _shuffled(chosen, list(everyone), rates.seed)
    found = {name: chosen[_unit(name, rates)] for name in scores}
    if rates.mean == "free" or not found:
        return found
    total = math.fsum(sizes[name] * value for name, value in found.items())
    mean = total / sum(sizes[name] for name in found)
    return {name: value / mean for name, value in found.items()}


def mapped(values: Sequence[float], rates: Rates) -> list[float]:
    """Return the multipliers of units by their scores, before their mean is made 1.

    Those of a reversed score are those of max + min − α.

    >>> mapped([1.0, 2.0, 3.0], Rates("farms", map="step")), mapped([1.0, 2.0, 3.0], Rates("reversed-farms"))
    ([0.5, 0.8333333333333333, 1.1666666666666665], [1.5, 1.0, 0.5])
    """
    if not all(math.isfinite(value) for value in values):
        raise ValueError(f"scores are {list(values)}; leave out matrices without a finite one")
    if not values or math.isclose(min(values), max(values), rel_tol=ROUNDING):
        return [1.0] * len(values)
    if rates.by.startswith(REVERSED):
        ends = min(values) + max(values)
        values = [ends - value for value in values]
    return _MAPS[rates.map](values, rates)


def block_means(scores: Mapping[str, float]) -> dict[str, float]:
    """Return the mean score of the matrices of each block.

    >>> block_means({"blocks.0.attn.q": 1.0, "blocks.0.mlp.fc": 3.0, "blocks.1.attn.q": 5.0})
    {'blocks.0': 2.0, 'blocks.1': 5.0}
    """
    own: dict[str, list[float]] = {}
    for name, score in scores.items():
        own.setdefault(block_of(name) or name, []).append(score)
    return {block: math.fsum(values) / len(values) for block, values in own.items()}


def _shuffled(chosen: Mapping[str, float], units: Sequence[str], seed: int) -> dict[str, float]:
    """Give every unit the multiplier of the one that a fixed order of all units sets for it.

    Where that one has none, the unit gets what that one would get: the others keep theirs.
    """
    order = np.random.default_rng(seed).permutation(len(units))
    source = {unit: units[int(i)] for unit, i in zip(units, order, strict=True)}
    found = {}
    for unit in chosen:
        other = source[unit]
        while other not in chosen:
            other = source[other]
        found[unit] = chosen[other]
    return found


def _unit(matrix: str, rates: Rates) -> str:
    return (block_of(matrix) or matrix) if rates.unit == "block" else matrix


def _linear(values: Sequence[float], rates: Rates) -> list[float]:
    least = min(values)
    spread = max(values) - least
    return [rates.low + (rates.high - rates.low) * ((value - least) / spread) for value in values]


def _step(values: Sequence[float], rates: Rates) -> list[float]:
    order = sorted(range(len(values)), key=lambda i: values[i])
    ranks = {i: rank for rank, i in enumerate(order)}
    return [rates.low + (rates.high - rates.low) * ranks[i] / len(values) for i in range(len(values))]


def _sqrt(values: Sequence[float], rates: Rates) -> list[float]:
    return _proportional([math.sqrt(value) for value in values])


def _log2(values: Sequence[float], rates: Rates) -> list[float]:
    return _proportional([math.log2(value) for value in values])


def _proportional(values: Sequence[float]) -> list[float]:
    total = math.fsum(values)
    return [len(values) * value / total for value in values]


def _sigmoid(values: Sequence[float], rates: Rates) -> list[float]:
    mean = math.fsum(values) / len(values)
    # 1/(1 + e^−x) − ½ = tanh(x/2)/2, which does not overflow.
    return [10 ** (rates.strength * 0.5 * math.tanh(rates.tau * (v - mean) / 2)) for v in values]


_MAPS: dict[str, Callable[[Sequence[float], Rates], list[float]]] = {
    "linear": _linear,
    "step": _step,
    "sqrt": _sqrt,
    "log2": _log2,
    "sigmoid": _sigmoid,
}
