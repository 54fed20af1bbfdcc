"""Scores of matrices, from which ratios of pruning follow: the highest is pruned most.

| score | of a matrix |
|---|---|
| uniform | 0: every matrix loses one share |
| alpha | Hill exponent of its squared singular values |
| farms | the same of square tiles of one size for all matrices |
| alpha-z, farms-z | how many standard deviations above the mean of Gaussian matrices of its shape (its tiles) |
| depth | number of its block |
| sensitivity | rank of what its pruning alone costs, the cheapest highest |

"reversed-NAME" is the negative score, "shuffled-NAME" the same numbers given to other matrices (or blocks), and
"depth-shuffled-NAME" given to others such that their relation to depth stays (`sims.prune.depth_shuffle`): the controls
that a rule has to beat before its score is credited with anything.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
from scipy import stats
from torch import Tensor

from sims.measure.weight_scores import estimates
from sims.models.subject import Subject
from sims.prune.allocation import Unit, allocate, block_means, block_of
from sims.prune.depth_shuffle import depth_shuffled
from sims.prune.prune import entries, prunable, prune
from sims.prune.score_names import DEPTH_SHUFFLED, REVERSED, SENSITIVITY, SHUFFLED, UNIFORM, base_of
from sims.system.errors import MeasureError

Scores = dict[str, float]


@dataclass(frozen=True)
class Trial:
    """What the score by sensitivity prunes with, and measures on.

    Attributes:
        method: of pruning.
        sparsity: of a matrix or block that is pruned alone.
        unit: of what is pruned alone.
        calibration, selection: (n, T+1) tokens.
    """

    method: str
    sparsity: float
    unit: Unit
    calibration: Tensor
    selection: Tensor


def weight_scores(name: str, subject: Subject) -> Scores:
    """Return the scores of all matrices that can be pruned, by their weights alone (`sims.measure.weight_scores`).

    Raises:
        MeasureError: a matrix without a tail, such as one of zeros.
    """
    if name == UNIFORM:
        return dict.fromkeys(prunable(subject), 0.0)
    matrices = subject.matrices
    found = estimates(name, {matrix: matrices[matrix] for matrix in prunable(subject)})
    for matrix, own in found.items():
        if own.status == "not fitted":
            raise MeasureError(
                f"{matrix} has no exponent ({own.reason}); prune by uniform or depth, or another checkpoint"
            )
    return {matrix: own.value for matrix, own in found.items()}


def base_scores(name: str, subject: Subject, trial: Trial) -> Scores:
    """Return the scores of every matrix that can be pruned.

    Args:
        name: of a score, or of a control, which has those of what it is made from.
        subject: the model.
        trial: for the score by sensitivity; others do not look at it.

    Raises:
        MeasureError: an unknown score, or a matrix that has none.
    """
    base = base_of(name)
    return sensitivity_scores(subject, trial) if base == SENSITIVITY else weight_scores(base, subject)


def control(name: str, scores: Scores, unit: Unit, draw: int = 0, source: str = "") -> Scores:
    """Return the scores of a control, made from those of its base; other scores are returned as they are.

    Args:
        name: of a score.
        scores: of its base.
        unit: of the allocation: blocks are shuffled, or matrices.
        draw: number of the shuffle.
        source: of the model. Each model has draws of its own of shuffles that keep the relation to depth.

    >>> control("reversed-depth", {"blocks.0.attn.q": 0.0, "blocks.1.attn.q": 1.0}, "block")
    {'blocks.0.attn.q': -0.0, 'blocks.1.attn.q': -1.0}
    """
    if name.startswith(REVERSED):
        return {matrix: -score for matrix, score in scores.items()}
    if name.startswith(DEPTH_SHUFFLED):
        return depth_shuffled(scores, unit, np.random.default_rng([draw, zlib.crc32(source.encode())]))
    if not name.startswith(SHUFFLED):
        return scores
    draws = np.random.default_rng(draw)
    if unit == "matrix":
        return dict(zip(scores, draws.permutation(list(scores.values())).tolist(), strict=True))
    means = {block_of(matrix): score for matrix, score in block_means(scores).items()}
    moved = dict(zip(means, draws.permutation(list(means.values())).tolist(), strict=True))
    return {matrix: moved[block_of(matrix)] for matrix in scores}


def sensitivity_scores(subject: Subject, trial: Trial) -> Scores:
    """Return ranks from 1 for the matrix (or block) whose pruning alone costs most, to the number of them.

    Raises:
        MeasureError: as `prune`.
    """
    costs = sensitivity(subject, trial)
    ranks = stats.rankdata([-cost for cost in costs.values()])
    found = dict(zip(costs, ranks.tolist(), strict=True))
    return {name: found[_unit_of(name, trial.unit)] for name in prunable(subject)}


def sensitivity(subject: Subject, trial: Trial) -> dict[str, float]:
    """Measure what the pruning of each matrix (or block) alone costs, in nats per token on the selection text.

    Returns:
        By matrix, or by block.

    Raises:
        MeasureError: as `prune`.
    """
    sizes = entries(subject)
    base = float(subject.losses(trial.selection).double().mean())
    groups: dict[str, dict[str, int]] = {}
    for name, size in sizes.items():
        groups.setdefault(_unit_of(name, trial.unit), {})[name] = size
    found = {}
    for group, own in groups.items():
        counts = allocate(dict.fromkeys(own, 0.0), own, trial.sparsity, 0.0)
        pruned = prune(subject, counts, trial.method, trial.calibration).subject
        found[group] = float(pruned.losses(trial.selection).double().mean()) - base
    return found


def _unit_of(matrix: str, unit: Unit) -> str:
    return block_of(matrix) if unit == "block" else matrix
