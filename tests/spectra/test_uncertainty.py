"""Jackknife and bootstrap against closed forms and scipy, groups as units, and intervals that cover."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from spectra.covariance import covariance_spectrum
from spectra.errors import InputError
from spectra.exponents import window_exponent
from spectra.intervals import participation_ratio_interval, rankme_interval, window_exponent_interval
from spectra.summaries import participation_ratio, rankme
from spectra.uncertainty import bootstrap, jackknife, window_exponent_bootstrap


def mean(x: np.ndarray) -> float:
    return float(x.mean())


def power(n: int, d: int, alpha: float, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, d)) * np.arange(1, d + 1) ** (-alpha / 2)


@given(st.lists(st.floats(-100, 100), min_size=3, max_size=20))
def test_jackknife_of_a_mean_is_the_textbook_interval(values):
    x = np.array(values)
    got = jackknife(x, mean)
    assert got.value == pytest.approx(x.mean(), abs=1e-9)
    assert got.details["bias"] == pytest.approx(0, abs=1e-9)
    assert got.details["stderr"] == pytest.approx(x.std(ddof=1) / math.sqrt(len(x)), abs=1e-9)


def test_jackknife_removes_the_bias_of_the_plug_in_variance():
    x = np.random.default_rng(0).standard_normal(30)
    assert jackknife(x, lambda v: float(v.var())).value == pytest.approx(x.var(ddof=1), rel=1e-12)


@pytest.mark.parametrize("level", [1 / 3, 0.1, 1e9 / 7, 1e-200])
def test_equal_rows_have_no_bias_but_rounding(level):
    x = np.full(20, level)
    assert jackknife(x, mean).status == "ok"
    for method in ("percentile", "basic", "bca"):
        assert bootstrap(x, mean, np.random.default_rng(0), resamples=100, method=method).status == "ok"
    # A bias without an error is none of rounding.
    assert jackknife(x, lambda v: float(v.sum() / len(v) ** 2)).status == "flagged"


def test_groups_are_the_units():
    # 40 sequences of 25 identical tokens hold 40 samples, not 1,000.
    rng = np.random.default_rng(1)
    x, labels = np.repeat(rng.standard_normal(40), 25), np.repeat(np.arange(40), 25)
    want = x[::25].std(ddof=1) / math.sqrt(40)
    grouped = jackknife(x, mean, groups=torch.tensor(labels))
    assert grouped.details["stderr"] == pytest.approx(want, rel=1e-9)
    assert jackknife(x, mean).details["stderr"] < want / 4
    names = np.array([f"run-{k}" for k in labels])
    resampled = bootstrap(x, mean, np.random.default_rng(2), groups=names, resamples=400)
    assert resampled.details["groups"] == 40
    assert resampled.details["stderr"] == pytest.approx(want, rel=0.15)


def test_blocks_join_rows_evenly():
    x = np.random.default_rng(3).standard_normal(997)
    got = jackknife(x, mean, blocks=50)
    assert got.details["groups"] == 50
    assert got.details["stderr"] == pytest.approx(x.std(ddof=1) / math.sqrt(997), rel=0.3)


@pytest.mark.parametrize(
    ("method", "name"), [("percentile", "percentile"), ("basic", "basic"), ("bca", "BCa")]
)
def test_bootstrap_intervals_match_scipy(method, name):
    x = np.random.default_rng(4).exponential(size=60)

    def skewed(v: np.ndarray) -> float:
        return float(np.log(v.var()))

    ours = bootstrap(x, skewed, np.random.default_rng(5), resamples=4000, method=method)
    oracle = stats.bootstrap(
        (x,), lambda v, axis=-1: np.log(np.var(v, axis=axis)), n_resamples=4000, method=name,
        rng=np.random.default_rng(6),
    ).confidence_interval  # fmt: skip
    width = oracle.high - oracle.low
    assert ours.low == pytest.approx(oracle.low, abs=0.06 * width)
    assert ours.high == pytest.approx(oracle.high, abs=0.06 * width)


def test_results_repeat_and_inputs_survive():
    x = power(60, 8, 1.0, 7)
    before = x.copy()
    a, b = (window_exponent_bootstrap(x, 1, 6, np.random.default_rng(8), resamples=100) for _ in range(2))
    assert a == b
    np.testing.assert_array_equal(x, before)
    assert x.flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        jackknife(x, lambda v: float(v.__setitem__(0, 0.0) or 0.0))


@pytest.mark.parametrize("fit", ["ols", "theil-sen", "weighted"])
def test_bootstrap_of_an_exponent_states_the_bias_it_sees(fit):
    good = window_exponent_bootstrap(
        power(2000, 12, 1.0, 9), 2, 10, np.random.default_rng(9), fit=fit, resamples=150
    )
    assert good.low < 1.0 < good.high
    assert good.details["n_over_d"] == pytest.approx(2000 / 12)
    # With as many rows as dimensions the percentile interval of the tail misses the truth on the far side.
    bad = window_exponent_bootstrap(
        power(40, 32, 1.0, 10), 4, 16, np.random.default_rng(10), fit=fit, resamples=150, method="percentile"
    )
    assert bad.status == "flagged"
    assert bad.low > 1.0


def test_bootstrap_of_a_window_that_does_not_fit():
    rng = np.random.default_rng(11)
    assert window_exponent_bootstrap(power(20, 30, 1.0, 11), 5, 25, rng, resamples=100).status == "not fitted"
    # 20 rows fit ranks up to 19, but a resample holds about 13 different ones.
    result = window_exponent_bootstrap(power(20, 30, 1.0, 11), 5, 19, rng, resamples=100)
    assert result.status == "not fitted"


def test_refusals():
    rng = np.random.default_rng(12)
    x = np.arange(10.0)
    cases = [
        lambda: jackknife([], mean),
        lambda: jackknife([1.0, np.nan, 2.0], mean),
        lambda: jackknife(x, mean, groups=np.zeros(10)),
        lambda: jackknife(x, mean, groups=np.zeros(9)),
        lambda: jackknife(x, mean, blocks=5),
        lambda: jackknife(x, mean, level=1.0),
        lambda: bootstrap(x, mean, rng, resamples=10),
        lambda: bootstrap(x, mean, rng, method="normal"),  # pyright: ignore[reportArgumentType]
        lambda: window_exponent_bootstrap(np.eye(9), 3, 3, rng),
        lambda: window_exponent_bootstrap(np.eye(9), 1, 5, rng, fit="lad"),  # pyright: ignore[reportArgumentType]
        lambda: rankme_interval(np.eye(12), rng, draws=5),
        lambda: rankme_interval(np.eye(12), rng, level=0.0),
        lambda: rankme_interval(np.eye(12), rng, groups=np.arange(12) // 4),
        lambda: window_exponent_interval(np.full((30, 4), np.nan), 1, 4, rng),
    ]
    for case in cases:
        with pytest.raises(InputError):
            case()
    assert jackknife(x, lambda v: math.nan).status == "not fitted"


def test_interval_corrects_where_the_plain_reading_is_biased():
    # Population α = 1, RankMe and participation ratio known; n/d = 4; the plain RankMe is about two sd too
    # low.
    d, n = 32, 128
    truth = np.arange(1, d + 1) ** -1.0
    rng = np.random.default_rng(13)
    ranks, ratios, alphas = [], [], []
    for seed in range(20):
        x = power(n, d, 1.0, 100 + seed)
        alphas.append(window_exponent_interval(x, 4, 16, rng, draws=40))
        ranks.append(rankme_interval(x, rng, draws=40))
        ratios.append(participation_ratio_interval(x, rng, draws=40))
    for results, want in ((alphas, 1.0), (ranks, rankme(truth)), (ratios, participation_ratio(truth))):
        assert sum(r.low <= want <= r.high for r in results) >= 17
        error = np.std([r.value for r in results]) / math.sqrt(20)
        assert abs(np.mean([r.value for r in results]) - want) < 3.5 * error
    assert np.mean([r.details["raw"] for r in ranks]) < rankme(truth) - 0.8
    x = power(n, d, 1.0, 100)
    assert alphas[0].details["raw"] == pytest.approx(window_exponent(covariance_spectrum(x), 4, 16).value)


def test_interval_says_when_bias_rules():
    rng = np.random.default_rng(14)
    short = window_exponent_interval(power(24, 32, 1.0, 15), 4, 16, rng, draws=40)
    assert short.status == "flagged"
    assert "never seen" in short.reason
    shallow = rankme_interval(power(64, 32, 0.5, 16), rng, draws=40)
    assert shallow.status == "flagged"
    assert "bias rules" in shallow.reason
    assert window_exponent_interval(power(24, 32, 1.0, 15), 4, 30, rng).status == "not fitted"
    flat = power(30, 8, 1.0, 17)
    flat[:, 3] = flat[:, 2]
    assert rankme_interval(flat, rng).status == "not fitted"


def test_interval_rejects_a_population_that_is_no_power_law():
    # Four strong directions above a flat floor: equal eigenvalues are what no sample spectrum shows.
    x = np.random.default_rng(18).standard_normal((96, 32)) * np.r_[np.full(4, 10.0), np.ones(28)]
    got = window_exponent_interval(x, 2, 12, np.random.default_rng(19), draws=60)
    assert got.status == "flagged"
    assert got.details["fit_p"] < 0.01
    assert "rejected" in got.reason


def test_interval_widens_for_heavy_tails_and_for_repeated_tokens():
    rng = np.random.default_rng(20)
    x = power(400, 8, 1.0, 21)
    heavy = x * np.sqrt(5 / rng.chisquare(5, (400, 1)))
    plain, wide = (participation_ratio_interval(v, rng, draws=60) for v in (x, heavy))
    assert plain.details["kappa"] == 1.0
    assert wide.details["kappa"] > 1.5
    assert wide.high - wide.low > plain.high - plain.low
    copies, labels = np.repeat(x[:100], 4, axis=0), np.repeat(np.arange(100), 4)
    copies = copies + 1e-3 * rng.standard_normal(copies.shape)
    grouped = participation_ratio_interval(copies, rng, groups=labels, draws=60)
    assert grouped.details["kappa"] == pytest.approx(4, rel=0.5)


def test_bias_of_heavy_tailed_rows_is_corrected_or_flagged():
    """Rows with a common t₇ factor spread eigenvalues as 60 % as many Gaussian rows would."""
    d, rng = 16, np.random.default_rng(23)
    truth = rankme(np.arange(1, d + 1) ** -1.0)

    def heavy(n: int, seed: int) -> np.ndarray:
        return power(n, d, 1.0, seed) * np.sqrt(5 / rng.chisquare(7, (n, 1)))

    results = [rankme_interval(heavy(160, 300 + seed), rng, draws=40) for seed in range(24)]
    error = np.std([r.value for r in results]) / math.sqrt(24)
    assert abs(np.mean([r.value for r in results]) - truth) < 3 * error
    assert np.mean([r.details["raw"] for r in results]) < truth - 6 * error
    few = [
        rankme_interval(power(48, d, 1.0, s) / np.sqrt(rng.chisquare(3, (48, 1))), rng, draws=40)
        for s in range(8)
    ]
    assert not any(r.ok for r in few)
    assert sum("are worth" in r.reason for r in few) >= 5


@pytest.mark.slow
def test_reliable_intervals_cover_ninety_five_percent():
    # 3 × 400 populations at n/d = 4, fixed seed: pooled coverage has a standard error of 0.6 points.
    d, n, rng = 32, 128, np.random.default_rng(22)
    inside = reliable = 0
    for alpha in (1.0, 1.5, 2.0):
        truth = np.arange(1, d + 1) ** -alpha
        for _ in range(400):
            x = rng.standard_normal((n, d)) * np.sqrt(truth)
            for result, want in (
                (window_exponent_interval(x, 4, 15, rng, draws=50), alpha),
                (rankme_interval(x, rng, draws=50), rankme(truth)),
                (participation_ratio_interval(x, rng, draws=50), participation_ratio(truth)),
            ):
                reliable += result.ok
                inside += result.ok and result.low <= want <= result.high
    assert reliable > 2500
    assert 0.93 <= inside / reliable <= 0.97
