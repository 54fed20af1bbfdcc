"""Give the scores of matrices to others, such that their relation to depth stays exactly as it is.

What a score owes to depth alone these shuffles have too: a score that is better than they are knows more than depth.

| unit | arrangements, each as likely as any other | kept exactly |
|---|---|---|
| matrix | scores change places within their block | the scores of every block, so every relation to depth |
| block | all orders of the block means with the same Spearman correlation with depth | it, and the means |

A block has one score: kept in its place nothing could be shuffled, so that only its rank trend is kept. Block means in
the very order of depth (or its reverse) have no other arrangement, and every shuffle is then the score itself.
"""

from __future__ import annotations

import itertools
from functools import lru_cache

import numpy as np
from scipy import stats

from sims.prune.allocation import Unit, block_means, block_of

# Arrangements of so many places are listed in full (7! = 5040).
LISTED = 7
# Of more blocks, redraws of LISTED places for every block.
REDRAWS = 4


def depth_shuffled(scores: dict[str, float], unit: Unit, draws: np.random.Generator) -> dict[str, float]:
    """Return a shuffle of scores that keeps their relation to depth.

    Args:
        scores: by matrix, in the order of the blocks.
        unit: what changes places: matrices within their block, or blocks.
        draws: generator.

    >>> own = {"blocks.0.attn.q": 1.0, "blocks.0.attn.o": 2.0, "blocks.1.attn.q": 3.0, "blocks.1.attn.o": 4.0}
    >>> found = depth_shuffled(own, "matrix", np.random.default_rng(3))
    >>> sorted(found.values())[:2] == sorted([found["blocks.0.attn.q"], found["blocks.0.attn.o"]])
    True
    >>> depth_shuffled(own, "block", np.random.default_rng(3))
    {'blocks.0.attn.q': 1.5, 'blocks.0.attn.o': 1.5, 'blocks.1.attn.q': 3.5, 'blocks.1.attn.o': 3.5}
    """
    if unit == "matrix":
        found = dict(scores)
        for _, names in itertools.groupby(scores, block_of):
            own = list(names)
            found.update(zip(own, draws.permutation([scores[name] for name in own]).tolist(), strict=True))
        return found
    means = {block_of(matrix): score for matrix, score in block_means(scores).items()}
    values = np.array(list(means.values()))
    moved = dict(zip(means, values[same_trend(values, draws)].tolist(), strict=True))
    return {matrix: moved[block_of(matrix)] for matrix in scores}


def same_trend(values: np.ndarray, draws: np.random.Generator) -> np.ndarray:
    """Draw an order of values whose Spearman correlation with their places is that of the order they have.

    All such orders are equally likely with up to 7 values. Of more values, 7 places at a time are redrawn like this,
    4 times as often as there are values.

    Args:
        values: (n,) numbers; equal ones have the mean of their ranks.
        draws: generator.

    Returns:
        (n,) indices into the values.

    >>> sorted(same_trend(np.array([2.0, 1.0, 3.0]), np.random.default_rng(0)).tolist())
    [0, 1, 2]
    """
    n = len(values)
    # Twice the ranks are whole: sums are compared without rounding.
    ranks = np.rint(2 * stats.rankdata(values)).astype(np.int64)
    order, size = np.arange(n), min(n, LISTED)
    for _ in range(1 if n <= LISTED else REDRAWS * n):
        places = np.sort(draws.choice(n, size, replace=False))
        own = order[places]
        # (size!, size)
        every = own[_arrangements(size)]
        fitting = every[ranks[every] @ places == ranks[own] @ places]
        order[places] = fitting[draws.integers(len(fitting))]
    return order


@lru_cache(maxsize=LISTED)
def _arrangements(size: int) -> np.ndarray:
    return np.array(list(itertools.permutations(range(size))))
