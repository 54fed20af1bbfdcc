"""Scores of matrices, from which ratios of pruning follow: the highest is pruned most.

| score | of a matrix |
|---|---|
| uniform | 0: every matrix loses one share |
| alpha | Hill exponent of its squared singular values |
| farms | the same of square tiles of one size for all matrices |
| alpha-z, farms-z | how many standard deviations above the mean of Gaussian matrices of its shape (its tiles) |
| depth | number of its block |
| sensitivity | rank of what its pruning alone costs, the cheapest highest |

"reversed-NAME" is the negative score, "shuffled-NAME" the same numbers given to other matrices (or blocks): the
controls that a rule has to beat before its score is credited with anything.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import stats
from torch import Tensor

from sims.measure.weight_tails import farms_of, tile_of
from sims.models.subject import Subject
from sims.prune.allocation import Unit, allocate, block_means, block_of
from sims.prune.prune import entries, prunable, prune
from sims.prune.score_names import REVERSED, SENSITIVITY, SHUFFLED, UNIFORM, base_of
from sims.system.errors import MeasureError
from spectra import Estimate, Spectrum, hill, hill_z, weight_spectrum
from spectra.arrays import stored_precision
from spectra.nulls import noise_energies

Scores = dict[str, float]
# Pools of Gaussian tiles that a FARMS exponent is compared with.
NOISE_DRAWS = 100
_OTHERS = "prune by uniform or depth, or another checkpoint"


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


def alpha_scores(subject: Subject) -> Scores:
    """Return the Hill exponent of every matrix that can be pruned.

    Raises:
        MeasureError: a matrix without a tail, such as one of zeros.
    """
    return {
        name: _value(name, hill(spectrum, tests=False, precision=own))
        for name, (spectrum, own) in _spectra(subject).items()
    }


def farms_scores(subject: Subject) -> Scores:
    """Return the FARMS exponent of every matrix, with tiles of one size.

    Raises:
        MeasureError: a matrix without a tail.
    """
    return {name: _value(name, own) for name, own in _farms(subject).items()}


def alpha_z_scores(subject: Subject) -> Scores:
    """Return the Hill exponent of every matrix in standard deviations above Gaussian matrices of its shape.

    Raises:
        MeasureError: a matrix without a tail.
    """
    return {
        name: _value(name, hill_z(spectrum, precision=own))
        for name, (spectrum, own) in _spectra(subject).items()
    }


def farms_z_scores(subject: Subject) -> Scores:
    """Return the FARMS exponent of every matrix in standard deviations above independent Gaussian tiles.

    Raises:
        MeasureError: a matrix without a tail.
    """
    found = {}
    for name, own in _farms(subject).items():
        value = _value(name, own)
        mean, deviation = _noise(int(own.details["tile_short"]), int(own.details["tiles"]))
        found[name] = (value - mean) / deviation
    return found


def depth_scores(subject: Subject) -> Scores:
    """Return the number of the block of every matrix: later blocks are pruned more."""
    return {name: float(block_of(name).removeprefix("blocks.")) for name in prunable(subject)}


def uniform_scores(subject: Subject) -> Scores:
    """Return 0 for every matrix."""
    return dict.fromkeys(prunable(subject), 0.0)


OF_WEIGHTS: Mapping[str, Callable[[Subject], Scores]] = {
    UNIFORM: uniform_scores,
    "alpha": alpha_scores,
    "alpha-z": alpha_z_scores,
    "farms": farms_scores,
    "farms-z": farms_z_scores,
    "depth": depth_scores,
}


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
    return sensitivity_scores(subject, trial) if base == SENSITIVITY else OF_WEIGHTS[base](subject)


def control(name: str, scores: Scores, unit: Unit, draw: int = 0) -> Scores:
    """Return the scores of a control, made from those of its base; other scores are returned as they are.

    Args:
        name: of a score.
        scores: of its base.
        unit: of the allocation: blocks are shuffled, or matrices.
        draw: number of the shuffle.

    >>> control("reversed-depth", {"blocks.0.attn.q": 0.0, "blocks.1.attn.q": 1.0}, "block")
    {'blocks.0.attn.q': -0.0, 'blocks.1.attn.q': -1.0}
    """
    if name.startswith(REVERSED):
        return {matrix: -score for matrix, score in scores.items()}
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


def _matrices(subject: Subject) -> dict[str, Tensor]:
    matrices = subject.matrices
    found = {name: matrices[name] for name in prunable(subject)}
    if zero := [name for name, W in found.items() if not bool(W.any())]:
        raise MeasureError(f"{zero[0]} has no exponent (it is all zero); {_OTHERS}")
    return found


def _spectra(subject: Subject) -> dict[str, tuple[Spectrum, float]]:
    """Return the spectrum of every matrix, and the precision in which its entries are stored."""
    own = {name: (W, stored_precision(W)) for name, W in _matrices(subject).items()}
    return {name: (weight_spectrum(W, precision=eps), eps) for name, (W, eps) in own.items()}


def _farms(subject: Subject) -> dict[str, Estimate]:
    own = _matrices(subject)
    tile = tile_of(own)
    return {name: farms_of(W, tile, stored_precision(W), tests=False) for name, W in own.items()}


def _value(name: str, found: Estimate) -> float:
    if found.status == "not fitted":
        raise MeasureError(f"{name} has no exponent ({found.reason}); {_OTHERS}")
    return found.value


@lru_cache(maxsize=64)
def _noise(size: int, tiles: int) -> tuple[float, float]:
    """Return mean and standard deviation of the Hill exponent of pools of independent square Gaussian tiles."""
    energies = noise_energies(size, size, np.random.default_rng([size, tiles]), NOISE_DRAWS * tiles)
    values = [hill(pool, tests=False).value for pool in energies.reshape(NOISE_DRAWS, -1)]
    return float(np.mean(values)), float(np.std(values, ddof=1))
