"""Ranks of removed sets among all sets, tests of them over models, and the verdict."""

import math
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from planted_costs import VOCAB, costs_of, drawn_model, every_set, rows_of
from scipy import stats

from sims.analysis.removal import advantages, broken, cost_table
from sims.analysis.removal_rules import (
    LAST,
    LAST_INTERIOR,
    choose,
    interior_sets,
    rule_scores,
    sets_of,
)
from sims.analysis.set_ranks import (
    Model,
    guidance,
    pooled_rank,
    pooled_ranks,
    rank_table,
    set_rank,
    sign_test,
)
from sims.system.errors import MeasureError

# Ranks of sets.


@given(
    st.lists(st.sampled_from([0.0, 0.1, 0.2, 0.5, math.inf]) | st.floats(-1, 3), min_size=1, max_size=40),
    st.data(),
)
def test_ranks_are_those_of_brute_force(costs, data):
    chosen = data.draw(st.integers(0, len(costs) - 1))
    found = set_rank(costs, chosen)
    own = costs[chosen]
    tied = [c == own or abs(c - own) <= 1e-9 for c in costs]
    less = sum(c < own and not t for c, t in zip(costs, tied, strict=True))
    assert found.rank == less + sum(tied)
    assert found.p == found.rank / len(costs)
    middle = less + (sum(tied) + 1) / 2
    assert found.score == pytest.approx(stats.norm.ppf((middle - 0.5) / len(costs)), abs=1e-12)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=30))
def test_scores_of_all_sets_have_mean_zero_and_p_is_conservative(costs):
    found = [set_rank(costs, i) for i in range(len(costs))]
    if len(set(costs)) == len(costs):
        assert sum(f.score for f in found) == pytest.approx(0, abs=1e-9)
    for level in (0.05, 0.2, 0.5):
        assert np.mean([f.p <= level for f in found]) <= level + 1e-12


def test_p_of_a_random_set_is_uniform():
    # 4,000 draws among 20 sets, each of which has the ranks 1 to 20 equally often.
    draw = np.random.default_rng(5)
    found = [set_rank(draw.random(20), int(draw.integers(20))).rank for _ in range(4_000)]
    counts = np.bincount(found, minlength=21)[1:]
    assert stats.chisquare(counts).pvalue > 0.001


def test_sets_without_a_rank_have_a_reason():
    layers, counts = 6, (1, 2)
    choices = choose(range(layers), counts, {"ours": np.arange(6.0)})
    costs = {s: 0.1 * sum(s) for s in every_set(layers)}
    found = rows_of(rank_table(costs_of(costs, layers), choices))
    assert found["ours", 1]["rank"] == 1
    assert found["ours", 2]["p"] == pytest.approx(1 / 6)
    assert found[LAST_INTERIOR, 2]["rank"] == 6
    last = found[LAST, 1]
    assert last["status"] == "not ranked"
    assert "first or the last block" in last["reason"]
    del costs[(2, 3)]
    table = rank_table(costs_of(costs, layers), choices)
    assert "1 of the 6 interior sets were not measured" in rows_of(table)["ours", 2]["reason"]
    assert table[table["status"] == "ok"].notna().all(axis=None)
    whole = {"ours": {3: (1, 2, 3)}}
    table = rank_table(costs_of({(1, 2, 3): 0.5}, 5), whole)
    assert "nothing to choose" in table["reason"][0]
    many = choose(range(24), [4], {})
    table = rank_table(costs_of(dict.fromkeys(sets_of(range(24), many), 0.1), 24), many)
    assert table["reason"].str.contains("10626 sets of 4 blocks are too many").sum() == 3


# Tests over models.


def pooled_by_brute_force(models, rule):
    """Mean normal score, and its law where the interior blocks are exchanged in all models alike."""
    inner = models[0].costs.blocks[1:-1]
    scores = []
    for costs, choices in models:
        scores.append({})
        for n in choices[rule]:
            every = interior_sets(costs.blocks, n)
            values = [costs.cost(s) for s in every]
            scores[-1] |= {s: set_rank(values, i).score for i, s in enumerate(every)}
    totals = [
        np.sum(
            [
                found[tuple(sorted(dict(zip(inner, order, strict=True))[block] for block in own))]
                for found, model in zip(scores, models, strict=True)
                for own in model.choices[rule].values()
            ]
        )
        for order in permutations(inner)
    ]
    cells = sum(len(model.choices[rule]) for model in models)
    return totals[0] / cells, *(np.mean(np.array(totals) <= t + 1e-9) for t in (totals[0], min(totals)))


@pytest.mark.parametrize("seed", range(4))
def test_the_pooled_test_counts_all_orders_which_models_of_one_depth_share(seed):
    draw = np.random.default_rng(seed)
    models = [drawn_model(draw.random(6), seed + 10 * k, 6, (1, 2, 3)[: 3 - k]) for k in range(2)]
    for own in (models[:1], models):
        found = pooled_rank(own, "ours")
        expected, p, p_min = pooled_by_brute_force(own, "ours")
        assert found.exact
        assert (found.models, found.cells) == (len(own), (3, 5)[len(own) - 1])
        assert (found.score, found.p, found.p_min) == pytest.approx((expected, p, p_min))


def test_more_seeds_with_the_same_blocks_are_no_more_evidence():
    """Independent orders in each seed took an agreement of two profiles for one of every seed."""
    for layers in (6, 10):
        model = drawn_model(np.random.default_rng(5).random(layers), 5, layers=layers, counts=(1, 2))
        one, many = pooled_rank([model], "ours"), pooled_rank([model] * 6, "ours")
        assert (many.p, many.p_min, many.score) == pytest.approx((one.p, one.p_min, one.score))


def test_the_pooled_test_knows_no_order_of_models():
    models = [drawn_model(np.random.default_rng(n).random(n), n, layers=n, counts=(1, 2)) for n in (6, 9, 7)]
    found = pooled_rank(models, "ours")
    assert not found.exact
    assert pooled_rank(models[::-1], "ours").p == found.p


def naive_p(model, rule):
    """A p-value that takes the ranks of several N as independent."""
    scores = np.array(rank_table(model.costs, model.choices, [rule])["score"], float)
    return stats.norm.cdf(scores.mean() * math.sqrt(len(scores)))


def false_alarms(p_of, draws=300, level=0.1):
    found = []
    for seed in range(draws):
        score = np.random.default_rng(10_000 + seed).random(7)
        # Costs that add up: the ranks at several N are nearly the same.
        own = np.random.default_rng(seed).random(7)
        costs = {s: float(sum(own[list(s)])) for s in every_set(7)}
        found.append(p_of(Model(costs_of(costs, 7), choose(range(7), [1, 2, 3, 4], {"ours": score}))))
    return float(np.mean(np.array(found) <= level))


@pytest.mark.slow
def test_under_a_random_score_the_pooled_p_is_uniform_though_sets_lie_within_each_other():
    # 300 draws: three standard errors are 0.052.
    assert 0.03 < false_alarms(lambda m: pooled_rank([m], "ours").p) < 0.152
    # The ranks of several N are not independent; a test that takes them so finds too much.
    assert false_alarms(lambda m: naive_p(m, "ours")) > 0.2


@pytest.mark.slow
def test_over_models_a_random_score_is_not_found_and_a_planted_one_is():
    found = []
    for seed in range(120):
        score = np.random.default_rng(20_000 + seed).random(7)
        found.append(pooled_rank([drawn_model(score, 5 * seed + k) for k in range(3)], "ours").p)
    assert 0.02 <= np.mean(np.array(found) <= 0.1) < 0.19
    assert 0.35 < np.mean(np.array(found) <= 0.5) < 0.65
    planted = [drawn_model(np.random.default_rng(n).random(n), n, n, follows=0.9) for n in (7, 8, 9, 10)]
    ours, last = pooled_ranks(planted, ["ours", LAST_INTERIOR]).to_dict("records")
    assert ours["p"] < 0.001
    assert ours["p_holm"] == pytest.approx(2 * ours["p"])
    assert last["p"] > 0.01


def test_the_sign_test_counts_models():
    cheap, dear = {(1,): 0.1, (2,): 0.4}, {(1,): 0.4, (2,): 0.1}
    choices = {"a": {1: (1,)}, "b": {1: (2,)}}
    models = [Model(costs_of(c, 4), choices) for c in (cheap, cheap, cheap, dear, dict.fromkeys(cheap, 0.2))]
    found = sign_test(models, "a", "b")
    assert (found.wins, found.losses, found.ties, found.left_out) == (3, 1, 1, 0)
    assert found.p == pytest.approx(stats.binomtest(3, 4).pvalue)
    back = sign_test(models, "b", "a")
    assert (back.wins, back.losses, back.p) == (1, 3, found.p)
    assert sign_test(models, "a", "a").p == 1
    with pytest.raises(MeasureError, match="no rule 'c'; the rules are a, b"):
        sign_test(models, "a", "c")


def test_broken_models_are_skipped_with_the_reason():
    limit = math.log(VOCAB)
    choices = {"a": {1: (1,), 2: (1, 2)}, "b": {1: (2,), 2: (2, 3)}}
    costs = costs_of(
        {(1,): 0.1, (2,): limit, (3,): 1.0, (1, 2): limit, (2, 3): limit + 1, (1, 3): limit}, 5, noise=0.01
    )
    # One rule that works is enough to compare.
    assert list(broken(costs, choices)) == [2]
    table = cost_table(costs, choices)
    assert list(table["status"]) == ["ok", "skipped", "ok", "skipped"]
    assert table["reason"][1].startswith("without 2 of 5 blocks the loss exceeds ln V = 5.55 for every rule")
    ranks = rank_table(costs, choices)
    assert list(ranks["status"]) == ["ok", "skipped", "ok", "skipped"]
    assert pooled_rank([Model(costs, choices)], "a").cells == 1
    assert sign_test([Model(costs, {r: {2: s[2]} for r, s in choices.items()})], "a", "b").left_out == 1
    assert list(advantages(costs, choices, "a", "b")["status"]) == ["ok", "skipped"]


# The verdict.


def spectral_model(seed, follows, influence=0.0, also=()):
    draw = np.random.default_rng(seed)
    alpha = draw.random(8)
    costs = {
        s: 0.2 + 0.1 * len(s) + (1 - follows) * draw.random() + follows * float(sum(alpha[list(s)]))
        for s in (*every_set(8), *also)
    }
    other = influence * alpha + (1 - influence) * draw.random(8)
    scores = rule_scores(alpha=alpha, influence=other)
    return Model(costs_of(costs, 8, seed=seed), choose(range(8), (1, 2, 3), scores, seed))


def test_guidance_is_shown_only_if_it_beats_chance_and_influence():
    shown = guidance([spectral_model(k, 0.95) for k in range(5)])
    assert shown.outcome == "shown"
    assert "spectral low" in shown.reason
    assert guidance([spectral_model(k, 0.0) for k in range(5)]).outcome == "not shown"
    # As good as influence is not better.
    same = guidance([spectral_model(k, 0.95, influence=1.0) for k in range(5)])
    assert same.outcome == "not shown"
    assert "cheaper than block influence in 0" in same.reason


def test_guidance_is_not_resolved_by_few_or_small_models():
    few = guidance([spectral_model(k, 0.95) for k in range(2)])
    assert (few.outcome, few.reason) == ("not resolved", "2 models; the rule needs 3")
    assert guidance([]).outcome == "not resolved"
    choices = choose(range(4), [1], rule_scores(alpha=np.arange(4.0), influence=np.ones(4)))
    small = Model(costs_of({(2,): 0.1, (1,): 0.2, (3,): 1.0}, 4), choices)
    found = guidance([small] * 3)
    assert found.outcome == "not resolved"
    # The better of two sets, in three models alike.
    assert pooled_rank([small] * 3, "spectral low").p_min == 0.5
    assert "is possible with these models and 2 rules" in found.reason


def test_rules_that_cannot_be_ranked_are_no_part_of_the_family():
    """A mutant counted all rules: with a hundred that keep no end, no p seemed possible."""
    names = [f"rule {k}" for k in range(100)]
    models = [spectral_model(k, 0.95, also=[(0,)]) for k in range(3)]
    models = [Model(costs, {**own, **{name: {1: (0,)} for name in names}}) for costs, own in models]
    assert guidance(models, ["spectral low", *names]).outcome == "shown"
