"""Lags of two series: the curve against a slow oracle, the test under independence, planted lags, refusals."""

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from sims.analysis.lagged import block_order, permuted
from sims.analysis.lags import lag_coupling, lag_couplings, lag_flip
from sims.system.errors import MeasureError

QUICK: dict[str, Any] = {"draws": 199, "resamples": 199}


def moving(generator, n, memory):
    """A stationary first-order series."""
    shocks = generator.standard_normal(n + 100)
    out = np.zeros(n + 100)
    for i in range(1, n + 100):
        out[i] = memory * out[i - 1] + shocks[i]
    return out[100:]


def looks(x, y):
    return pd.DataFrame({"step": 25 * np.arange(len(x)), "value": x, "loss": y})


def windowed(values, window):
    out = np.full(len(values), np.nan)
    out[window - 1 :] = np.convolve(values, np.ones(window) / window, "valid")
    return out


def oracle(x, y, lag, degree):
    """r of residuals of numpy's own polynomial fit, pair by pair."""
    t = np.arange(len(x), dtype=float)
    rests = [v - np.polyval(np.polyfit(t, v, degree), t) for v in (x, y)]
    pairs = [(rests[0][i], rests[1][i + lag]) for i in range(len(x)) if 0 <= i + lag < len(x)]
    return float(np.corrcoef(np.array(pairs).T)[0, 1])


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10**6), st.integers(24, 60), st.sampled_from(["cubic", "linear"]))
def test_the_curve_is_that_of_the_definition(seed, n, detrend):
    x, y = np.random.default_rng(seed).standard_normal((2, n))
    found = lag_coupling(looks(x, y), window=2, detrend=detrend, draws=1, resamples=1)
    degree = {"cubic": 3, "linear": 1}[detrend]
    assert found.curve["lag"].tolist() == list(range(-5, 6))
    assert found.curve["pairs"].tolist() == [n - abs(lag) for lag in range(-5, 6)]
    expected = [oracle(x, y, lag, degree) for lag in range(-5, 6)]
    assert found.curve["r"].to_numpy() == pytest.approx(expected, abs=1e-9)
    assert found.curve["lag"][int(found.curve["r"].abs().argmax())] == found.lag
    assert found.low <= found.lag <= found.high


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10**6), st.floats(0.1, 10.0), st.floats(-5.0, 5.0))
def test_neither_scale_nor_trend_matters_and_time_can_be_reversed(seed, scale, slope):
    n = 40
    x, y = np.random.default_rng(seed).standard_normal((2, n))
    t = np.arange(n) / n
    options: dict[str, Any] = {"window": 2, "draws": 39, "resamples": 39}
    plain = lag_coupling(looks(x, y), **options)
    other = lag_coupling(looks(scale * x + slope * t**3 - t, y + slope * t**2), **options)
    assert other.curve["r"].to_numpy() == pytest.approx(plain.curve["r"].to_numpy(), abs=1e-7)
    assert (other.p, other.lag) == (plain.p, plain.lag)
    back = lag_coupling(looks(x[::-1], y[::-1]), **options)
    assert back.curve["r"].to_numpy() == pytest.approx(plain.curve["r"].to_numpy()[::-1], abs=1e-9)


def test_differences_are_the_correlation_of_differences():
    x, y = np.random.default_rng(0).standard_normal((2, 40)).cumsum(axis=1)
    found = lag_coupling(looks(x, y), window=2, detrend="differences", **QUICK)
    expected = float(np.corrcoef(np.diff(x), np.diff(y))[0, 1])
    assert found.curve.set_index("lag")["r"][0.0] == pytest.approx(expected, abs=1e-12)


@settings(deadline=None)
@given(st.integers(1, 50), st.integers(1, 50), st.integers(0, 1000))
def test_blocks_keep_neighbours_and_every_point(n, block, seed):
    order = block_order(n, min(block, n), np.random.default_rng(seed))
    assert sorted(order) == list(range(n))
    seams = np.count_nonzero((np.diff(order) % n) != 1)
    assert seams <= math.ceil(n / min(block, n)) - 1


def test_permuted_series_lose_their_trend_again():
    x, y = np.random.default_rng(1).standard_normal((2, 40))
    t = np.arange(40.0)
    x, y = (v - np.polyval(np.polyfit(t, v, 3), t) for v in (x, y))
    found = permuted(x, y, np.arange(-5, 6), 6, 3, 4, np.random.default_rng(2))
    generator = np.random.default_rng(2)
    expected = [
        max(abs(oracle(x[order], y, lag, 3)) for lag in range(-5, 6))
        for order in (block_order(40, 6, generator) for _ in range(4))
    ]
    assert found == pytest.approx(expected, abs=1e-9)


RUNS = 150


@pytest.mark.parametrize(("detrend", "level"), [("cubic", 0.12), ("differences", 0.05)])
def test_independent_series_are_seldom_coupled(detrend, level):
    """A window's mean of 20 and a loss, both with memory 0.9: at most the stated share is significant."""
    found = []
    for i in range(RUNS):
        generator = np.random.default_rng([3, i])
        x = windowed(moving(generator, 120, 0.9), 20)
        one = lag_coupling(
            looks(x, moving(generator, 120, 0.9)), window=20, detrend=detrend, draws=199, resamples=1
        )
        found += [one.p <= 0.05] if one.status == "ok" else []
    assert len(found) > RUNS / 2
    assert stats.binomtest(sum(found), len(found), level, "greater").pvalue > 1e-2


@pytest.mark.slow
def test_independent_series_without_memory_have_the_level():
    generator = np.random.default_rng(11)
    hits = sum(
        lag_coupling(looks(*generator.standard_normal((2, 80))), window=2, draws=199, resamples=1, seed=i).p
        <= 0.05
        for i in range(RUNS)
    )
    assert stats.binomtest(hits, RUNS, 0.05).pvalue > 1e-2


@pytest.mark.parametrize("lag", [-3, 0, 2])
def test_a_planted_lag_is_found(lag):
    """y follows x by `lag`: the largest |r| is there in 20 of 20 runs, significant, with a narrow interval."""
    for i in range(20):
        generator = np.random.default_rng([5, i])
        source = generator.standard_normal(130)
        x, y = source[20:110], -source[20 - lag : 110 - lag] + 0.5 * generator.standard_normal(90)
        found = lag_coupling(looks(x, y), window=5, seed=i, **QUICK)
        assert (found.lag, found.negative_lag) == (lag, lag)
        assert found.p <= 0.01
        assert found.high - found.low <= 1
        assert found.status == "ok"
        assert f"lag {lag}" in found.sentence


@pytest.mark.parametrize("memory", [0.0, 0.7])
def test_the_interval_contains_a_weak_lag(memory):
    """y follows x two snapshots later under noise twice as strong: outside in at most 5 % of 60 runs, up to chance."""
    outside, width = 0, 0.0
    for i in range(60):
        generator = np.random.default_rng([6, i])
        source = moving(generator, 150, memory)
        noise = 2 * source.std() * generator.standard_normal(100)
        found = lag_coupling(
            looks(source[20:120], noise - source[18:118]), window=5, draws=1, resamples=199, seed=i
        )
        outside += not found.low <= 2 <= found.high
        width += (found.high - found.low) / 60
    assert stats.binomtest(outside, 60, 0.05, "greater").pvalue > 1e-2
    assert 1 < width < 7


@pytest.mark.parametrize("window", [4, 5])
def test_the_stamp_at_the_centre_removes_the_delay_of_a_window(window):
    """A rolling mean of the loss itself comes (W−1)/2 late at the end of the window, and not at its centre."""
    loss = np.random.default_rng(2).standard_normal(120)
    table = looks(windowed(loss, window), loss)
    end = lag_coupling(table, window=window, **QUICK)
    centre = lag_coupling(table, window=window, stamp="centre", **QUICK)
    assert end.lag <= 0
    assert abs(centre.lag) <= (window - 1) / 2
    lags = centre.curve["lag"].to_numpy()
    assert (lags == -lags[::-1]).all()
    assert (lags % 1 == (0.5 if window == 4 else 0)).all()
    weights = centre.curve["r"].to_numpy() * (np.abs(lags) <= window)
    # The mean of equal weights has its correlation on both sides alike.
    assert abs((weights * lags).sum() / weights.sum()) < 0.4


def couple(lags_of, seeds=4, windows=(10, 20)):
    rows = []
    for seed in range(seeds):
        for window in windows:
            lag = lags_of(seed, window)
            rows.append(
                {
                    "seed": seed,
                    "window": window,
                    "stamp": "end",
                    "detrend": "cubic",
                    "status": "ok",
                    "reason": "",
                }
                | {"p": 0.001, "low": lag - 0.5, "high": lag + 0.5}
                | {"negative_low": -lag - 0.5, "negative_high": -lag + 0.5}
            )
    return pd.DataFrame(rows)


def test_a_flip_needs_three_of_four_seeds_the_same_way():
    table = couple(lambda seed, window: -2 if window == 10 else 2)
    assert lag_flip(table).outcome == "shown"
    assert lag_flip(table, negative=True).outcome == "shown"
    table.loc[(table["seed"] == 0) & (table["window"] == 20), "p"] = 0.2
    assert lag_flip(table).outcome == "shown"
    table.loc[(table["seed"] == 1) & (table["window"] == 20), "low"] = -0.1
    # Of two seeds nobody knows.
    assert lag_flip(table).outcome == "not resolved"
    assert lag_flip(couple(lambda seed, window: 2)).outcome == "not shown"
    mixed = couple(lambda seed, window: (-2 if window == 10 else 2) * (1 if seed < 2 else -1))
    assert lag_flip(mixed).outcome == "not shown"
    few = lag_flip(couple(lambda seed, window: -2 if window == 10 else 2, seeds=3))
    assert few.outcome == "not resolved"
    assert "3 seeds" in few.sentence
    table["status"], table["reason"] = "not resolved", "a series is constant"
    assert "a series is constant" in lag_flip(table).reason


def test_independent_runs_show_no_flip():
    """The rule finds a flip in none of 10 sets of four seeds."""
    for trial in range(10):
        parts = []
        for seed in range(4):
            generator = np.random.default_rng([8, trial, seed])
            norms, loss = moving(generator, 160, 0.9), moving(generator, 160, 0.9)
            parts += [
                looks(windowed(norms, window), loss).assign(seed=seed, window=window) for window in (10, 20)
            ]
        table = lag_couplings(pd.concat(parts), stamps=["end"], detrends=["cubic"], **QUICK)
        assert len(table) == 8
        assert lag_flip(table).outcome != "shown"


def test_the_published_reading_flips_for_independent_series():
    """The lag of the most negative r among −3…5 has unequal signs at W = 10 and 20 in 48 % of runs."""
    unequal = 0
    for i in range(200):
        generator = np.random.default_rng([77, i])
        norms, loss, signs = moving(generator, 60, 0.9), moving(generator, 60, 0.9), []
        for window in (10, 20):
            curve = lag_coupling(
                looks(windowed(norms, window), loss), window=window, draws=1, resamples=1
            ).curve
            published = curve[curve["lag"] >= -3]
            signs.append(np.sign(published["lag"].to_numpy(float)[published["r"].to_numpy(float).argmin()]))
        unequal += signs[0] != signs[1]
    assert stats.binomtest(unequal, 200, 0.476).pvalue > 1e-2


def test_a_planted_flip_is_shown_and_disappears_at_the_centre():
    """A window's mean of what the loss does three snapshots later leads at W = 3, and follows at W = 11."""
    parts = []
    for seed in range(4):
        source = np.random.default_rng([9, seed]).standard_normal(200)
        for window in (3, 11):
            x = np.full(200, np.nan)
            # The middle of the window carries the signal, so that its stamp at the end comes (W−1)/2 late.
            x[window - 1 :] = source[(window - 1) // 2 : 200 - (window - 1) // 2]
            parts.append(looks(x, np.roll(source, 3)).assign(seed=seed, window=window))
    table = lag_couplings(pd.concat(parts), detrends=["cubic"], **QUICK)
    assert lag_flip(table, 3, 11).outcome == "shown"
    assert lag_flip(table, 3, 11, stamp="centre").outcome == "not shown"
    centre = table[table["stamp"] == "centre"]
    assert (centre["lag"] == 3).all()


NOISE = np.random.default_rng(4).standard_normal((2, 40))


@pytest.mark.parametrize(
    ("x", "y", "why"),
    [
        (np.full(40, 2.0), NOISE[1], "first series is constant"),
        (NOISE[0], 1.0 + np.arange(40.0) ** 3, "second series is constant"),
        (np.where(np.arange(40) == 20, np.nan, NOISE[0]), NOISE[1], "1 of 40 snapshots"),
        (np.where(np.arange(40) == 20, np.inf, NOISE[0]), NOISE[1], "1 of 40 snapshots"),
        (NOISE[0, :18], NOISE[1, :18], "12 are needed"),
        (NOISE[0, :3], NOISE[1, :3], "3 snapshots have both"),
        (np.full(40, np.nan), NOISE[1], "0 snapshots have both"),
    ],
)
def test_what_cannot_be_tested_says_why(x, y, why):
    found = lag_coupling(looks(x, y), window=2, **QUICK)
    assert found.status == "not resolved"
    assert why in found.sentence
    assert math.isnan(found.p)


def test_a_series_shorter_than_three_windows_is_not_resolved():
    found = lag_coupling(looks(*NOISE), window=20, **QUICK)
    assert found.status == "not resolved"
    assert "3 blocks of 20" in found.reason
    assert len(found.curve) == 11


def test_the_end_of_a_diverged_run_is_left_out():
    x = np.where(np.arange(40) > 35, np.nan, NOISE[0])
    assert lag_coupling(looks(x, NOISE[1]), window=2, **QUICK).points == 36


def test_an_empty_table_is_refused():
    with pytest.raises(MeasureError, match="empty"):
        lag_couplings(looks([], []).assign(seed=0, window=10))


@pytest.mark.parametrize(
    ("change", "options", "why"),
    [
        (lambda t: t.drop(columns="loss"), {}, "no column loss"),
        (lambda t: t.drop(index=7), {}, "equal distances"),
        (lambda t: pd.concat([t, t]), {}, "one run at a time"),
        (lambda t: t, {"window": 1}, "window 1"),
        (lambda t: t, {"stamp": "start"}, "choose end or centre"),
        (lambda t: t, {"detrend": "spline"}, "cubic, linear"),
    ],
)
def test_bad_input_is_refused(change, options, why):
    with pytest.raises(MeasureError, match=why):
        lag_coupling(change(looks(*NOISE)), **{"window": 2, **options})
