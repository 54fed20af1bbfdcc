"""Rank-window exponents: exact recovery, oracles, refusals, and the finite-sample figures of the design."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spectra.covariance import covariance_spectrum
from spectra.errors import InputError
from spectra.exponents import alpha_req, convert_exponent, window_exponent
from spectra.reference import exponents as slow
from spectra.spectrum import Spectrum


def power(alpha: float, d: int = 60) -> np.ndarray:
    return np.arange(1, d + 1, dtype=float) ** -alpha


windows = st.tuples(st.integers(1, 20), st.integers(2, 20)).map(lambda t: (t[0], t[0] + t[1]))


@given(st.floats(0, 6), windows, st.sampled_from(["ols", "theil-sen"]), st.floats(1e-6, 1e6))
def test_power_laws_are_recovered_exactly_at_any_scale(alpha, window, method, scale):
    got = window_exponent(scale * power(alpha), *window, method=method)
    assert got.value == pytest.approx(alpha, abs=1e-8)
    assert got.ok
    assert math.isnan(got.low)
    assert alpha_req(scale * power(alpha)).value == pytest.approx(alpha, abs=1e-8)


@given(st.lists(st.floats(1e-8, 1e4), min_size=41, max_size=41), windows)
def test_against_the_oracles(values, window):
    ordered = sorted(values, reverse=True)
    lo, hi = window
    close = {"rel": 1e-8, "abs": 1e-9}
    assert window_exponent(values, lo, hi).value == pytest.approx(slow.ols_exponent(ordered, lo, hi), **close)
    theil = window_exponent(values, lo, hi, method="theil-sen").value
    assert theil == pytest.approx(slow.theil_sen_exponent(ordered, lo, hi), **close)
    weights = [1 / j for j in range(lo, hi + 1)]
    want = slow.weighted_exponent(ordered, lo, hi, weights)
    assert alpha_req(values, lo, hi).value == pytest.approx(want, **close)


def test_singular_convention_is_half_and_only_by_name():
    sigma = Spectrum(np.sqrt(power(1.5)), "singular")
    assert window_exponent(sigma, 5, 40).value == pytest.approx(1.5)
    half = window_exponent(sigma, 5, 40, on="singular")
    assert half.value == pytest.approx(0.75)


def test_fit_quality_figures():
    rng = np.random.default_rng(0)
    y = power(1.0) * np.exp(0.1 * rng.standard_normal(60))
    y = np.sort(y)[::-1]
    got = window_exponent(y, 1, 60)
    x, log_y = np.log(np.arange(1, 61)), np.log(y)
    from scipy.stats import linregress

    fit = linregress(x, log_y)
    assert got.details["r2"] == pytest.approx(fit.rvalue**2)
    assert got.details["stderr"] == pytest.approx(fit.stderr)
    assert math.isnan(got.details["n_over_d"])


@pytest.mark.parametrize(
    ("lo", "hi", "fits"), [(10, 39, True), (10, 40, False), (39, 45, False), (200, 400, False)]
)
def test_a_window_beyond_the_rank_is_not_fitted_never_clipped(lo, hi, fits):
    # 40 centred rows in 60 dimensions have rank 39, although the spectrum lists 40 values.
    x = np.random.default_rng(1).standard_normal((40, 60)) * power(0.5)
    got = window_exponent(covariance_spectrum(x), lo, hi)
    assert (got.status != "not fitted") == fits
    if not fits:
        assert math.isnan(got.value)
        assert "39" in got.reason
        assert got.details["n_over_d"] == pytest.approx(40 / 60)


def test_zeros_in_the_window_are_not_fitted():
    values = np.concatenate([power(1.0, 20), np.zeros(20)])
    got = window_exponent(values, 10, 30)
    assert got.status == "not fitted"
    assert "rank 21" in got.reason
    assert alpha_req(values).details["hi"] == 20
    assert alpha_req(values, 1, 30).status == "not fitted"
    assert alpha_req([1.0, 0.5, 0.0]).status == "not fitted"


def test_misuse_is_an_error():
    for lo, hi in ((0, 10), (5, 5), (5, 6), (10, 5), (-3, 4), (1.5, 9), ("1", 9)):
        with pytest.raises(InputError, match=r"window"):
            window_exponent(power(1.0), lo, hi)  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match="method"):
        window_exponent(power(1.0), 1, 9, method="lad")  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match="on is"):
        window_exponent(power(1.0), 1, 9, on="sigma")  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match="NaN"):
        window_exponent([1.0, math.nan, 0.5], 1, 3)


@pytest.mark.parametrize(
    ("ratio", "reads", "status"), [(0.33, 1.5, "flagged"), (2, 1.02, "ok"), (16, 1.0, "ok")]
)
def test_reading_of_an_alpha_one_population(ratio, reads, status):
    # Mean over 20 samples with a fixed seed; d = 128, window 10–40.
    rng = np.random.default_rng(5)
    fits = [
        window_exponent(
            covariance_spectrum(rng.standard_normal((int(ratio * 128), 128)) * power(0.5, 128)), 10, 40
        )
        for _ in range(20)
    ]
    assert np.mean([f.value for f in fits]) == pytest.approx(reads, rel=0.07)
    assert {f.status for f in fits} == {status}
    assert fits[0].details["n_over_d"] == pytest.approx(int(ratio * 128) / 128)
    if status == "flagged":
        assert "finite-sample bias" in fits[0].reason


kinds = st.sampled_from(["rank", "rank-singular", "density", "density-singular"])


@given(st.floats(0.05, 20), kinds, kinds)
def test_conversions_are_consistent(alpha, a, b):
    value = convert_exponent(alpha, "rank", a)
    assert convert_exponent(convert_exponent(value, a, b), b, "rank") == pytest.approx(alpha)


def test_conversions_against_densities():
    assert convert_exponent(2.0, "rank", "density") == 1.5
    assert convert_exponent(2.0, "rank", "density-singular") == 2.0
    assert convert_exponent(2.0, "rank", "rank-singular") == 1.0
    # Values x = u^(−α) of uniform u are λ_j ∝ j^(−α); their histogram must have the converted density slope.
    u = (np.arange(200_000) + 0.5) / 200_000
    counts, edges = np.histogram(u**-2.0, bins=np.logspace(0, 3, 13))
    slope = np.polyfit(np.log(edges[1:] * edges[:-1]) / 2, np.log(counts / np.diff(edges)), 1)[0]
    assert -slope == pytest.approx(convert_exponent(2.0, "rank", "density"), abs=0.02)
    for bad in ((0.0, "rank"), (1.0, "density"), (math.nan, "rank")):
        with pytest.raises(InputError, match="no power law"):
            convert_exponent(bad[0], bad[1], "density")  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match="no kind"):
        convert_exponent(1.0, "rank", "hill")  # pyright: ignore[reportArgumentType]
