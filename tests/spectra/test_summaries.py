"""Effective ranks and shares against term-by-term oracles, and the order that always holds among them."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spectra.covariance import covariance_spectrum
from spectra.errors import InputError
from spectra.reference import summaries as slow
from spectra.spectrum import Spectrum
from spectra.summaries import participation_ratio, rank, rankme, stable_rank, top_share

energies = st.lists(st.one_of(st.just(0.0), st.floats(1e-12, 1e6)), min_size=1, max_size=40).filter(any)


@given(energies, st.data())
def test_against_the_oracles(values, data):
    ordered = sorted(values, reverse=True)
    k = data.draw(st.integers(1, len(values)))
    sigma = [v**0.5 for v in ordered]
    assert rankme(values) == pytest.approx(slow.entropy_rank(ordered), rel=1e-10)
    assert rankme(values, on="singular") == pytest.approx(slow.entropy_rank(sigma), rel=1e-10)
    assert participation_ratio(values) == pytest.approx(slow.participation_ratio(ordered), rel=1e-10)
    assert stable_rank(values) == pytest.approx(slow.stable_rank(ordered), rel=1e-10)
    assert top_share(values, k) == pytest.approx(slow.top_share(ordered, k), rel=1e-10)


@given(energies)
def test_order_of_the_ranks(values):
    spectrum = Spectrum(np.array(values))
    chain = [
        1.0,
        stable_rank(spectrum),
        participation_ratio(spectrum),
        rankme(spectrum),
        rankme(spectrum, "singular"),
    ]
    assert all(a <= b * (1 + 1e-9) for a, b in pairwise(chain))
    assert rankme(spectrum) <= rank(spectrum)
    assert rankme(spectrum, "singular") <= rank(spectrum)


@given(energies)
def test_singular_values_give_the_same_summaries_as_their_energies(values):
    a, b = Spectrum(np.array(values)), Spectrum(np.sqrt(values), "singular")
    for summary in (rankme, participation_ratio, stable_rank, rank):
        assert summary(a) == pytest.approx(summary(b), rel=1e-10)


@pytest.mark.parametrize("r", [1, 2, 7, 64])
def test_rankme_of_a_flat_spectrum_is_its_rank_and_never_more(r):
    padded = np.concatenate([np.ones(r), np.zeros(50)])
    for on in ("energy", "singular"):
        assert rankme(padded, on=on) == pytest.approx(r, rel=1e-12)
        assert rankme(padded, on=on) <= r
    # The widespread additive 1e-5 on p breaks that bound, which is why there is none here.
    p = padded / padded.sum() + 1e-5
    assert np.exp(-(p * np.log(p)).sum()) > r


def test_rankme_of_rank_deficient_data_stays_below_the_rank():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((200, 4)) @ rng.standard_normal((4, 64))
    spectrum = covariance_spectrum(x)
    assert rank(spectrum) == 4
    assert rankme(spectrum, "singular") <= 4


def test_scale_does_not_matter_even_where_squares_overflow():
    sigma = np.array([3.0, 2.0, 1.0])
    for scale in (1e-300, 1e300):
        big = Spectrum(sigma * scale, "singular")
        assert rankme(big) == pytest.approx(rankme(Spectrum(sigma, "singular")), rel=1e-12)
        assert participation_ratio(big) == pytest.approx((14**2) / (81 + 16 + 1), rel=1e-12)


def test_rank_threshold_is_on_energies_for_both_kinds():
    energy = np.array([1.0, 1e-3, 1e-7])
    for spectrum in (Spectrum(energy), Spectrum(np.sqrt(energy), "singular")):
        assert [rank(spectrum, t) for t in (0.0, 1e-6, 1e-2)] == [3, 2, 1]


@pytest.mark.parametrize("scale", [1.0, 0.1, 1e-300])
def test_rounding_takes_no_effective_rank_beyond_its_bounds(scale):
    for r in range(1, 300):
        flat = np.full(r, scale)
        for summary in (stable_rank, participation_ratio, rankme):
            assert 1 <= summary(flat) <= r
            assert summary(flat) == pytest.approx(r, rel=1e-12)


def test_rank_counts_energies_whose_ratio_leaves_float64():
    for kind in ("eigenvalue", "singular"):
        assert rank(Spectrum([1e300, 1e-300, 0.0], kind)) == 2


def test_what_they_refuse():
    for summary in (rankme, participation_ratio, stable_rank, rank):
        for bad in ([], [np.nan, 1.0], [0.0, 0.0], [-1.0, 1.0], [[1.0]]):
            with pytest.raises(InputError):
                summary(bad)
    with pytest.raises(InputError, match="on is"):
        rankme([1.0], on="sigma")  # pyright: ignore[reportArgumentType]
    for k in (0, 4, -1, 1.5):
        with pytest.raises(InputError, match="k is"):
            top_share([1.0, 2.0, 3.0], k)  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match="rtol"):
        rank([1.0], rtol=1.0)
