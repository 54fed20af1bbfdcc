"""Decide how many weights each matrix of a model loses, so that every allocation loses equally many in all.

A score says where more is pruned: a matrix (or a block) of a higher score has a higher ratio. Scores become ratios by a
linear map between their least and greatest value, so that their unit and origin do not matter:

    u_i = 1 − ε + 2ε (score_i − least)/(greatest − least),    ratio_i = min(c·u_i, 0.99),

c such that Σ n_i ratio_i = S Σ n_i, n_i the number of weights. Where the published code cuts ratios above 1 and leaves
it at that, so that less than S is pruned, what is cut here is pruned elsewhere.

Source: AlphaPruning (Lu et al., arXiv 2410.10912) and FARMS (Hu et al., arXiv 2506.06280) for the map.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from sims.system.errors import MeasureError

# No matrix loses a larger share of its weights.
MOST = 0.99
# Scores whose spread is below this share of the largest are equal up to rounding, and have one ratio.
ROUNDING = 1e-12
Unit = Literal["matrix", "block"]
UNITS: tuple[Unit, ...] = ("matrix", "block")
_BLOCK = re.compile(r"blocks\.\d+")


def ratios(
    scores: Sequence[float] | np.ndarray,
    entries: Sequence[int] | np.ndarray,
    sparsity: float,
    epsilon: float,
) -> np.ndarray:
    """Return the share of its weights that each matrix loses.

    Args:
        scores: (m,) finite numbers; the highest is pruned most. If all are equal, up to rounding, all ratios are S.
        entries: (m,) numbers of weights.
        sparsity: share S of all weights that become zero, above 0 and at most 0.99.
        epsilon: spread of the ratios about S, 0 ≤ ε < 1; with 0 all are exactly S.

    Returns:
        (m,) ratios of at most 0.99 with |Σ n·ratio/Σ n − S| ≤ 1e-12.

    Raises:
        MeasureError: a score that is not finite, sizes without weights, or a sparsity or spread outside its range.

    >>> ratios([1.0, 2.0, 3.0], [10, 10, 10], 0.5, 0.2).round(3).tolist()
    [0.4, 0.5, 0.6]
    >>> ratios([1.0, 2.0, 3.0], [10, 10, 10], 0.9, 0.5).round(3).tolist()
    [0.72, 0.99, 0.99]
    """
    values, sizes = np.asarray(scores, float), np.asarray(entries, float)
    _check(values, sizes, sparsity, epsilon)
    least, spread = values.min(), np.ptp(values)
    if spread <= ROUNDING * np.abs(values).max() or epsilon == 0:
        return np.full(len(values), float(sparsity))
    wanted = 1 - epsilon + 2 * epsilon * (values - least) / spread
    total = sparsity * sizes.sum()
    # From the highest down: a matrix is full if the common factor that fills the rest would lift it above the most.
    found, free = np.empty(len(values)), np.ones(len(values), bool)
    while True:
        factor = (total - MOST * sizes[~free].sum()) / (sizes * wanted)[free].sum()
        full = free & (factor * wanted > MOST)
        if not full.any():
            break
        free &= ~full
        if not free.any():
            break
    found[~free] = MOST
    found[free] = factor * wanted[free]
    return found


def zero_counts(shares: Sequence[float] | np.ndarray, entries: Sequence[int], sparsity: float) -> np.ndarray:
    """Round ratios to numbers of weights by largest remainder.

    Args:
        shares: (m,) ratios whose total is the sparsity.
        entries: (m,) numbers of weights.
        sparsity: S.

    Returns:
        (m,) integers whose sum is that of S Σ n, rounded: the same for all ratios.

    >>> zero_counts([0.25, 0.35], [10, 10], 0.3).tolist()
    [3, 3]
    """
    wanted = np.asarray(shares, float) * np.asarray(entries, float)
    whole = np.floor(wanted).astype(np.int64)
    rest = round(sparsity * sum(int(n) for n in entries)) - int(whole.sum())
    # Equal remainders: the earlier matrix first.
    order = np.argsort(-(wanted - whole), kind="stable")
    whole[order[:rest]] += 1
    return whole


def allocate(
    scores: Mapping[str, float],
    entries: Mapping[str, int],
    sparsity: float,
    epsilon: float,
    unit: Unit = "matrix",
) -> dict[str, int]:
    """Return how many weights every matrix loses.

    Args:
        scores: by matrix.
        entries: numbers of weights of the matrices that are pruned.
        sparsity, epsilon: see `ratios`.
        unit: "block" gives all matrices of a block one ratio, that of the mean of their scores. What is added to the
            scores of one kind of matrix in every block then changes nothing.

    Raises:
        MeasureError: a matrix without a score, an unknown unit, or what `ratios` refuses.

    >>> sizes = {"blocks.0.attn.q": 100, "blocks.0.mlp.fc": 300, "blocks.1.attn.q": 100, "blocks.1.mlp.fc": 300}
    >>> allocate({name: float(name[7]) for name in sizes}, sizes, 0.5, 0.1, "block")
    {'blocks.0.attn.q': 45, 'blocks.0.mlp.fc': 135, 'blocks.1.attn.q': 55, 'blocks.1.mlp.fc': 165}
    """
    if unit not in UNITS:
        raise MeasureError(f"the unit is {unit!r}; ratios are chosen by {' or by '.join(UNITS)}")
    if missing := [name for name in entries if name not in scores]:
        raise MeasureError(f"no score of {', '.join(missing[:4])}; give one of every matrix that is pruned")
    if unit == "block":
        scores = block_means({name: scores[name] for name in entries})
    sizes = list(entries.values())
    shares = ratios([scores[name] for name in entries], sizes, sparsity, epsilon)
    return dict(zip(entries, zero_counts(shares, sizes, sparsity).tolist(), strict=True))


def block_means(scores: Mapping[str, float]) -> dict[str, float]:
    """Give each matrix the mean score of the matrices of its block.

    >>> block_means({"blocks.0.attn.q": 1.0, "blocks.0.mlp.fc": 3.0, "blocks.1.attn.q": 5.0})
    {'blocks.0.attn.q': 2.0, 'blocks.0.mlp.fc': 2.0, 'blocks.1.attn.q': 5.0}
    """
    own: dict[str, list[float]] = {}
    for name, score in scores.items():
        own.setdefault(block_of(name), []).append(score)
    return {name: math.fsum(own[block_of(name)]) / len(own[block_of(name)]) for name in scores}


def block_of(matrix: str) -> str:
    """Return the name of the block of a matrix.

    >>> block_of("blocks.12.attn.q")
    'blocks.12'

    Raises:
        MeasureError: it is in no block.
    """
    found = _BLOCK.match(matrix)
    if found is None:
        raise MeasureError(f"{matrix} is in no block; pruned are matrices named blocks.0.…, blocks.1.…")
    return found[0]


def _check(scores: np.ndarray, entries: np.ndarray, sparsity: float, epsilon: float) -> None:
    if scores.ndim != 1 or scores.shape != entries.shape or not len(scores):
        raise MeasureError(
            f"scores are {scores.shape} and entries {entries.shape}; give one of each for every matrix"
        )
    if not np.isfinite(scores).all():
        raise MeasureError(
            f"{int((~np.isfinite(scores)).sum())} scores are not finite; leave such matrices out"
        )
    if not (entries > 0).all():
        raise MeasureError("a matrix without weights cannot be pruned; leave it out")
    if not 0 < sparsity <= MOST:
        raise MeasureError(
            f"the sparsity is {sparsity}; it is the share of zeros, above 0 and at most {MOST}"
        )
    if not 0 <= epsilon < 1:
        raise MeasureError(f"ε is {epsilon}; it is the spread of the ratios, from 0 up to, not including, 1")
