"""Which blocks a rule removes: the last ones, those of the lowest score, or any.

All rules but "last N" keep the first and the last block, which differ from the others for trivial reasons.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
from scipy import stats

from sims.analysis.removal import Blocks, Choices
from sims.system.errors import MeasureError

LAST, LAST_INTERIOR, RANDOM = "last N", "last N interior", "random"
SPECTRAL = ("spectral low", "spectral high")
INFLUENCE = "block influence"
# All sets of N blocks are measured where so many can be formed of all blocks.
MOST_SETS = 3_000


def interior_sets(blocks: Sequence[int], n: int) -> tuple[Blocks, ...]:
    """Return all sets of n blocks without the first and the last one.

    Raises:
        MeasureError: n outside 1 to L − 2, or more sets than can be measured (see `countable`).

    >>> interior_sets(range(5), 2)
    ((1, 2), (1, 3), (2, 3))
    """
    _check_number(blocks, n)
    if not countable(len(blocks), n):
        raise MeasureError(
            f"{math.comb(len(blocks), n)} sets of {n} of {len(blocks)} blocks are more than {MOST_SETS}; remove fewer "
            "blocks"
        )
    return tuple(combinations(tuple(blocks)[1:-1], n))


def countable(layers: int, n: int) -> bool:
    """Return whether at most 3,000 sets of n of the layers exist, so that all can be measured.

    >>> countable(24, 3), countable(24, 4)
    (True, False)
    """
    return math.comb(layers, n) <= MOST_SETS


def rule_scores(
    *,
    alpha: Sequence[float] | np.ndarray | None = None,
    influence: Sequence[float] | np.ndarray | None = None,
    norm: Sequence[float] | np.ndarray | None = None,
    importance: Sequence[float] | np.ndarray | None = None,
    elsewhere: Sequence[Sequence[float] | np.ndarray] = (),
) -> dict[str, np.ndarray]:
    """Return rule → score (L,) of each block, of which a rule removes the lowest.

    Args:
        alpha: spectral exponent of each block; "spectral low" and "spectral high" remove the lowest and the highest.
        influence: 1 − mean cosine between a block's input and output; "block influence" removes the lowest.
        norm: of a block's weights; "weight norm" removes the lowest.
        importance: cost of each block alone; "one at a time" removes the lowest. It knows what the others do not.
        elsewhere: the same of other models, for "depth rule" (see `depth_score`).

    Raises:
        MeasureError: scores of different lengths or that are not finite.
    """
    given = {
        SPECTRAL[0]: alpha,
        SPECTRAL[1]: None if alpha is None else -np.asarray(alpha, float),
        INFLUENCE: influence,
        "weight norm": norm,
        "one at a time": importance,
    }
    scores = {rule: np.asarray(score, float) for rule, score in given.items() if score is not None}
    lengths = {len(score) for score in scores.values()}
    if len(lengths) > 1:
        raise MeasureError(f"scores are of {sorted(lengths)} blocks; pass one for each block of one model")
    if elsewhere:
        if not lengths:
            raise MeasureError("a depth rule alone does not know how many blocks there are; use depth_score")
        scores["depth rule"] = depth_score(lengths.pop(), elsewhere)
    for rule, score in scores.items():
        _check_score(rule, score)
    return scores


def depth_score(layers: int, elsewhere: Sequence[Sequence[float] | np.ndarray]) -> np.ndarray:
    """Return the mean rank (L,) that blocks of other models have at the same depth.

    The costs of single interior blocks are ranked within each model, as a share from 0 (cheapest) to 1, and read at
    the relative depth l/(L − 1) by linear interpolation. Such a rule knows positions and nothing of the model itself.

    Raises:
        MeasureError: no other model, models of fewer than three blocks, or costs that are NaN.
    """
    if not elsewhere:
        raise MeasureError("a depth rule needs the costs of other models; pass at least one")
    depths = np.linspace(0.0, 1.0, layers)
    found = np.zeros(layers)
    for costs in elsewhere:
        own = np.asarray(costs, float)
        if own.ndim != 1 or len(own) < 3 or np.isnan(own).any():
            raise MeasureError(
                f"costs of another model are {own.tolist()}; pass one number for each of at least 3 blocks"
            )
        ranks = (stats.rankdata(own[1:-1]) - 0.5) / (len(own) - 2)
        found += np.interp(depths, np.linspace(0.0, 1.0, len(own))[1:-1], ranks)
    return found / len(elsewhere)


def choose(
    blocks: Sequence[int], counts: Sequence[int], scores: Mapping[str, np.ndarray], seed: int = 0
) -> dict[str, dict[int, Blocks]]:
    """Return the sets that each rule removes: rule → N → set.

    "last N", "last N interior", "random" (one draw, each set within the next larger), and of each score the N interior
    blocks that are lowest; of equal ones the later.

    Args:
        blocks: numbers of the model's blocks, in order.
        counts: the numbers N of removed blocks, each from 1 to L − 2.
        scores: rule → score (L,), as `rule_scores` returns them.
        seed: of the random sets.

    Raises:
        MeasureError: an N that is too large, or a score of another length.
    """
    for n in counts:
        _check_number(blocks, n)
    own = tuple(blocks)
    draw = np.random.default_rng(seed).permutation(len(own))
    every: dict[str, np.ndarray] = {
        LAST_INTERIOR: -np.arange(len(own), dtype=float),
        RANDOM: draw.astype(float),
    }
    for rule, score in scores.items():
        if len(score) != len(own):
            raise MeasureError(f"the score of {rule} has {len(score)} numbers for {len(own)} blocks")
        _check_score(rule, score)
        every[rule] = np.asarray(score, float)
    found = {LAST: {n: own[-n:] for n in counts}}
    for rule, score in every.items():
        order = sorted(range(1, len(own) - 1), key=lambda i, score=score: (score[i], -i))
        found[rule] = {n: tuple(sorted(own[i] for i in order[:n])) for n in counts}
    return found


def sets_of(blocks: Sequence[int], choices: Choices, every: bool = True) -> tuple[Blocks, ...]:
    """Return the sets to measure: those of all rules, and all interior sets of each N where these can be counted.

    Args:
        every: whether to add the interior sets.
    """
    found = {own: None for sets in choices.values() for own in sets.values()}
    counts = sorted({n for sets in choices.values() for n in sets})
    if every:
        for n in counts:
            if countable(len(blocks), n):
                found |= dict.fromkeys(interior_sets(blocks, n))
    return tuple(found)


def _check_number(blocks: Sequence[int], n: int) -> None:
    inner = len(blocks) - 2
    if not 1 <= n <= inner:
        raise MeasureError(
            f"{n} of {len(blocks)} blocks cannot be removed with both ends kept; remove 1 to {max(inner, 0)}"
        )


def _check_score(rule: str, score: np.ndarray) -> None:
    if np.ndim(score) != 1 or np.isnan(score).any():
        raise MeasureError(
            f"the score of {rule} is {np.asarray(score).tolist()}; pass one number for each block"
        )
