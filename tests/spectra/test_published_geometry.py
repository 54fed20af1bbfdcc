"""α-ReQ and RankMe of states against published code, and what each of its conventions changes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spectra import Spectrum, alpha_req, covariance_spectrum, rankme
from spectra.reference.geometry import (
    explained_variance,
    last_states,
    published_alpha,
    published_rankme,
)


def states(seed, n=400, d=128, alpha=1.0):
    drawn = np.random.default_rng(seed).standard_normal((n, d))
    return drawn * np.arange(1, d + 1) ** (-alpha / 2) + 0.3


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.2, 2.0))
def test_ours_are_those_of_the_published_code(seed, alpha):
    x = states(seed, alpha=alpha)
    spectrum, shares = covariance_spectrum(x), explained_variance(x)
    assert alpha_req(spectrum, 12, 100).value == pytest.approx(published_alpha(shares), abs=1e-7)
    assert rankme(spectrum) == pytest.approx(published_rankme(shares, 0.0), rel=1e-9)
    raised = spectrum.shares + 1e-7
    assert np.exp(-(raised * np.log(raised)).sum()) == pytest.approx(published_rankme(shares), rel=1e-9)


def test_ranks_start_at_12_and_end_at_100():
    x = states(0)
    value = published_alpha(explained_variance(x))
    assert alpha_req(covariance_spectrum(x), 12, 100).value == pytest.approx(value, abs=1e-9)
    for lo, hi in ((11, 100), (12, 99), (13, 100), (12, 101)):
        assert abs(alpha_req(covariance_spectrum(x), lo, hi).value - value) > 1e-5


def test_narrow_states_have_no_published_exponent():
    x = states(0, d=64)
    with pytest.raises(IndexError):
        published_alpha(explained_variance(x))
    found = alpha_req(covariance_spectrum(x), 12, 100)
    assert found.status == "not fitted"
    assert "does not fit" in found.reason


def power_law(d, alpha=1.0):
    energies = np.arange(1, d + 1.0) ** -alpha
    return energies, list(energies / energies.sum())


def test_what_the_cut_to_2048_components_and_epsilon_do_to_a_power_law():
    energies, shares = power_law(4096)
    assert published_rankme(shares, 0.0) == pytest.approx(rankme(energies), rel=1e-12)
    assert rankme(energies) == pytest.approx(431.1, abs=0.1)
    cut = shares[:2048]
    kept = published_rankme(cut, renormalise=True)
    assert kept / rankme(energies) == pytest.approx(0.653, abs=0.001)
    # Shares of the whole variance, which after the cut do not add up to 1, give less still.
    assert published_rankme(cut) / rankme(energies) == pytest.approx(0.454, abs=0.001)
    # On singular values RankMe is another number altogether.
    assert rankme(energies, on="singular") > 7 * rankme(energies)
    # ε moves little: here 0.35 %, in fewer dimensions less.
    for d, share in ((4096, 3.5e-3), (768, 5.1e-4)):
        energies, shares = power_law(d)
        assert published_rankme(shares) / rankme(energies) - 1 == pytest.approx(share, rel=0.02)
    # Steeper spectra lose less by the cut, and of 2,048 directions or fewer nothing is cut.
    energies, shares = power_law(4096, 1.5)
    assert published_rankme(shares[:2048], renormalise=True) / rankme(energies) > 0.9
    x = states(3)
    assert explained_variance(x) == explained_variance(x, None)


def test_half_precision_moves_the_tail_of_states_far_from_zero():
    # At 200 float16 has steps of 1/8, twice the standard deviation of the direction at rank 45 and below.
    x = states(1, alpha=1.5) + 200.0
    exact, half = (explained_variance(x, half=h) for h in (False, True))
    assert published_alpha(exact) == pytest.approx(1.60, abs=0.01)
    assert published_alpha(half) == pytest.approx(1.08, abs=0.02)
    assert published_rankme(half) > 1.4 * published_rankme(exact)
    # Of small states, of which rounding is relative, little changes.
    small = states(1)
    assert published_rankme(explained_variance(small, half=True)) == pytest.approx(
        published_rankme(explained_variance(small)), rel=1e-3
    )


def test_the_last_token_is_found_on_either_side_of_the_padding():
    x = np.arange(24.0).reshape(2, 4, 3)
    right = np.array([[1, 1, 0, 0], [1, 1, 1, 1]], dtype=bool)
    np.testing.assert_array_equal(last_states(x, right), [x[0, 1], x[1, 3]])
    np.testing.assert_array_equal(last_states(x, right[:, ::-1]), x[:, 3])
    # The last place of a sequence padded on the right is padding.
    assert not (last_states(x, right) == x[:, -1]).all()


def test_ours_without_epsilon_never_exceed_the_rank():
    flat = [0.5, 0.5]
    assert rankme(Spectrum(np.array(flat))) <= 2
    assert published_rankme([*flat, *[0.0] * 4000]) > 2
