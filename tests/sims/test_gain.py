"""What a signal adds to baselines: the fit against scipy, level under the null, power, refusals."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

from sims.analysis.alarm_rocs import scores_at
from sims.analysis.gain import _scores, signal_gain, wide_scores
from sims.system.errors import MeasureError
from tests.sims.grokking_looks import many

BASELINES = list("abcde")


def runs(generator, n=32, own=0.0):
    """Runs whose first baseline tells the classes apart; the signal follows two baselines, and knows `own` more."""
    base = generator.standard_normal((n, 5))
    groks = base[:, 0] + 0.7 * generator.standard_normal(n) > 0
    signal = base[:, 0] + 0.5 * base[:, 1] + 0.5 * generator.standard_normal(n) + own * groks
    return pd.DataFrame(base, columns=BASELINES).assign(signal=signal, groks=groks)


def slow_score(features, y, ridge):
    """Fit each fold by a general optimiser."""
    found = []
    for i in range(len(y)):
        kept = np.arange(len(y)) != i
        mean, spread = features[kept].mean(axis=0), features[kept].std(axis=0)
        scaled = (features - mean) / np.where(spread > 0, spread, np.inf)

        def loss(w, scaled=scaled, kept=kept):
            margin = w[0] + scaled[kept] @ w[1:]
            return np.logaddexp(0, np.where(y[kept] > 0, -margin, margin)).sum() + ridge / 2 * w[1:] @ w[1:]

        w = optimize.minimize(loss, np.zeros(features.shape[1] + 1), tol=1e-12).x
        margin = w[0] + scaled[i] @ w[1:]
        found.append(-np.logaddexp(0, -margin if y[i] > 0 else margin))
    return float(np.mean(found))


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 10**6), st.integers(8, 14), st.sampled_from([0.1, 1.0, 10.0]), st.booleans())
def test_scores_of_runs_left_out_are_those_of_a_general_optimiser(seed, n, ridge, constant):
    generator = np.random.default_rng(seed)
    features = generator.standard_normal((n, 3)) * [1.0, 100.0, 0.01]
    features[:, 2] *= not constant
    y = (np.arange(n) % 2).astype(float)
    assert _scores(features[None], y, ridge)[0] == pytest.approx(slow_score(features, y, ridge), abs=1e-5)


@settings(deadline=None, max_examples=10)
@given(st.integers(0, 10**6), st.floats(0.01, 100.0), st.floats(-5.0, 5.0))
def test_units_do_not_matter(seed, scale, shift):
    table = runs(np.random.default_rng(seed), 20)
    if not 3 <= table["groks"].sum() <= 17:
        return
    plain = signal_gain(table, "signal", BASELINES, draws=9)
    other = signal_gain(table.assign(signal=scale * table["signal"] + shift), "signal", BASELINES, draws=9)
    assert other.gain == pytest.approx(plain.gain, abs=1e-6)
    assert other.p == plain.p


TRIALS = 60


def test_a_signal_that_follows_the_baselines_has_the_level():
    """p ≤ 0.1 in about 10 % of 60 tables in which the signal repeats baselines with noise."""
    hits = sum(
        signal_gain(runs(np.random.default_rng([1, i]), 24), "signal", BASELINES, draws=19).p <= 0.1
        for i in range(TRIALS)
    )
    assert stats.binomtest(hits, TRIALS, 0.1).pvalue > 1e-2


def test_a_signal_that_knows_more_is_found():
    found = signal_gain(runs(np.random.default_rng(2), own=2.0), "signal", BASELINES, draws=199)
    assert found.p == 1 / 200
    assert found.gain > 0.1
    assert found.with_signal - found.without == pytest.approx(found.gain)
    assert "adds +0." in found.sentence


def test_scores_become_one_row_a_run():
    looks = many(np.random.default_rng(3), grok=6, controls={"labels": 5}, effect=3.0)
    scores = scores_at(looks, ["signal", "noise", "loss"], [200.0])
    wide = wide_scores(scores)
    assert len(wide) == 11
    assert wide["groks"].sum() == 6
    assert set(wide["kind"]) == {"groks", "labels"}
    found = signal_gain(wide, "signal", ["loss"], draws=99)
    assert found.p == 0.01
    assert found.status == "ok"
    hole = scores.assign(
        value=scores["value"].where((scores["run"] != "run 0") | (scores["signal"] != "loss"))
    )
    assert len(wide_scores(hole)) == 10
    with pytest.raises(MeasureError, match="several times"):
        wide_scores(scores_at(looks, ["loss"], [200.0, 300.0]))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda t: t.assign(groks=True), "32 runs grok and 0 do not"),
        (lambda t: t.assign(groks=np.arange(len(t)) < 2), "2 runs grok"),
        (lambda t: t.assign(signal=2 * t["a"] - t["b"] + 1), "determine the signal"),
        (lambda t: t.assign(signal=3.3), "same in all runs"),
    ],
)
def test_what_cannot_be_compared_says_why(change, why):
    found = signal_gain(change(runs(np.random.default_rng(4))), "signal", BASELINES, draws=9)
    assert found.status == "not resolved"
    assert why in found.sentence
    assert math.isnan(found.p)


@pytest.mark.parametrize(
    ("change", "options", "why"),
    [
        (lambda t: t.drop(columns="a"), {}, "no column a"),
        (lambda t: t.assign(b=np.nan), {}, "not finite"),
        (
            lambda t: t.assign(groks=t["groks"].astype(object).where(t.index > 0, None)),
            {},
            "missing in 1 run",
        ),
        (lambda t: t, {"baselines": []}, "at least one baseline"),
        (lambda t: t, {"baselines": ["signal"]}, "other than"),
        (lambda t: t, {"ridge": 0.0}, "ridge 0"),
    ],
)
def test_bad_input_is_refused(change, options, why):
    with pytest.raises(MeasureError, match=why):
        signal_gain(
            change(runs(np.random.default_rng(5))),
            "signal",
            **{"baselines": BASELINES, "draws": 9, **options},
        )
