"""Areas under the ROC curve: the definition, symmetries, coverage, and what cannot be resolved."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from sims.analysis.roc import clopper_pearson, newcombe, roc_auc
from sims.system.errors import MeasureError

VALUES = st.lists(st.integers(-4, 4).map(float), min_size=2, max_size=9)


def slow_area(positive, negative):
    return sum((p > n) + 0.5 * (p == n) for p in positive for n in negative) / (len(positive) * len(negative))


def slow_variance(positive, negative):
    """DeLong's variance, run by run."""
    one = [slow_area([p], negative) for p in positive]
    two = [slow_area(positive, [n]) for n in negative]
    return float(np.var(one, ddof=1) / len(one) + np.var(two, ddof=1) / len(two))


@settings(deadline=None)
@given(VALUES, VALUES)
def test_area_and_interval_are_those_of_the_definition(positive, negative):
    found = roc_auc(positive, negative, resamples=99)
    assert found.auc == pytest.approx(slow_area(positive, negative))
    assert 0 <= found.low <= found.auc <= found.high <= 1
    assert found.lowest <= found.auc + 1e-12
    variance = slow_variance(positive, negative)
    if variance > 0 and 0 < found.auc < 1:
        logit = [math.log(v / (1 - v)) for v in (found.low, found.auc, found.high)]
        reach = 1.959964 * math.sqrt(variance) / (found.auc * (1 - found.auc))
        assert np.diff(logit) == pytest.approx([reach, reach], rel=1e-5)


@settings(deadline=None)
@given(VALUES, VALUES)
def test_the_other_sign_mirrors_and_monotone_maps_do_nothing(positive, negative):
    found = roc_auc(positive, negative, resamples=19)
    mirrored = roc_auc(negative, positive, resamples=19)
    assert (mirrored.auc, mirrored.low, mirrored.high) == pytest.approx(
        (1 - found.auc, 1 - found.high, 1 - found.low), abs=1e-9
    )
    mapped = roc_auc(np.exp(positive), np.exp(negative), resamples=19)
    assert mapped == found


@settings(deadline=None)
@given(st.integers(2, 40), st.integers(2, 40), st.floats(0.0, 1.0))
def test_newcombe_bounds_solve_their_equation(m, n, auc):
    low, high = newcombe(auc, m, n)
    assert 0 <= low <= auc <= high <= 1
    half = (m + n) / 2 - 1
    for bound in (low, high):
        if 0 < bound < 1:
            spread = 1 + half * (1 - bound) / (2 - bound) + half * bound / (1 + bound)
            error = 1.959964 * math.sqrt(bound * (1 - bound) * spread / (m * n))
            assert abs(auc - bound) == pytest.approx(error, rel=1e-4, abs=1e-9)


def test_eight_runs_that_do_not_overlap_are_just_above_the_bound_and_seven_are_not():
    assert roc_auc(range(8, 16), range(8)).lowest > 0.7
    assert roc_auc(range(7, 14), range(7)).lowest < 0.74
    assert roc_auc(range(7, 14), range(7)).boot_low == 1.0


TRIALS = 400


@pytest.mark.parametrize(("m", "n", "shift"), [(8, 8, 0.0), (12, 12, 1.5), (20, 10, 0.5)])
def test_the_interval_covers(m, n, shift):
    """Normal scores: the true area is outside in at most 5 % of samples, up to chance."""
    true, missed = float(stats.norm.cdf(shift / math.sqrt(2))), 0
    for i in range(TRIALS):
        generator = np.random.default_rng([m, i])
        found = roc_auc(
            generator.standard_normal(m) + shift, generator.standard_normal(n), resamples=1, seed=i
        )
        missed += not found.low <= true <= found.high
    assert stats.binomtest(missed, TRIALS, 0.05, "greater").pvalue > 1e-2


def test_ties_and_constant_scores_have_an_interval():
    tied = roc_auc([1.0] * 5, [1.0] * 5)
    assert tied.auc == 0.5
    assert tied.low < 0.5 < tied.high


def test_one_class_is_not_resolved_and_a_nan_is_refused():
    found = roc_auc([1.0, 2.0], [])
    assert found.status == "not resolved"
    assert "2 and 0 runs" in found.sentence
    assert math.isnan(found.auc)
    with pytest.raises(MeasureError, match="not finite"):
        roc_auc([1.0, math.nan], [1.0, 2.0])


def test_the_exact_interval_of_a_share():
    low, high = clopper_pearson(0, 10)
    assert (low, high) == pytest.approx((0.0, 1 - 0.025**0.1))
    assert clopper_pearson(0, 0) == (0.0, 1.0)
