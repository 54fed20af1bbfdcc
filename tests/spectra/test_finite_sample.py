"""The finite-sample prediction: exact laws of small cases, the figures of the design, and verdicts that act on them."""

import numpy as np
import pytest

from spectra import finite_sample
from spectra.covariance import covariance_spectrum
from spectra.errors import InputError
from spectra.exponents import window_exponent
from spectra.finite_sample import predict_bias, reliability, sample_eigenvalues
from spectra.summaries import rankme


@pytest.mark.parametrize(("freedom", "d"), [(50, 6), (6, 50), (6, 6)])
def test_simulated_eigenvalues_have_the_wishart_moments(freedom, d):
    # E tr S = tr Σ and E tr S² = tr Σ²(1 + 1/ν) + (tr Σ)²/ν, for both ways of drawing; 4,000 draws, seed fixed.
    population = np.linspace(0.5, 2.0, d)
    values = sample_eigenvalues(population, freedom, np.random.default_rng(0), 4000)
    assert values.shape == (4000, min(freedom, d))
    assert np.all(np.diff(values, axis=1) <= 0)
    traces, squares = values.sum(axis=1), (values**2).sum(axis=1)
    want = (population**2).sum() * (1 + 1 / freedom) + population.sum() ** 2 / freedom
    assert abs(traces.mean() - population.sum()) < 4 * traces.std() / 4000**0.5
    assert abs(squares.mean() - want) < 4 * squares.std() / 4000**0.5


def test_simulation_equals_data_drawn_row_by_row():
    rng = np.random.default_rng(1)
    population = np.arange(1, 17) ** -1.0
    drawn = np.array(
        [covariance_spectrum(rng.standard_normal((40, 16)) * np.sqrt(population)).values for _ in range(400)]
    )
    simulated = sample_eigenvalues(population, 39, rng, 400)
    gap = np.log(drawn).mean(0) - np.log(simulated).mean(0)
    error = np.log(drawn).std(0) * (2 / 400) ** 0.5
    assert np.max(np.abs(gap / error)) < 4


@pytest.mark.parametrize(
    ("ratio", "alpha", "reads", "effective"),
    [
        (0.33, 1.0, 1.57, 21.2), (1.0, 1.0, 1.07, 34.7), (2.0, 1.0, 1.02, 40.7), (2.0, 0.5, 0.576, 85.2),
        (16.0, 2.0, 2.005, 4.9),
    ],
)  # fmt: skip
def test_table_of_readings(ratio, alpha, reads, effective):
    # Window 10–40, d = 128; the figures are an independent simulation of 60 data sets each.
    got = predict_bias(int(ratio * 128), 128, alpha, 10, 40, np.random.default_rng(2), repeats=30)
    assert alpha + got.alpha_bias == pytest.approx(reads, abs=3 * got.alpha_sd / 30**0.5 + 0.01)
    assert got.rankme + got.rankme_bias == pytest.approx(effective, rel=0.03)
    assert got.rankme == pytest.approx(rankme(np.arange(1, 129) ** -alpha))


def test_prediction_is_what_the_estimators_do():
    rng = np.random.default_rng(3)
    population = np.arange(1, 41) ** -1.5
    spectra = [covariance_spectrum(rng.standard_normal((60, 40)) * np.sqrt(population)) for _ in range(200)]
    alphas = [window_exponent(s.values, 5, 20).value for s in spectra]
    ranks = [rankme(s) for s in spectra]
    got = predict_bias(60, 40, 1.5, 5, 20, rng, repeats=200)
    assert got.alpha_bias == pytest.approx(np.mean(alphas) - 1.5, abs=4 * got.alpha_sd / 100**0.5)
    assert got.alpha_sd == pytest.approx(np.std(alphas), rel=0.2)
    assert got.rankme_bias == pytest.approx(np.mean(ranks) - got.rankme, abs=4 * got.rankme_sd / 100**0.5)
    assert got.rankme_sd == pytest.approx(np.std(ranks), rel=0.2)


@pytest.mark.parametrize(
    ("n", "alpha", "window", "reliable"),
    [
        (42, 1.55, (10, 40), False), (256, 1.02, (10, 40), True), (2048, 1.0, (10, 40), True),
        (256, 2.3, (50, 120), False), (1024, 1.3, (50, 120), False), (256, 1.0, (1, 10), True),
    ],
)  # fmt: skip
def test_verdicts(n, alpha, window, reliable):
    verdict = reliability(n, 128, alpha, *window)
    assert verdict.reliable == reliable
    assert (verdict.reason == "") == reliable
    assert verdict == reliability(n, 128, alpha, *window)


def test_bias_is_read_at_the_corrected_exponent():
    # A population of 1 reads 1.57 at n/d = 0.33: the verdict must name the bias there, not at 1.57.
    at_truth = predict_bias(42, 128, 1.0, 10, 40, np.random.default_rng(4), repeats=60)
    verdict = reliability(42, 128, 1.0 + at_truth.alpha_bias, 10, 40)
    assert verdict.bias == pytest.approx(at_truth.alpha_bias, abs=0.06)


@pytest.mark.parametrize(
    ("n", "d", "window"), [(1200, 600, (10, 40)), (1200, 600, (100, 200)), (300, 600, (10, 40))]
)
def test_cut_and_scaled_problems_agree_with_the_whole(n, d, window):
    whole = predict_bias(n, d, 1.0, *window, np.random.default_rng(5), repeats=8)
    verdict = reliability(n, d, 1.0 + whole.alpha_bias, *window)
    assert verdict.bias == pytest.approx(whole.alpha_bias, abs=0.25 * abs(whole.alpha_bias) + 0.02)


@pytest.mark.parametrize(("d", "window"), [(40, (5, 12)), (480, (60, 120))])
def test_the_spread_of_a_scaled_problem_is_that_of_the_whole(d, window):
    whole = predict_bias(2 * d, d, 1.0, *window, np.random.default_rng(6), repeats=30)
    assert reliability(2 * d, d, 1.0, *window).sd == pytest.approx(whole.alpha_sd, rel=0.5)


def test_verdict_stays_small_and_is_remembered(monkeypatch):
    sizes = []

    def recorded(population, *rest):
        sizes.append(len(population))
        return sample_eigenvalues(population, *rest)

    monkeypatch.setattr(finite_sample, "sample_eigenvalues", recorded)
    finite_sample._log_profiles.cache_clear()
    first = reliability(4096, 4096, 1.0, 400, 800)
    assert sizes
    assert max(sizes) <= finite_sample.VERDICT_DIMENSION
    assert len(sizes) <= 2
    drawn = len(sizes)
    assert reliability(4096, 4096, 1.0, 400, 800) == first
    assert len(sizes) == drawn


def test_refusals():
    rng = np.random.default_rng(6)
    assert not reliability(20, 30, 1.0, 10, 25).reliable
    for n, d, alpha, lo, hi in (
        (1, 5, 1.0, 1, 3), (9, 0, 1.0, 1, 3), (20, 30, 1.0, 10, 20), (20, 30, -1.0, 1, 9), (20, 30, np.nan, 1, 9),
        (20, 30, 1.0, 0, 9), (20, 30, 1.0, 4, 5),
    ):  # fmt: skip
        with pytest.raises(InputError):
            predict_bias(n, d, alpha, lo, hi, rng)
    with pytest.raises(InputError, match="repeats"):
        predict_bias(20, 30, 1.0, 1, 9, rng, repeats=1)
