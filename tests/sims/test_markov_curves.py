"""Curves of the same runs go together beyond a shared trend: chance, stages, and all permutations."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from sims.studies.markov import curves


def test_a_trend_that_all_runs_share_is_no_evidence():
    rng = np.random.default_rng(1)
    trend = np.linspace(0, 1, 10)
    p = [curves.run_permutation(*(trend + 0.1 * rng.normal(size=(2, 12, 1))), draws=199) for _ in range(200)]
    assert abs(np.mean(np.array(p) <= 0.2) - 0.2) < 0.1
    ahead = 0.1 * rng.normal(size=(12, 1))
    assert curves.run_permutation(trend + ahead, -(trend + ahead)) < 0.01
    assert math.isnan(curves.run_permutation(trend[None], trend[None]))
    assert math.isnan(curves.run_permutation(np.ones((3, 2)), trend[:6].reshape(3, 2)))


def test_what_tells_stages_apart_is_no_evidence():
    """Both numbers differ between four stages, for unrelated reasons: their seeds do not make that a relation."""
    rng = np.random.default_rng(2)
    stages, trend = np.repeat(np.arange(4), 5), np.linspace(0, 1, 6)

    def side():
        return (rng.normal(size=4)[stages] + 0.2 * rng.normal(size=20))[:, None] + trend

    p, pooled = [], []
    for _ in range(120):
        x, y = side(), -side()
        p.append(curves.run_permutation(x, y, stages, draws=99))
        pooled.append(curves.run_permutation(x, y, draws=99))
    assert np.mean(np.array(p) <= 0.05) < 0.12
    assert np.mean(np.array(pooled) <= 0.05) > 0.25
    # A relation within the stages is seen, and one run a stage has none.
    ahead = 0.2 * rng.normal(size=(20, 1)) + rng.normal(size=4)[stages][:, None]
    assert curves.run_permutation(trend + ahead, -(trend + ahead), stages, draws=999) < 0.01
    assert math.isnan(curves.run_permutation(trend + ahead[::5], trend - ahead[::5], np.arange(4)))


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000), st.integers(2, 5), st.integers(2, 6), st.floats(0, 50))
def test_what_is_beyond_a_trend_is_the_correlation_less_its_mean_over_all_permutations(
    seed, runs, looks, slope
):
    rng = np.random.default_rng(seed)
    trend = slope * np.arange(looks)
    x, y = rng.normal(size=(runs, looks)) + trend, rng.normal(size=(runs, looks)) - trend
    of = {
        order_: stats.spearmanr(x.ravel(), y[list(order_)].ravel()).statistic
        for order_ in itertools.permutations(range(runs))
    }
    expected = of[tuple(range(runs))] - np.mean(list(of.values()))
    assert curves.beyond_trend(x, y) == pytest.approx(expected, abs=1e-9)


def test_the_sign_is_that_of_runs_however_steep_the_trend_that_they_share():
    """The trend alone makes the plain correlation −.98; runs that are ahead in loss hold less at every look."""
    rng = np.random.default_rng(0)
    trend, lead = np.linspace(0, 1, 12), np.linspace(-0.03, 0.03, 8)[:, None]
    losses, shares = 1 - trend + lead, 0.2 + 0.6 * trend + lead
    losses, shares = (t + 0.001 * rng.normal(size=(8, 12)) for t in (losses, shares))
    assert stats.spearmanr(losses.ravel(), shares.ravel()).statistic < -0.9
    assert curves.beyond_trend(shares, losses) > 0 > curves.beyond_trend(shares[::-1], losses)
    assert curves.run_permutation(shares, losses, draws=999) < 0.01
