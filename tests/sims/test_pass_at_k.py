"""pass@k: exact on every set of samples, unbiased, monotone; bad numbers are refused."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sims.analysis.pass_at_k import pass_at_k
from sims.system.errors import MeasureError


@given(st.integers(1, 8).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n), st.integers(1, n))))
def test_it_is_the_share_of_sets_with_a_right_sample(case):
    samples, right, k = case
    sets = list(itertools.combinations(range(samples), k))
    share = sum(min(own) < right for own in sets) / len(sets)
    assert pass_at_k([right], samples, [k])[0, 0] == pytest.approx(share, abs=1e-12)


@given(st.integers(1, 600).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n), st.integers(1, n))))
def test_it_is_the_ratio_of_binomial_coefficients(case):
    samples, right, k = case
    exact = 1 - Fraction(math.comb(samples - right, k), math.comb(samples, k))
    assert pass_at_k([right], samples, [k])[0, 0] == pytest.approx(float(exact), abs=1e-12)


@given(st.integers(1, 12), st.integers(1, 12), st.floats(0, 1))
def test_it_is_unbiased(samples, k, chance):
    k = min(k, samples)
    counts = np.arange(samples + 1)
    weights = np.array([math.comb(samples, c) * chance**c * (1 - chance) ** (samples - c) for c in counts])
    expected = float(weights @ pass_at_k(counts, samples, [k])[:, 0])
    assert expected == pytest.approx(1 - (1 - chance) ** k, abs=1e-12)


@given(st.lists(st.integers(0, 20), min_size=1, max_size=5))
def test_it_rises_with_k_from_the_share_of_right_samples(counts):
    found = pass_at_k(counts, 20, range(1, 21))
    np.testing.assert_allclose(found[:, 0], np.array(counts) / 20)
    assert (np.diff(found, axis=1) >= -1e-12).all()
    assert found[:, -1].tolist() == [float(c > 0) for c in counts]


@pytest.mark.parametrize(("right", "ks"), [([1], [0]), ([1], [5]), ([5], [1]), ([-1], [1])])
def test_numbers_out_of_range_are_refused(right, ks):
    with pytest.raises(MeasureError, match="of 4 samples"):
        pass_at_k(right, 4, ks)
