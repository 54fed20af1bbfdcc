"""Asymmetry of two groups of types: against plain enumeration, symmetries, calibration, a planted ratio, verdicts."""

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from sims.analysis.asymmetry import asymmetry, asymmetry_verdict
from sims.system.errors import MeasureError


def groups(generator, layers, seeds, ratio=1.0, own=0.5):
    """Layers that differ alike in all seeds, and types of different levels."""
    both = generator.standard_normal((2, 1, 2, layers)) + own * generator.standard_normal(
        (2, seeds, 2, layers)
    )
    both[0] *= ratio
    return both + np.array([[0.0, 3.0], [1.0, -2.0]])[:, None, :, None]


def slow_ratio(a, b):
    return np.mean([np.std(r, ddof=1) for r in a.reshape(-1, a.shape[-1])]) / np.mean(
        [np.std(r, ddof=1) for r in b.reshape(-1, b.shape[-1])]
    )


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 10**6), st.integers(1, 3))
def test_every_exchange_of_every_pairing_is_counted(seed, seeds):
    a, b = groups(np.random.default_rng(seed), 5, seeds)
    found = asymmetry(a, b)
    assert found.ratio == pytest.approx(slow_ratio(a, b))
    a, b = (v - v.mean(axis=-1, keepdims=True) for v in (a, b))
    tests = []
    for order in ([0, 1], [1, 0]):
        other, sizes = b[:, order], []
        for moved in product([False, True], repeat=5):
            one, two = np.where(moved, other, a), np.where(moved, a, other)
            sizes.append(abs(math.log(slow_ratio(one, two))))
        tests.append(np.mean(np.array(sizes) >= sizes[0] - 1e-9))
    assert found.p == pytest.approx(max(tests))
    assert found.exact


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10**6), st.floats(0.1, 10), st.floats(-5, 5))
def test_levels_and_units_do_nothing_and_exchanged_groups_invert_the_ratio(seed, unit, level):
    a, b = groups(np.random.default_rng(seed), 6, 3)
    plain = asymmetry(a, b)
    moved = asymmetry(unit * a + np.array([level, 0.0])[:, None], unit * b - level)
    assert (moved.ratio, moved.low, moved.high) == pytest.approx((plain.ratio, plain.low, plain.high))
    assert moved.p == pytest.approx(plain.p)
    turned = asymmetry(b, a)
    assert (turned.ratio, turned.low, turned.high, turned.p) == pytest.approx(
        (1 / plain.ratio, 1 / plain.high, 1 / plain.low, plain.p)
    )
    assert plain.low <= plain.ratio <= plain.high


@pytest.mark.parametrize(("layers", "seeds"), [(8, 1), (8, 3), (12, 3)])
def test_equal_groups_are_seldom_told_apart(layers, seeds):
    hits = 0
    for i in range(400):
        a, b = groups(np.random.default_rng([layers, i]), layers, seeds)
        hits += asymmetry(a, b).p <= 0.05
    assert stats.binomtest(hits, 400, 0.05, "greater").pvalue > 1e-2


def test_the_interval_over_seeds_alone_would_be_fooled_by_layers_and_the_verdict_is_not():
    """A mutant: lower bound above 1 as the rule, for equal groups of six layers that differ alike in three seeds."""
    fooled = shown = 0
    for i in range(150):
        a, b = groups(np.random.default_rng(i), 8, 3, own=0.2)
        whole, inner = asymmetry(a, b), asymmetry(a, b, interior=True)
        fooled += whole.low > 1 and inner.low > 1
        shown += asymmetry_verdict(whole, inner).outcome == "shown"
    assert fooled > 30
    assert shown <= 7


def test_a_planted_ratio_is_found():
    a, b = groups(np.random.default_rng(2), 12, 4, ratio=4.0)
    whole, inner = asymmetry(a, b), asymmetry(a, b, interior=True)
    assert 2.5 < whole.low < whole.ratio < whole.high < 6
    found = asymmetry_verdict(whole, inner)
    assert found.outcome == "shown"
    assert "q and k" in found.claim
    assert asymmetry_verdict(asymmetry(b, a), asymmetry(b, a, interior=True)).outcome == "not shown"


def test_many_layers_are_drawn():
    a, b = groups(np.random.default_rng(5), 20, 3, ratio=3.0)
    found = asymmetry(a, b)
    assert not found.exact
    assert found.p == found.p_min == pytest.approx(1e-4)


def test_few_seeds_and_few_layers_are_not_resolved():
    a, b = groups(np.random.default_rng(2), 12, 2, ratio=4.0)
    assert asymmetry_verdict(asymmetry(a, b), asymmetry(a, b, interior=True)).outcome == "not resolved"
    a, b = groups(np.random.default_rng(2), 5, 4, ratio=40.0)
    small = asymmetry_verdict(asymmetry(a, b), asymmetry(a, b, interior=True))
    assert small.outcome == "not resolved"
    assert "5 layers cannot" in small.reason
    assert "3 layers; the test needs 4" in small.reason


def test_what_has_no_ratio_says_why():
    a, b = groups(np.random.default_rng(2), 6, 3)
    assert "second types of a seed" in asymmetry(a, np.ones_like(b)).reason
    a[0, 0, 0] = np.nan
    found = asymmetry(a, b)
    assert found.status == "not resolved"
    assert "1 values of the first types" in found.sentence
    with pytest.raises(MeasureError, match="as many types"):
        asymmetry(a, b[:, :1])
    with pytest.raises(MeasureError, match="infinite"):
        asymmetry(np.full((2, 6), np.inf), np.ones((2, 6)))
