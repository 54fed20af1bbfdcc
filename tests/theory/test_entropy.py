"""The entropy of a spectrum: laws of its contributions, against 50 digits, and errors with their remedy."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from theory.formulas.entropy import (
    effective_rank,
    entropy_contributions,
    entropy_rate,
    shares,
    spectral_entropy,
)

EVERY = settings(deadline=None, max_examples=60)
PAIRS = st.tuples(st.integers(1, 12), st.floats(-8, 0), st.booleans(), st.integers(0, 2**32 - 1))


def spectra(drawn):
    """Two spectra that differ by a share between 1e-8 and 1 of another one; some ranks are empty in one or both."""
    ranks, power, empty, seed = drawn
    rng = np.random.default_rng(seed)
    before, other = np.exp(rng.uniform(-9, 0, (2, ranks)))
    after = before + 10.0**power * (other - before)
    if empty and ranks > 2:
        before[0] = after[0] = before[1] = 0.0
    return before, after


def exact_contributions(before, after):
    """The integrals by mpmath, in closed form."""
    with mpmath.workdps(50):
        a, b = ([mpmath.mpf(float(x)) for x in values] for values in (before, after))
        p, q = [x / mpmath.fsum(a) for x in a], [x / mpmath.fsum(b) for x in b]

        def log_part(x):
            return x * mpmath.log(x) - x if x else mpmath.mpf(0)

        def mean(x, y):
            def whole(v):
                return v**2 * mpmath.log(v) / 2 - v**2 / 4 if v else mpmath.mpf(0)

            if x == y:
                return x * mpmath.log(x) if x else mpmath.mpf(0)
            return (whole(y) - whole(x)) / (y - x)

        typical = -mpmath.fsum(mean(x, y) for x, y in zip(p, q, strict=True))
        return [float(log_part(x) - log_part(y) - (y - x) * typical) for x, y in zip(p, q, strict=True)]


@EVERY
@given(PAIRS)
def test_contributions_are_the_integrals_and_add_up_to_the_change(drawn):
    before, after = spectra(drawn)
    found = entropy_contributions(before, after)
    np.testing.assert_allclose(found, exact_contributions(before, after), rtol=1e-9, atol=1e-14)
    change = spectral_entropy(after) - spectral_entropy(before)
    assert found.sum() == pytest.approx(change, rel=1e-9, abs=1e-14)


@EVERY
@given(PAIRS, st.floats(1e-3, 1e3))
def test_contributions_ignore_scale_and_order_and_change_sign_with_direction(drawn, scale):
    before, after = spectra(drawn)
    found = entropy_contributions(before, after)
    order = np.random.default_rng(drawn[-1]).permutation(len(before))
    np.testing.assert_allclose(entropy_contributions(scale * before, after), found, atol=1e-12)
    np.testing.assert_allclose(entropy_contributions(before[order], after[order]), found[order], atol=1e-12)
    np.testing.assert_allclose(entropy_contributions(after, before), -found, atol=1e-12)
    assert not entropy_contributions(before, before).any()


@EVERY
@given(st.integers(2, 10), st.integers(0, 2**32 - 1))
def test_a_small_change_has_the_terms_of_the_covariance(ranks, seed):
    rng = np.random.default_rng(seed)
    values, growth, h = np.exp(rng.uniform(-4, 0, ranks)), rng.normal(size=ranks), 1e-6
    found = entropy_contributions(values * np.exp(-h * growth), values * np.exp(h * growth)) / (2 * h)
    p = shares(values)
    terms = -p * (growth - p @ growth) * (np.log(p) + spectral_entropy(values))
    np.testing.assert_allclose(found, terms, atol=1e-7)
    assert found.sum() == pytest.approx(entropy_rate(values, growth), abs=1e-7)


def test_who_adds_entropy_is_seen_by_sign():
    # Of three ranks the largest shrinks, the smallest grows: both add. The one in the middle follows.
    found = entropy_contributions([8.0, 1.0, 0.1], [6.0, 1.0, 0.5])
    assert found[0] > 0
    assert found[2] > 0
    assert found.sum() > 0
    assert effective_rank([[1.0, 1.0, 0.0], [1.0, 1.0, 1.0]]) == pytest.approx([2.0, 3.0])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: shares([1.0, -1e-3]), "negative or not finite"),
        (lambda: shares([np.nan, 1.0]), "negative or not finite"),
        (lambda: shares([[1.0], [0.0]]), "zero everywhere"),
        (lambda: entropy_rate([1.0, 0.0], [1.0, 1.0]), "positive values"),
        (lambda: entropy_rate([1.0, 2.0], [1.0]), "one rate for each"),
        (lambda: entropy_contributions([1.0], [1.0, 2.0]), "same number of ranks"),
    ],
)
def test_errors_name_the_rule(call, message):
    with pytest.raises(ValueError, match=message):
        call()
