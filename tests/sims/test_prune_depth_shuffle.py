"""Shuffles that keep the relation of scores to depth exactly, and permute everything else."""

import itertools
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from sims.prune.allocation import block_means
from sims.prune.depth_shuffle import depth_shuffled, same_trend
from sims.prune.score_names import NAMES, base_of
from sims.prune.scores import control
from sims.system.errors import MeasureError

DRAWS = 600
KINDS = ("attn.q", "attn.o", "mlp.fc")


def named(values):
    return {f"blocks.{i // 3}.{KINDS[i % 3]}": float(v) for i, v in enumerate(values)}


def trend(values):
    ranks = np.rint(2 * stats.rankdata(values)).astype(int)
    return int(ranks @ np.arange(len(values)))


# Few values, so that there are ties.
VALUES = st.lists(st.integers(0, 5), min_size=2, max_size=9)


@settings(max_examples=60, deadline=None)
@given(VALUES, st.integers(0, 100))
def test_the_rank_trend_is_kept_exactly_and_the_values_are_the_same(values, seed):
    own = np.array(values, float)
    moved = own[same_trend(own, np.random.default_rng(seed))]
    assert trend(moved) == trend(own)
    assert sorted(moved) == sorted(own)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-3, 3), min_size=12, max_size=12), st.integers(0, 100))
def test_matrices_stay_in_their_block(values, seed):
    scores = named(values)
    found = control("depth-shuffled-farms", scores, "matrix", seed)
    assert list(found) == list(scores)
    for block in range(4):
        kept = [sorted(v for n, v in s.items() if n.startswith(f"blocks.{block}.")) for s in (scores, found)]
        assert kept[0] == kept[1]


@settings(max_examples=60, deadline=None)
@given(st.permutations(range(6)), st.integers(0, 100))
def test_blocks_keep_their_correlation_with_depth(order, seed):
    scores = named(np.repeat(order, 3) + np.tile([0.0, 0.25, -0.25], 6))
    found = control("depth-shuffled-farms", scores, "block", seed, "model")
    means = [list(dict.fromkeys(block_means(s).values())) for s in (scores, found)]
    assert sorted(means[0]) == sorted(means[1])
    assert trend(means[0]) == trend(means[1])


@pytest.mark.parametrize("values", [(2, 0, 1, 3), (1, 0, 3, 2, 4), (1, 0, 3, 0, 2)])
def test_all_arrangements_of_one_trend_are_equally_likely(values):
    own = np.array(values, float)
    fitting = [p for p in itertools.permutations(range(len(own))) if trend(own[list(p)]) == trend(own)]
    wanted = Counter(tuple(own[list(p)]) for p in fitting)
    rng = np.random.default_rng(5)
    drawn = Counter(tuple(own[same_trend(own, rng)]) for _ in range(DRAWS))
    assert set(drawn) == set(wanted)
    assert len(wanted) > 2
    expected = [DRAWS * wanted[key] / len(fitting) for key in wanted]
    assert stats.chisquare([drawn[key] for key in wanted], expected).pvalue > 0.001


@pytest.mark.slow
def test_many_values_are_shuffled_as_evenly():
    # By rejection: 9 values at a trend that 1.9 % of all orders have.
    own = np.array([1, 0, 5, 3, 2, 8, 4, 7, 6], float)
    rng = np.random.default_rng(6)
    every = np.array([rng.permutation(9) for _ in range(60_000)])
    oracle = every[(2 * (every + 1)) @ np.arange(9) == trend(own)]
    drawn = np.array([own[same_trend(own, rng)] for _ in range(len(oracle))])
    for place in (0, 4, 8):
        table = [np.bincount(found[:, place].astype(int), minlength=9) for found in (oracle, drawn)]
        kept = np.array(table)[:, np.sum(table, axis=0) > 10]
        found: Any = stats.chi2_contingency(kept)
        assert found.pvalue > 0.001


def test_blocks_in_the_order_of_depth_have_no_other_arrangement():
    for turned in (1, -1):
        scores = named(turned * np.repeat(np.arange(5.0), 3))
        assert all(depth_shuffled(scores, "block", np.random.default_rng(i)) == scores for i in range(20))


def test_draws_differ_between_models_and_are_the_same_again():
    scores = named(np.random.default_rng(0).normal(size=30))
    for unit in ("block", "matrix"):
        found = [
            control("depth-shuffled-alpha", scores, unit, draw, name) for name in "ab" for draw in range(4)
        ]
        assert len({tuple(f.values()) for f in found}) > 4
        assert found[1] == control("depth-shuffled-alpha", scores, unit, 1, "a")


def test_depth_is_not_shuffled_at_its_own_depth():
    assert "depth-shuffled-depth" not in NAMES
    with pytest.raises(MeasureError, match="of all but uniform and depth"):
        base_of("depth-shuffled-depth")
