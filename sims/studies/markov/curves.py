"""Test whether two curves of the same runs go together beyond a trend that all runs share."""

from __future__ import annotations

import math

import numpy as np

from sims.analysis.resampling import DRAWS, TIE, standard_ranks


def run_permutation(
    x: np.ndarray, y: np.ndarray, groups: np.ndarray | None = None, draws: int = DRAWS
) -> float:
    """Test Spearman's correlation of two numbers of the same runs at the same looks, permuting runs.

    Curves stay whole, so that a trend that all runs share counts for nothing.

    Args:
        x, y: (runs, looks).
        groups: (runs,) labels within which runs are permuted, so that what a group has in common counts for nothing
            either; None for one group.
        draws: permutations.

    Returns:
        The share of permutations whose correlation is at least as far from the mean over all of them; NaN where no
        group has two runs, or one side does not vary. The sign is that of `beyond_trend`.
    """
    if math.isnan(beyond_trend(x, y, groups)):
        return math.nan
    rng = np.random.default_rng(len(x))
    together, drawn, mean = _together(x, y), np.zeros(draws), 0.0
    for own in _members(len(x), groups):
        drawn += together[own, rng.permuted(np.tile(own, (draws, 1)), axis=1)].sum(axis=1)
        mean += together[np.ix_(own, own)].sum() / len(own)
    far = np.abs(drawn - mean) >= abs(np.trace(together) - mean) - TIE
    return float((1 + far.sum()) / (1 + draws))


def beyond_trend(x: np.ndarray, y: np.ndarray, groups: np.ndarray | None = None) -> float:
    """Return Spearman's correlation of two numbers of the same runs, less its mean over all permutations of runs.

    The sign is that of the relation between runs: a trend that all runs share is in the mean too.

    Args:
        x, y: (runs, looks).
        groups: as of `run_permutation`.

    Returns:
        NaN where no group has two runs, or one side does not vary.

    >>> trend, ahead = np.linspace(0, 1, 5), np.array([[0.0], [0.1], [0.2]])
    >>> beyond_trend(ahead + trend, ahead - trend) > 0 > beyond_trend(ahead + trend, -ahead + trend)
    True
    """
    members = _members(len(x), groups)
    if not x.size or max(map(len, members)) < 2:
        return math.nan
    together = _together(x, y)
    # A permutation has each pair of runs of a group with the same probability, 1/runs.
    mean = sum(together[np.ix_(own, own)].sum() / len(own) for own in members)
    return float(np.trace(together) - mean)


def _members(runs: int, groups: np.ndarray | None) -> list[np.ndarray]:
    """Return the places of the runs of each group."""
    if groups is None:
        return [np.arange(runs)]
    return [np.flatnonzero(groups == name) for name in dict.fromkeys(groups.tolist())]


def _together(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return how the curve of one run goes with that of another, (runs, runs): a permutation is a sum over runs."""
    first, second = (standard_ranks(numbers.ravel()).reshape(numbers.shape) for numbers in (x, y))
    return first @ second.T
