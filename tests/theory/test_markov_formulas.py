"""Formulas of Markov kernels against the same in 60 digits."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from theory.formulas.markov import copy_entropies, renyi_entropy, shannon_entropy

EVERY = settings(deadline=None, max_examples=100)
LAWS = st.tuples(st.integers(1, 12), st.floats(-3, 3), st.integers(0, 2**32 - 1))
NEAR_ONE = st.builds(lambda sign, power: 1 + sign * 10.0**power, st.sampled_from([-1, 1]), st.floats(-16, 0))


def law(drawn):
    """A law of a few tokens, from nearly certain to uniform, some without a chance."""
    size, power, seed = drawn
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.full(size, 10.0**power)) if size > 1 else np.ones(1)
    return np.append(np.maximum(p, 1e-300), 0.0)


def exact_renyi(p, order):
    with mpmath.workdps(60):
        total = mpmath.fsum(mpmath.mpf(float(x)) for x in p)
        parts = [mpmath.mpf(float(x)) / total for x in p if x > 0]
        if order == 1:
            return float(-mpmath.fsum(x * mpmath.log(x) for x in parts))
        gap = 1 - mpmath.mpf(order)
        return float(mpmath.log(mpmath.fsum(x ** mpmath.mpf(order) for x in parts)) / gap)


@EVERY
@given(LAWS, st.one_of(NEAR_ONE, st.floats(-20, 20), st.sampled_from([0.0, 0.5, 1.0, 2.0, 1e3, -1e3, 1e300])))
def test_the_renyi_entropy_keeps_its_digits_at_every_order(drawn, order):
    p = law(drawn)
    assert renyi_entropy(p, order) == pytest.approx(exact_renyi(p, order), rel=1e-12, abs=1e-14)


@EVERY
@given(LAWS, NEAR_ONE)
def test_the_renyi_entropy_is_continuous_through_order_one_and_never_rises(drawn, order):
    p = law(drawn)
    shannon = float(shannon_entropy(p))
    # Its slope at order 1 is −½ of the variance of ln p.
    near = renyi_entropy(p, 1 + (order - 1) * 1e-9)
    assert near == pytest.approx(shannon, abs=1e-9 * (1 + np.log(p[p > 0]).var() + shannon**2) * 10)
    below, above = sorted((order, 2 - order))
    assert renyi_entropy(p, below) >= shannon - 1e-14 * (1 + shannon)
    assert renyi_entropy(p, above) <= shannon + 1e-14 * (1 + shannon)


@pytest.mark.parametrize("order", [-math.inf, -3.0, 0.0, 1 - 1e-12, 1.0, 1 + 1e-12, 2.0, 1e308])
def test_a_certain_token_has_no_entropy_and_an_infinite_order_is_refused(order):
    if math.isinf(order):
        with pytest.raises(ValueError, match="pass a finite number"):
            renyi_entropy([1.0, 0.0], order)
        return
    assert str(renyi_entropy([1.0, 0.0], order)) == "0.0"


@pytest.mark.parametrize("chance", [1e-3, 1e-9, 1e-15])
def test_the_variation_of_a_nearly_certain_token_keeps_its_digits(chance):
    p = [1 - chance, chance]
    with mpmath.workdps(60):
        expected = float(mpmath.fsum(mpmath.mpf(x) * (1 - mpmath.mpf(x)) for x in p))
    assert copy_entropies(p, 1.5)[1] == pytest.approx(expected, rel=1e-14, abs=0)
