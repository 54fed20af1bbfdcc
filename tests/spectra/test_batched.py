"""Reductions of several models at once give what the estimators of one give."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spectra import Factors, Moments, class_means, covariance_spectrum, stacked_gradient_spectrum
from spectra.batched import (
    MemberMoments,
    StateClasses,
    effective_dimensions,
    stacked_gradient_grams,
)
from spectra.errors import InputError
from spectra.gradients import gram_spectrum
from spectra.nulls.concentration import effective_dimension

SEEDS = st.integers(0, 2**32 - 1)


def drawn(seed, *shape, dtype=torch.float32, shift=0.0):
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (x + shift).to(dtype)


@given(SEEDS, st.lists(st.integers(1, 9), min_size=1, max_size=4), st.sampled_from([0.0, 1000.0]))
def test_moments_are_those_of_each_member(seed, sizes, shift):
    together, apart = MemberMoments(3), [Moments() for _ in range(3)]
    for k, size in enumerate(sizes):
        x = drawn(seed + k, 3, size, 4, shift=shift)
        together.update(x)
        for own, rows in zip(apart, x, strict=True):
            own.update(rows)
    for a, b in zip(together.split(), apart, strict=True):
        state, other = a.state_dict(), b.state_dict()
        assert state.keys() == other.keys()
        # Centring leaves rounding of the mean.
        scale = max(1.0, shift)
        assert all(torch.allclose(state[n], other[n], rtol=1e-10, atol=1e-12 * scale) for n in state)
    again = MemberMoments.join(together.split())
    assert again.count == together.count
    assert all(torch.equal(again.tensors()[n], x) for n, x in together.tensors().items())


def test_moments_refuse_what_does_not_belong_together():
    moments = MemberMoments(2)
    moments.update(torch.ones(2, 3, 4))
    with pytest.raises(InputError, match="K = 2"):
        moments.update(torch.ones(3, 3, 4))
    with pytest.raises(InputError, match="5 columns"):
        moments.update(torch.ones(2, 3, 5))
    bad = MemberMoments(1)
    bad.update(torch.tensor([[[1.0], [float("nan")]]]))
    with pytest.raises(InputError, match="NaN or Inf"):
        bad.split()


@given(SEEDS, st.integers(3, 9), st.sampled_from([0.0, 100.0]))
def test_class_means_are_those_of_repeated_samples(seed, c, shift):
    generator = np.random.default_rng(seed)
    states = np.concatenate([np.arange(c), generator.integers(0, c, size=5)])
    repeats = generator.integers(1, 4, size=len(states))
    h = drawn(seed, 2, len(states), 3, shift=shift)
    means, within = StateClasses(torch.tensor(states), c, torch.tensor(repeats)).means(h)
    for k in range(2):
        found = class_means(h[k].repeat_interleave(torch.tensor(repeats), 0), states.repeat(repeats), c)
        np.testing.assert_allclose(means[k], found.means, rtol=1e-11, atol=1e-12 * max(1.0, shift))
        np.testing.assert_allclose(within[k], found.within_trace, rtol=1e-9, atol=1e-12 * max(1.0, shift))


def test_a_state_without_samples_is_refused():
    with pytest.raises(InputError, match="states 1 of 3 have no sample"):
        StateClasses(torch.tensor([0, 2]), 3, torch.tensor([1, 1]))
    with pytest.raises(InputError, match=r"integers in 0\.\.2"):
        StateClasses(torch.tensor([0, 1, 3]), 3, torch.tensor([1, 1, 1]))


@given(SEEDS, st.integers(3, 12), st.integers(1, 9), st.sampled_from([0.0, 100.0]))
def test_effective_dimensions_are_those_of_the_eigenvalues(seed, n, d, shift):
    x = drawn(seed, 2, n, d, shift=shift, dtype=torch.float64)
    repeats = torch.randint(1, 4, (n,), generator=torch.Generator().manual_seed(seed))
    for found, rows in (
        (effective_dimensions(x), x),
        (effective_dimensions(x, repeats), x.repeat_interleave(repeats, dim=1)),
    ):
        plain = [effective_dimension(covariance_spectrum(own)) for own in rows]
        np.testing.assert_allclose(found, plain, rtol=1e-9)


@given(SEEDS, st.integers(2, 99), st.floats(-9, 9))
@settings(max_examples=30)
def test_rows_that_are_equal_have_no_effective_dimension(seed, n, value):
    x = torch.cat([drawn(seed, 1, 1, 5) * value, drawn(seed + 1, 1, 1, 5)]).expand(2, n, 5)
    repeats = torch.randint(1, 9, (n,), generator=torch.Generator().manual_seed(seed))
    for found in (
        effective_dimensions(x),
        effective_dimensions(x, repeats),
        effective_dimensions(x.double()),
    ):
        assert found.isnan().all()


@given(SEEDS, st.sampled_from([1e-300, 1e-100, 1e100, 1e300]))
@settings(max_examples=20)
def test_effective_dimensions_have_no_scale(seed, scale):
    x = drawn(seed, 2, 9, 4, dtype=torch.float64)
    torch.testing.assert_close(effective_dimensions(x * scale), effective_dimensions(x))


@given(SEEDS, st.integers(2, 5), st.integers(1, 12))
def test_gradient_grams_are_those_of_each_member(seed, samples, positions):
    # Long samples are compared by rows of the gradients, short ones by their factors.
    a, d = drawn(seed, 3, samples, positions, 4), drawn(seed + 1, 3, samples, positions, 6)
    for k, gram in enumerate(stacked_gradient_grams(a, d)):
        flat = torch.einsum("mti,mto->moi", a[k].double(), d[k].double()).flatten(1)
        torch.testing.assert_close(gram, flat @ flat.T, rtol=1e-11, atol=1e-11)
        factors = Factors(a[k], d[k])
        own = gram_spectrum(gram, 24, precision=factors.precision)
        np.testing.assert_allclose(own.values, stacked_gradient_spectrum(factors).values, rtol=1e-9)


def test_members_are_compared_in_groups_that_fit(monkeypatch):
    a, d = drawn(0, 5, 3, 40, 4), drawn(1, 5, 3, 40, 6)
    whole = stacked_gradient_grams(a, d)
    monkeypatch.setattr("spectra.batched.WORKING_SET", 2 * 3 * 4 * 6)
    assert torch.equal(stacked_gradient_grams(a, d), whole)
    monkeypatch.setattr("spectra.batched.WORKING_SET", 1)
    torch.testing.assert_close(stacked_gradient_grams(a, d), whole, rtol=1e-12, atol=1e-12)
