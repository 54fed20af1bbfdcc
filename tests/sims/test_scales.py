"""Units, offsets and constants: results that have no scale keep their values from 1e-200 to 1e200, and rounding is no
signal."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sims.analysis.asymmetry import asymmetry
from sims.analysis.gain import signal_gain
from sims.analysis.lags import lag_coupling
from sims.analysis.leads import lead_law
from sims.analysis.noise_scale import noise_scale
from sims.analysis.peaks import inverted_u
from sims.analysis.resampling import trend_permutation
from sims.analysis.segmentation import level_p, segment
from sims.analysis.slots import variance_shares
from sims.analysis.spread import spread_law
from sims.analysis.timescales import ONE, fit_timescales
from sims.system.errors import MeasureError

# Units from 1e-200 to 1e200, among them those whose squares no float64 holds.
UNITS = st.integers(-200, 200).map(lambda power: 10.0**power) | st.sampled_from(
    [1e-200, 1e-160, 1e160, 1e200]
)
X = np.log(np.geomspace(1e4, 1e8, 20))


def draw(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def looks(unit=1.0, shift=0.0):
    """A line that bends at 14, with noise."""
    return unit * (np.where(X > 14, X - 14, 0.0) + 0.1 * draw(20, seed=1) + shift)


def runs(unit=1.0, shift=0.0, base_shift=0.0):
    groks = np.arange(24) % 2 == 0
    base, signal = draw(2, 24, seed=2)
    return pd.DataFrame(
        {"groks": groks, "s": (signal + groks + shift) * unit, "b": (base + base_shift) * unit}
    )


def series(unit=1.0):
    x = draw(60, seed=3)
    y = np.roll(x, 2) + 0.3 * draw(60, seed=4)
    return pd.DataFrame({"step": np.arange(60), "value": unit * x, "loss": y / unit})


def matrices(unit=1.0, head=None):
    names = [f"blocks.{b}.{s}" for b in range(3) for s in ("q", "o")]
    table = pd.DataFrame({"name": names, "score": unit * draw(6, seed=5)})
    return table if head is None else pd.concat([table, pd.DataFrame({"name": ["head"], "score": [head]})])


def curves():
    fall = 1 + 0.2 * np.arange(4) + 0.1 * np.arange(2)[:, None, None]
    return -fall * (1 - np.exp(-4 * TIMES))[:, None] + 0.01 * draw(2, 16, 4, seed=6)


TIMES = np.linspace(0, 1.5, 16)


def groups():
    return draw(2, 3, 2, 6, seed=7)


def profile():
    return -((np.linspace(0, 1, 12) - 0.5) ** 2) + 1e-3 * draw(4, 12, seed=8)


SCALE_FREE = {
    "asymmetry": lambda unit: [
        getattr(asymmetry(*(groups() * unit)), name) for name in ("ratio", "low", "high", "p")
    ],
    "inverted_u": lambda unit: [
        getattr(inverted_u(profile() * unit), name)
        for name in ("break_at", "p_before", "p_after", "peak", "peak_low", "peak_high", "interior")
    ],
    "spread_law": lambda unit: [
        getattr(spread_law({n: unit * draw(1, n, seed=n) for n in (4, 6, 8, 12, 16)}), name)
        for name in ("exponent", "low", "high")
    ],
    "segment": lambda unit: [
        *(found := segment(X, looks(unit), max_changes=1, draws=99)).changes,
        *found.p,
        *np.array(found.slopes) / unit,
        found.fitted[3] / unit,
    ],
    "level_p": lambda unit: [level_p(X, looks(unit), 1, 0, (2, 6), draws=99)],
    "signal_gain": lambda unit: [
        getattr(signal_gain(runs(unit), "s", ["b"], draws=9), name) for name in ("gain", "with_signal", "p")
    ],
    "lag_coupling": lambda unit: [
        getattr(lag_coupling(series(unit), window=4, draws=19, resamples=19), name)
        for name in ("lag", "r", "low", "high", "p", "block")
    ],
    "variance_shares": lambda unit: list(variance_shares(matrices(unit)).values()),
}
PLAIN = {}


@pytest.mark.parametrize("name", SCALE_FREE)
@settings(deadline=None, max_examples=5)
@given(unit=UNITS)
def test_units_change_no_result(name, unit):
    plain = PLAIN.setdefault(name, SCALE_FREE[name](1.0))
    assert np.isfinite(plain).all()
    assert SCALE_FREE[name](unit) == pytest.approx(plain, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("unit", [1e-160, 1e160])
def test_times_of_relaxation_have_no_unit_of_values(unit):
    plain = fit_timescales(TIMES, curves(), ONE)
    found = fit_timescales(TIMES, curves() * unit, ONE)
    assert plain.fast == pytest.approx(0.25, rel=0.2)
    assert found.fast == pytest.approx(plain.fast, rel=1e-3)
    assert found.fall / unit == pytest.approx(plain.fall, rel=1e-3)
    assert found.fitted / unit == pytest.approx(plain.fitted, rel=1e-3, abs=1e-3)
    # A density has the inverse unit of its curve.
    assert found.log_likelihood + curves().size * math.log(unit) == pytest.approx(
        plain.log_likelihood, abs=1e-3
    )


def test_slopes_have_the_unit_of_the_profile():
    plain, scaled = inverted_u(profile()), inverted_u(profile() * 1e160)
    assert (scaled.before / 1e160, scaled.after / 1e160) == pytest.approx((plain.before, plain.after))
    sizes = (4, 6, 8, 12, 16)
    small, large = (
        spread_law({n: unit * draw(1, n, seed=n) for n in sizes}).spreads for unit in (1.0, 1e160)
    )
    assert np.array(large) / 1e160 == pytest.approx(small)


@pytest.mark.parametrize("level", [1.0, 0.1, -1e9, 1e-200])
def test_a_constant_curve_does_not_change(level):
    flat = segment(X, np.full(20, level), draws=99)
    assert (flat.changes, flat.next_p, flat.bic_changes) == ((), 1.0, 0)
    assert level_p(X, np.full(20, level), 1, 0, (2, 6), draws=99) == 1.0
    # One unit in the last place is no change either.
    stepped = np.where(X > 14, level, np.nextafter(level, math.inf))
    assert segment(X, stepped, draws=99).changes == ()


def test_a_small_change_above_rounding_is_found():
    assert len(segment(X, 1.0 + 1e-10 * looks(), max_changes=1, draws=99).changes) == 1


@pytest.mark.parametrize("shifts", [(1e8, 0.0), (0.0, 1e8), (-1e6, 1e6)])
def test_an_offset_changes_no_gain(shifts):
    plain = signal_gain(runs(), "s", ["b"], draws=39)
    moved = signal_gain(runs(1.0, *shifts), "s", ["b"], draws=39)
    assert (moved.gain, moved.without, moved.p) == pytest.approx(
        (plain.gain, plain.without, plain.p), abs=1e-5
    )


def test_a_signal_that_the_baseline_determines_is_rounding_at_any_offset():
    table = runs()
    for level in (0.0, 1e6):
        own = signal_gain(table.assign(s=0.3 * table["b"] + level), "s", ["b"], draws=9)
        assert own.reason == "the baselines determine the signal"


def test_groups_of_unlike_size_or_equal_up_to_rounding_are_not_compared():
    a, b = groups()
    far = asymmetry(a * 1e120, b * 1e-120)
    assert far.status == "not resolved"
    assert "times as large" in far.reason
    level = np.full(6, 0.1)
    level[2] = np.nextafter(0.1, 1)
    same = asymmetry(a, np.broadcast_to(level, a.shape))
    assert "same values in all layers" in same.reason
    law = spread_law({n: np.resize(level, (1, n)) for n in (4, 6, 8, 12, 16)})
    assert "same value in all of 4 layers" in law.reason


def test_a_constant_curve_has_no_time():
    values = curves()
    values[0, :, 1] = 0.1
    values[0, 3, 1] = np.nextafter(0.1, 1)
    with pytest.raises(MeasureError, match="constant"):
        fit_timescales(TIMES, values, ONE)


@pytest.mark.parametrize("columns", [4, 9])
def test_a_trend_refuses_missing_values(columns):
    rows = draw(3, columns, seed=9)
    with pytest.raises(MeasureError, match="1 of"):
        trend_permutation(np.where(np.arange(3 * columns).reshape(3, -1) == 5, np.nan, rows))
    assert np.isfinite(trend_permutation(np.vstack([rows, np.ones(columns)]))).all()


def test_an_exact_law_of_leads_is_not_called_falling():
    times = np.array([100.0, 200, 400, 800, 1600, 3200])
    table = pd.DataFrame({"t_90": times, "t_mem": 0.1 * times})
    rising = lead_law(table.assign(lead=0.5 * times)).verdict
    assert rising.outcome == "not resolved"
    assert "exactly" in rising.reason
    falling = lead_law(table.assign(lead=1e4 / times)).verdict
    assert (falling.outcome, "above 0" in falling.reason) == ("not shown", True)


def test_matrices_outside_the_blocks_have_no_share():
    plain = variance_shares(matrices())
    assert variance_shares(matrices(head=1e3)) == plain
    assert np.isnan(list(variance_shares(matrices(head=1.0).tail(1)).values())).all()
    assert np.isnan(list(variance_shares(matrices().assign(score=0.1)).values())).all()


def costs():
    return pd.DataFrame(
        {
            "stage": "s",
            "batch_size": b,
            "seed": s,
            "target": 1.0,
            "tokens": 1e6 * (1 + b / 100) * (1 + s / 100),
        }
        for b in (8, 32, 128, 512)
        for s in range(3)
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"tokens": math.inf}, "are inf in 1 runs"),
        ({"tokens": 0.0}, "are 0 in 1 runs"),
        ({"tokens": -1.0}, "are -1 in 1 runs"),
        ({"target": 2.0}, "2 targets"),
        ({"batch_size": 32, "seed": 0}, "several runs of seed 0 and batch size 32"),
    ],
)
def test_tokens_that_no_curve_has_are_refused(change, words):
    table = costs()
    for column, value in change.items():
        table[column] = table[column].where(table.index != 0, value)
    with pytest.raises(MeasureError, match=words):
        noise_scale(table)
    assert noise_scale(costs())["status"].tolist() == ["ok"]
