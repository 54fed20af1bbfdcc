"""Costs of removed blocks, the sets that rules choose, and factors of costs."""

import math
from itertools import combinations, pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from planted_costs import VOCAB, costs_of
from scipy import stats

from sims.analysis.removal import RemovalCosts, advantages, worst_to_best
from sims.analysis.removal_rules import (
    LAST,
    LAST_INTERIOR,
    RANDOM,
    choose,
    countable,
    depth_score,
    interior_sets,
    rule_scores,
    sets_of,
)
from sims.analysis.set_ranks import (
    set_rank,
)
from sims.system.errors import MeasureError

# Costs.


def test_costs_are_paired_over_sequences_with_students_interval():
    costs = costs_of({(1,): 0.5, (1, 2): -0.25}, 4, noise=0.1)
    np.testing.assert_allclose(costs.costs, [0.5, -0.25])
    row = costs.table().iloc[0]
    test = stats.ttest_rel(costs.losses[0], costs.base).confidence_interval(0.95)
    assert (row["low"], row["high"]) == pytest.approx((test.low, test.high))
    assert row["error"] == pytest.approx(stats.sem(costs.losses[0] - costs.base))
    assert row["ratio"] == pytest.approx(math.exp(0.5))
    assert list(costs.table()["blocks"]) == ["1", "1,2"]
    assert costs.loss((2, 1)) == pytest.approx(costs.base.mean() - 0.25)


def test_losses_that_are_not_finite_have_a_reason_and_the_worst_rank():
    found = costs_of({(1,): 0.5, (2,): math.inf, (3,): math.nan}, 5)
    assert list(found.costs[1:]) == [math.inf, math.inf]
    table = found.table()
    assert list(table["status"]) == ["ok", "not finite", "not finite"]
    assert table["reason"][2]
    assert set_rank(found.costs, 1).rank == 3
    ok = table[table["status"] == "ok"]
    assert np.isfinite(ok.select_dtypes(float)).all(axis=None)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"base": np.ones(1), "losses": np.ones((1, 1))}, "1 sequences have no standard error"),
        ({"base": np.array([1.0, np.nan])}, "before the run diverged"),
        ({"losses": np.ones((2, 2))}, "must be"),
        ({"sets": ((1,), (1,)), "losses": np.ones((2, 2))}, "twice"),
        ({"sets": ((2, 1),)}, "no rising set"),
        ({"sets": ((7,),)}, "no rising set"),
    ],
)
def test_costs_that_cannot_be_are_refused(change, says):
    good = {"blocks": (0, 1, 2), "vocab": 9, "base": np.ones(2), "sets": ((1,),), "losses": np.ones((1, 2))}
    RemovalCosts(**good)
    with pytest.raises(MeasureError, match=says):
        RemovalCosts(**{**good, **change})


def test_costs_are_joined_and_missing_ones_named():
    one, two = costs_of({(0,): 1.0, (1,): 0.2}, 3), costs_of({(1,): 0.2, (2,): 0.7}, 3)
    both = one.joined(two)
    assert both.sets == ((0,), (1,), (2,))
    np.testing.assert_allclose(both.importance, [1.0, 0.2, 0.7])
    with pytest.raises(MeasureError, match=r"removal of \(2,\) was not measured"):
        _ = one.importance
    with pytest.raises(MeasureError, match="of one model on the same sequences"):
        one.joined(costs_of({(2,): 0.7}, 3, seed=1))


# Rules.


@given(st.integers(3, 9), st.integers(0, 10_000), st.data())
def test_rules_remove_the_lowest_interior_blocks(layers, seed, data):
    n = data.draw(st.integers(1, layers - 2))
    score = np.random.default_rng(seed).integers(0, 3, layers).astype(float)
    found = choose(range(layers), range(1, layers - 1), {"ours": score}, seed)
    inner = set(range(1, layers - 1))
    for rule in ("ours", LAST_INTERIOR, RANDOM):
        sets = [set(found[rule][k]) for k in range(1, layers - 1)]
        assert all(a < b for a, b in pairwise(sets))
        assert all(len(s) == k for k, s in enumerate(sets, 1))
        assert sets[-1] == inner
    own = found["ours"][n]
    # No set of as many interior blocks has a lower sum; of those with the same, ours is the latest.
    others = [(sum(score[list(s)]), [-b for b in reversed(s)]) for s in combinations(sorted(inner), n)]
    assert (sum(score[list(own)]), [-b for b in reversed(own)]) == min(others)
    assert found[LAST][n] == tuple(range(layers - n, layers))
    assert found[LAST_INTERIOR][n] == tuple(range(layers - 1 - n, layers - 1))


def test_random_sets_are_equally_likely():
    draws = [choose(range(6), [2], {}, seed)[RANDOM][2] for seed in range(600)]
    counts = pd.Series(draws).value_counts()
    assert set(counts.index) == set(interior_sets(range(6), 2))
    assert stats.chisquare(counts).pvalue > 0.001


def test_scores_of_rules():
    alpha, importance = [1.0, 3.0, 2.0, 4.0], [9.0, 0.5, 0.1, 8.0]
    scores = rule_scores(alpha=alpha, importance=importance, elsewhere=[[5.0, 2.0, 1.0, 3.0]])
    found = choose(range(4), [1], scores)
    chosen = {rule: sets[1] for rule, sets in found.items() if rule not in (LAST, LAST_INTERIOR, RANDOM)}
    assert chosen == {"spectral low": (2,), "spectral high": (1,), "one at a time": (2,), "depth rule": (2,)}
    with pytest.raises(MeasureError, match="of one model"):
        rule_scores(alpha=alpha, norm=[1.0])
    with pytest.raises(MeasureError, match="score of block influence"):
        rule_scores(influence=[1.0, math.nan])


def test_the_depth_rule_reads_positions_of_other_models():
    # Ends do not count, whatever they cost; ranks, not sizes.
    same = depth_score(5, [[99.0, 3.0, 1.0, 2.0, 0.0], [0.0, 300.0, 100.0, 200.0, 5.0]])
    np.testing.assert_allclose(same[1:-1], [5 / 6, 1 / 6, 3 / 6])
    twice = depth_score(9, [[99.0, 3.0, 1.0, 2.0, 0.0]])
    np.testing.assert_allclose(twice[[2, 4, 6]], [5 / 6, 1 / 6, 3 / 6])
    assert twice[3] == pytest.approx((twice[2] + twice[4]) / 2)
    for wrong in ([], [[1.0, 2.0]], [[1.0, math.nan, 2.0]]):
        with pytest.raises(MeasureError, match=r"other model|another model"):
            depth_score(5, wrong)


def test_what_cannot_be_removed_or_counted_is_refused():
    for n in (0, 4):
        with pytest.raises(MeasureError, match=f"{n} of 5 blocks .* remove 1 to 3"):
            choose(range(5), [n], {})
    with pytest.raises(MeasureError, match="more than 3000; remove fewer"):
        interior_sets(range(24), 4)
    with pytest.raises(MeasureError, match="score of ours has 4 numbers for 5"):
        choose(range(5), [1], {"ours": np.ones(4)})
    assert countable(24, 3)
    assert len(interior_sets(range(24), 3)) == math.comb(22, 3)


def test_sets_to_measure_are_those_of_the_rules_and_all_that_can_be_counted():
    choices = choose(range(24), [2, 4], {"ours": np.arange(24.0)})
    found = sets_of(range(24), choices)
    assert len(found) == len(set(found))
    assert set(interior_sets(range(24), 2)) < set(found)
    four = {s for s in found if len(s) == 4}
    assert four == {sets[4] for sets in choices.values()}
    assert set(sets_of(range(24), choices, every=False)) == {
        s for own in choices.values() for s in own.values()
    }


# Factors.


def test_factors_are_ratios_of_costs_and_of_perplexities():
    costs = costs_of({(1,): 0.2, (2,): 0.5}, 4, n=48, noise=0.05)
    row = advantages(costs, {"a": {1: (1,)}, "b": {1: (2,)}}, "a", "b").iloc[0]
    assert row["factor"] == pytest.approx(2.5)
    assert row["ratio"] == pytest.approx(math.exp(0.3))
    assert row["low"] < 2.5 < row["high"]
    assert row["ratio_low"] < math.exp(0.3) < row["ratio_high"]
    same = advantages(costs, {"a": {1: (1,)}, "b": {1: (1,)}}, "a", "b").iloc[0]
    assert (same["factor"], same["low"], same["high"], same["ratio"]) == (1, 1, 1, 1)


def test_factors_of_costs_near_zero_are_not_resolved():
    costs = costs_of({(1,): 0.001, (2,): 0.5}, 4, n=20, noise=0.1)
    row = advantages(costs, {"a": {1: (1,)}, "b": {1: (2,)}}, "a", "b").iloc[0]
    assert row["status"] == "not resolved"
    assert row["reason"].startswith("the cost of this rule is 0.001 [-")
    assert "has no meaning" in row["reason"]
    assert math.isnan(row["factor"])
    assert row["ratio_low"] < row["ratio"] < row["ratio_high"]
    few = advantages(costs_of({(1,): 0.1, (2,): 0.5}, 4, n=5), {"a": {1: (1,)}, "b": {1: (2,)}}, "a", "b")
    assert "5 sequences are too few" in few["reason"][0]
    lost = advantages(costs_of({(1,): 0.1, (2,): math.inf}, 4), {"a": {1: (1,)}, "b": {1: (2,)}}, "a", "b")
    assert list(lost["status"]) == ["not resolved"]


def test_the_worst_set_against_the_best_with_and_without_the_ends():
    costs = costs_of({(0,): 4.0, (1,): 0.2, (2,): 0.5, (3,): 0.3, (1, 2): 1.0}, 4, n=48, noise=0.05)
    table = worst_to_best(costs, [1, 2])
    assert list(table["of"]) == ["interior", "all measured"]
    assert list(table["number"]) == [2, 4]
    assert list(table["best"]) == ["1", "1"]
    assert list(table["worst"]) == ["2", "0"]
    np.testing.assert_allclose(table["factor"], [2.5, 20.0])
    assert (table["low"] < table["factor"]).all()
    assert (table["factor"] < table["high"]).all()


def test_intervals_of_factors_cover_and_need_the_pairs():
    # 200 draws of 48 sequences, whose differences are shared by both sets: at least 89 % cover.
    draw, covered, widths, unpaired = np.random.default_rng(3), 0, [], []
    choices = {"a": {1: (1,)}, "b": {1: (2,)}}
    for _ in range(200):
        shared = 0.3 * draw.standard_normal(48)
        base = 2 + draw.standard_normal(48)
        own = 0.4 + shared + 0.05 * draw.standard_normal(48)
        other = 0.8 + 2 * shared + 0.05 * draw.standard_normal(48)
        found = RemovalCosts((0, 1, 2, 3), VOCAB, base, ((1,), (2,)), np.stack([base + own, base + other]))
        row = advantages(found, choices, "a", "b").iloc[0]
        covered += row["low"] <= 2 <= row["high"]
        widths.append(row["high"] - row["low"])
        mixed = np.stack([base + own, base + draw.permutation(other)])
        row = advantages(
            RemovalCosts((0, 1, 2, 3), VOCAB, base, ((1,), (2,)), mixed), choices, "a", "b"
        ).iloc[0]
        unpaired.append(row["high"] - row["low"])
    assert covered / 200 >= 0.89
    assert np.median(unpaired) > 3 * np.median(widths)
