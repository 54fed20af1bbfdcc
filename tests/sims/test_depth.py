"""Permutation of layers: against plain enumeration, what seeds cannot add, calibration, planted orders, refusals."""

import math
from itertools import permutations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from sims.analysis.depth import correlation_verdict, depth_correlation, depth_correlations
from sims.analysis.resampling import holm
from sims.system.errors import MeasureError

LEVELS = st.lists(st.integers(0, 4).map(float), min_size=5, max_size=5)


def mean_rho(a, b):
    return float(np.mean([np.asarray(stats.spearmanr(x, y))[0] for x, y in zip(a, b, strict=True)]))


@settings(deadline=None, max_examples=20)
@given(LEVELS, LEVELS, LEVELS)
def test_the_test_counts_every_joint_permutation_of_layers(one, two, other):
    values = np.array([one, two])
    if min(len(set(row)) for row in (one, two, other)) == 1:
        assert "same value" in depth_correlation(values, np.array(other)).reason
        return
    found = depth_correlation(values, np.array(other))
    beside = np.array([other, other])
    every = [abs(mean_rho(values[:, list(order)], beside)) for order in permutations(range(5))]
    observed = mean_rho(values, beside)
    assert found.rho == pytest.approx(observed, abs=1e-12)
    assert found.p == pytest.approx(np.mean(np.array(every) >= abs(observed) - 1e-9))
    assert found.p_min == pytest.approx(np.mean(np.array(every) >= max(every) - 1e-9))
    assert found.exact


def rest(values, columns):
    design = np.column_stack([np.ones(len(values)), *columns])
    return values - design @ np.linalg.lstsq(design, values, rcond=None)[0]


@settings(deadline=None, max_examples=10)
@given(st.integers(0, 10**6), st.sampled_from([("linear",), ("ends",), ("linear", "ends")]))
def test_covariates_are_regressed_out_of_ranks_and_ends_stay_ends(seed, partial):
    a, b = np.random.default_rng(seed).standard_normal((2, 6))
    found = depth_correlation(a, b, partial=partial)
    at = np.arange(6.0)
    columns = [at if name == "linear" else np.isin(at, [0, 5]).astype(float) for name in partial]
    left, right = (rest(stats.rankdata(v), columns) for v in (a, b))
    observed = float(np.corrcoef(left, right)[0, 1])
    allowed = [p for p in permutations(range(6)) if "ends" not in partial or {p[0], p[5]} == {0, 5}]
    every = [abs(float(np.corrcoef(rest(left[list(p)], columns), right)[0, 1])) for p in allowed]
    assert found.rho == pytest.approx(observed, abs=1e-9)
    assert found.p == pytest.approx(np.mean(np.array(every) >= abs(observed) - 1e-9))


@settings(deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 4))
def test_monotone_maps_change_nothing_the_reverse_order_the_sign_and_copies_of_a_seed_no_p(seed, copies):
    values = np.random.default_rng(seed).standard_normal((1, 6))
    plain = depth_correlation(values)
    assert depth_correlation(np.exp(3 * values)).row() == plain.row()
    turned = depth_correlation(values[:, ::-1])
    assert (turned.rho, turned.p) == pytest.approx((-plain.rho, plain.p), abs=1e-12)
    same = depth_correlation(np.repeat(values, copies, axis=0))
    assert (same.rho, same.p, same.p_min) == pytest.approx((plain.rho, plain.p, plain.p_min), abs=1e-12)


def test_interior_layers_are_those_between_the_ends():
    values = np.random.default_rng(0).standard_normal((3, 8))
    found = depth_correlation(values, interior=True)
    assert found == depth_correlation(values[:, 1:-1])
    assert found.layers == 6


def test_an_end_alone_carries_a_correlation_that_interior_layers_lack():
    importance = np.array([9.0, 0.3, 0.1, 0.2, 0.25, 0.15, 0.22, 5.0])
    alpha = np.array([8.0, 0.2, 0.3, 0.25, 0.1, 0.22, 0.15, 6.0])
    assert depth_correlation(alpha, importance).rho > 0.2
    assert depth_correlation(alpha, importance, interior=True).rho < 0
    assert depth_correlation(alpha, importance, partial=("ends",)).rho < 0.1


def test_more_than_eight_layers_are_drawn_with_the_observed_order_counted():
    found = depth_correlation(np.arange(12.0))
    assert (found.rho, found.p, found.p_min) == pytest.approx((1.0, 1e-4, 1e-4))
    assert not found.exact
    values = np.random.default_rng(3).standard_normal((1, 10)) + 0.12 * np.arange(10)
    drawn = depth_correlation(values)
    # The law of ρ by scipy, through a t with few degrees of freedom: near enough for 9,999 draws.
    assert drawn.p == pytest.approx(stats.spearmanr(values[0], np.arange(10))[1], abs=0.02)


def test_four_layers_cannot_be_significant_and_say_so():
    found = depth_correlation(np.tile(np.arange(4.0), (9, 1)))
    assert found.p == found.p_min == pytest.approx(2 / 24)


@pytest.mark.parametrize("partial", [(), ("linear",), ("ends",)])
def test_independent_numbers_are_seldom_correlated(partial):
    """p ≤ 0.05 in 5 % of 400 draws up to chance, with layers' own effects in all seeds, trends and ends in both."""
    at, hits = np.arange(7.0), 0
    for i in range(400):
        generator = np.random.default_rng([1, i])
        both = generator.standard_normal((2, 1, 7)) + 0.5 * generator.standard_normal((2, 3, 7))
        both += ("linear" in partial) * 0.5 * at + ("ends" in partial) * 5 * np.isin(at, [0, 6])
        hits += depth_correlation(both[0], both[1], partial=partial).p <= 0.05
    assert stats.binomtest(hits, 400, 0.05, "greater").pvalue > 1e-2


def test_seeds_permuted_one_by_one_would_reject_far_too_often():
    """A mutant: the null of one permutation a seed, for layers that differ alike in all seeds."""
    every = np.array(list(permutations(range(5))))
    depth, hits, own = np.arange(5.0), 0, 0
    generator = np.random.default_rng(0)
    for _ in range(100):
        values = generator.standard_normal((1, 5)) + 0.1 * generator.standard_normal((4, 5))
        ranks = stats.rankdata(values, axis=1) - 3
        picked = every[generator.integers(len(every), size=(400, 4))]
        drawn = np.take_along_axis(np.broadcast_to(ranks, (400, 4, 5)), picked, axis=2)
        null = np.abs((drawn @ (depth - 2)).mean(axis=1))
        own += np.mean(null >= abs((ranks @ (depth - 2)).mean())) <= 0.05
        hits += depth_correlation(values).p <= 0.05
    assert own > 30
    assert hits <= 10


def test_a_family_is_corrected_by_holm_without_what_is_not_resolved():
    order = np.arange(8.0)
    noise = np.random.default_rng(1).standard_normal(8)
    found = depth_correlations({"q": order, "k": noise, "v": np.ones(8)}).set_index("name")
    assert found["p_holm"]["q"] == pytest.approx(2 * found["p"]["q"])
    assert math.isnan(found["p_holm"]["v"])
    assert found["status"].tolist() == ["ok", "ok", "not resolved"]
    paired = depth_correlations({"q": order, "k": noise}, {"q": order, "k": noise})
    assert paired["rho"].tolist() == pytest.approx([1.0, 1.0])


@pytest.mark.parametrize(
    ("p", "outcome", "said"),
    [
        # .02 · 3 is above .05, and Holm's step-down has no such limit: two tests before it are significant.
        (0.02, "shown", "q ρ = 0.90, p = 0.02"),
        (0.3, "not shown", "q ρ = 0.90, p = 0.3"),
    ],
)
def test_a_test_after_significant_ones_pays_for_the_remaining_ones_only(p, outcome, said):
    def table(sign):
        rows = [("q", 0.9, p, 0.02), ("k", 0.1 * sign, 1e-4, 1e-4), ("v", -0.1 * sign, 1e-4, 1e-4)]
        own = pd.DataFrame(rows, columns=["name", "rho", "p", "p_min"])
        return own.assign(layers=9, status="ok", reason="", p_holm=holm(own["p"].to_numpy()))

    found = correlation_verdict({"all": table(1), "interior": table(-1)}, "A claim")
    assert found.outcome == outcome
    assert said in found.reason


def test_a_claim_needs_one_name_with_one_sign_in_every_table():
    order, noise = np.arange(9.0), np.array([3.0, 1, 4, 0, 5, 8, 2, 6, 7])
    importance = order + 0.1 * noise
    both = {"hill": order, "rank": noise}
    whole, inner = (depth_correlations(both, importance, interior=i) for i in (False, True))
    claim = "Exponents go with importance"
    found = correlation_verdict({"all": whole, "interior": inner}, claim)
    assert found.outcome == "shown"
    assert "interior: hill ρ = 1.00" in found.reason
    turned = depth_correlations(both, -importance, interior=True)
    assert correlation_verdict({"all": whole, "interior": turned}, claim).outcome == "not shown"
    other = depth_correlations({"hill": noise, "rank": order}, importance, interior=True)
    assert correlation_verdict({"all": whole, "interior": other}, claim).outcome == "not shown"
    few = depth_correlations({"hill": order[:6], "rank": noise[:6]}, importance[:6], interior=True)
    small = correlation_verdict({"all": whole, "interior": few}, claim)
    assert (small.outcome, "4 layers and 2 tests cannot" in small.reason) == ("not resolved", True)
    # Five layers have no p below 1/60: twice that is possible, three times that only after the others.
    ranks = {"hill": order[:5], "rank": noise[:5], "norm": noise[:5][::-1]}
    limited = correlation_verdict({"all": depth_correlations(ranks, noise[[0, 2, 1, 3, 4]])}, claim)
    assert (limited.outcome, "5 layers and 3 tests cannot" in limited.reason) == ("not resolved", True)
    flat = depth_correlations({"hill": np.ones(9)}, importance)
    assert "same value in all layers" in correlation_verdict({"all": flat}, claim).reason
    with pytest.raises(MeasureError, match="no tests"):
        correlation_verdict({}, claim)


@pytest.mark.filterwarnings("error")
def test_residuals_that_are_the_covariate_in_another_order_have_no_correlation():
    """What linear depth leaves of the last layer alone is equally far apart: in some order it is linear depth."""
    found = depth_correlation(
        np.array([0.0, 0, 0, 0, 1]), np.array([1.0, 3.0, 2.0, 5.0, 4.0]), partial=["linear"]
    )
    assert found.status == "ok"
    assert 0 < found.p <= 1


@pytest.mark.parametrize(
    ("values", "options", "reason"),
    [
        (np.arange(3.0), {}, "3 layers"),
        (np.arange(5.0), {"interior": True}, "3 layers"),
        (np.array([1.0, np.nan, 2.0, 3.0, 4.0]), {}, "1 values are missing, the first of seed 0, layer 1"),
        (np.ones(6), {}, "same value in all layers"),
        (np.arange(6.0), {"other": np.arange(6.0)[::-1] ** 2, "partial": ["linear"]}, "taken out"),
    ],
)
def test_what_cannot_be_tested_says_why_and_has_no_number(values, options, reason):
    found = depth_correlation(values, **options)
    assert found.status == "not resolved"
    assert reason in found.reason
    assert math.isnan(found.rho)
    assert math.isnan(found.p)
    assert reason in found.sentence


@pytest.mark.parametrize(
    ("values", "options", "said"),
    [
        (np.arange(6.0), {"other": np.arange(5.0)}, "one for each layer"),
        (np.zeros((2, 2, 6)), {}, "seeds, layers"),
        (np.array([1.0, np.inf, 2, 3, 4]), {}, "infinite"),
        (np.arange(6.0), {"partial": ["linear"]}, "nothing"),
        (np.arange(8.0), {"other": np.arange(8.0), "partial": ["ends"], "interior": True}, "no ends"),
        (np.arange(6.0), {"other": np.arange(6.0), "partial": ["width"]}, "choose"),
    ],
)
def test_wrong_input_is_refused(values, options, said):
    with pytest.raises(MeasureError, match=said):
        depth_correlation(values, **options)
    with pytest.raises(MeasureError, match="at least one"):
        depth_correlations({})
