"""Front times and waves: plain searches, looks that do not resolve, planted waves, a common clock, verdicts."""

import math
from itertools import combinations, product
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from sims.analysis.depth import depth_correlation
from sims.analysis.fronts import POOLED, common_clock, depth_slopes, fronts, wave_verdict, waves
from sims.analysis.resampling import holm
from sims.system.errors import MeasureError

PAIRS = list(combinations(range(8), 2))
TIMES = np.concatenate([[0.0], np.geomspace(5, 1_000, 60)])


def compression(fronts_at, generator=None, noise=0.0, times=TIMES):
    """ln stable rank that falls by 2 nats, half of it at the given times (…, layers) → (…, looks, layers)."""
    at = np.asarray(fronts_at, dtype=float)[..., None, :]
    power = (times[:, None] / at) ** 6
    clean = 3.0 - 2.0 * power / (1 + power)
    return clean if generator is None else clean + noise * generator.standard_normal(clean.shape)


def planted(generator, seeds=3, layers=8):
    """Fronts at 100 + 20 l, and 5 % noise in each."""
    return (100 + 20 * np.arange(layers)) * np.exp(0.05 * generator.standard_normal((seeds, layers)))


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**6))
def test_a_front_is_the_first_crossing_of_half_the_largest_fall(seed):
    generator = np.random.default_rng(seed)
    times = np.cumsum(generator.random(12))
    values = generator.standard_normal((2, 12, 4)).cumsum(axis=1)
    found = fronts(times, values)
    for s in range(2):
        for layer in range(4):
            fallen = values[s, 0, layer] - values[s, :, layer]
            if fallen.max() <= 0:
                assert np.isnan(found.times[s, layer])
                assert "never compresses" in found.reason
                continue
            half = fallen.max() / 2
            k = next(k for k in range(12) if fallen[k] >= half)
            expected = np.interp(half, [fallen[k - 1], fallen[k]], [times[k - 1], times[k]])
            assert found.times[s, layer] == pytest.approx(expected)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10**6), st.floats(0.1, 10), st.floats(-3, 3), st.floats(0.1, 10))
def test_fronts_scale_with_time_and_know_neither_level_nor_size(seed, clock, level, size):
    values = compression(planted(np.random.default_rng(seed)))
    plain, moved = fronts(TIMES, values), fronts(clock * TIMES, size * values + level)
    assert moved.times == pytest.approx(clock * plain.times)
    assert (moved.spacing, moved.span) == pytest.approx((clock * plain.spacing, clock * plain.span))
    assert moved.status == plain.status == "ok"


def test_a_planted_wave_is_found():
    at = planted(np.random.default_rng(0))
    table = waves(TIMES, {"q": compression(at), "k": compression(at * 1.1)}, draws=39).to_dict("records")
    found = table[0]
    assert found["status"] == "ok"
    assert found["rho"] > 0.9
    assert found["p_holm"] < 0.01
    assert found["low"] <= found["kappa"] <= found["high"]
    assert found["kappa"] == pytest.approx(math.log(240 / 100), rel=0.15)
    assert found["per_block"] == pytest.approx(20, rel=0.15)
    assert found["kappa"] > found["kappa_null"]
    pooled = table[2]
    assert (pooled["p_holm"], pooled["seeds"]) == (pooled["p"], 3)
    exact = waves(TIMES, {"q": compression(100 + 20.0 * np.arange(8))}, draws=19).to_dict("records")[0]
    assert (exact["rho"], exact["p"]) == pytest.approx((1.0, 2 / math.factorial(8)))
    assert exact["kappa"] == pytest.approx(np.log(100 + 20.0 * np.arange(8))[[0, -1]] @ [-1, 1], rel=0.1)


def test_a_type_after_significant_ones_pays_for_the_remaining_ones_only():
    """.02 · 3 is above .05, and Holm's step-down has no such limit; the mutant p_min · types dropped both schedules."""
    own = pd.DataFrame({"name": ["q", "k", "v", POOLED], "rho": 0.9, "p": [0.02, 1e-4, 1e-4, 1e-4]})
    own = own.assign(p_min=[0.02, 1e-4, 1e-4, 1e-4], layers=9.0, status="ok", reason="")
    table = own.assign(p_holm=[*holm(own["p"].to_numpy()[:3]), 1e-4])
    assert wave_verdict({"cosine": table, "constant": table}).outcome == "shown"
    open_ = table.assign(p=[0.3, 1e-4, 1e-4, 1e-4], p_holm=[0.3, 3e-4, 3e-4, 1e-4])
    assert wave_verdict({"cosine": open_, "constant": open_}).outcome == "not shown"
    limited = table.assign(p=[0.02, 0.5, 0.5, 1e-4], p_holm=[0.06, 1, 1, 1e-4])
    found = wave_verdict({"cosine": limited, "constant": limited})
    assert (found.outcome, "3 types cannot have p < 0.05" in found.reason) == ("not resolved", True)


def test_the_pooled_speed_resamples_seeds_and_not_types():
    generator = np.random.default_rng(4)
    types = {name: compression(planted(generator)) for name in "qkv"}
    pooled = waves(TIMES, types, draws=19).to_dict("records")[-1]
    at = np.stack([np.log(fronts(TIMES, values).times) for values in types.values()])
    x = np.linspace(0, 1, 8)
    speeds = [
        np.median([(a[j] - a[i]) / (x[j] - x[i]) for a in at[:, list(k)].reshape(-1, 8) for i, j in PAIRS])
        for k in product(range(3), repeat=3)
    ]
    assert pooled["kappa"] == pytest.approx(speeds[5])
    assert (pooled["low"], pooled["high"]) == pytest.approx(tuple(np.quantile(speeds, [0.025, 0.975])))


def test_shuffled_layers_know_no_levels():
    values = compression(planted(np.random.default_rng(0)))
    moved = values + 10 * np.arange(8.0)
    assert common_clock(TIMES, moved, draws=39) == pytest.approx(common_clock(TIMES, values, draws=39))


def test_noise_of_five_per_cent_in_the_curves_leaves_the_wave():
    values = compression(np.tile(100 + 20.0 * np.arange(8), (3, 1)), np.random.default_rng(0), noise=0.05)
    found = waves(TIMES, {"q": values}, draws=19).to_dict("records")[0]
    assert found["rho"] > 0.9
    assert found["p_holm"] < 0.01


def test_a_common_clock_is_seldom_a_wave():
    """At most 5 % of 400 draws, up to chance: fronts that differ at random, and alike in all seeds."""
    hits = 0
    for i in range(400):
        generator = np.random.default_rng([2, i])
        at = 150 * np.exp(0.3 * generator.standard_normal((1, 7)) + 0.1 * generator.standard_normal((3, 7)))
        found = fronts(TIMES, compression(at))
        hits += found.status == "ok" and depth_correlation(found.times).p <= 0.05
    assert stats.binomtest(hits, 400, 0.05, "greater").pvalue > 1e-2


def test_looks_too_far_apart_resolve_no_wave_though_its_order_is_there():
    """A mutant: without the check, rounding to the looks would rank the layers."""
    fine = np.concatenate([[0.0], np.geomspace(5, 1_000, 150)])
    coarse = np.arange(0.0, 1_001.0, 25)
    rough = compression(30 + np.arange(8.0), times=coarse)
    assert depth_correlation(fronts(coarse, rough).times).p < 0.01
    found = fronts(coarse, rough)
    assert found.status == "not resolved"
    assert "25 apart" in found.reason
    assert f"{3 * 25 / found.span:.3g} times as dense" in found.reason
    same = compression(np.full((3, 8), 100.0))
    assert fronts(TIMES, same).reason.endswith("lie within 0")
    table = waves(coarse, {"q": rough, "k": rough})
    assert table["status"].tolist() == ["not resolved"] * 3
    assert table[["rho", "p", "kappa", "p_holm"]].isna().to_numpy().all()
    assert fronts(fine, compression(30 + np.arange(8.0), times=fine)).status == "ok"


def test_shuffled_layers_have_a_small_speed_where_fronts_differ_by_noise_alone():
    values = compression(np.full((3, 8), 100.0), np.random.default_rng(1), noise=0.05)
    found = waves(TIMES, {"q": values}, draws=99)
    if found["status"][0] == "ok":
        assert abs(found["kappa"][0]) < 2 * found["kappa_null"][0]
    assert 0 < common_clock(TIMES, values, draws=99) < 0.2
    assert common_clock(TIMES, values, draws=99) == common_clock(TIMES, values, draws=99)


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 10**6))
def test_the_gradient_over_depth_is_the_slope_of_a_line(seed):
    values = np.random.default_rng(seed).standard_normal((2, 5, 6))
    x = np.linspace(0, 1, 6)
    expected = np.polyfit(x, values.reshape(10, 6).T, 1)[0].reshape(2, 5)
    assert depth_slopes(values) == pytest.approx(expected)
    inner = np.polyfit(x[1:-1], values[..., 1:-1].reshape(10, 4).T, 1)[0].reshape(2, 5)
    assert depth_slopes(values, interior=True) == pytest.approx(inner)


def test_interior_layers_keep_their_depth():
    at = 100 * np.exp(np.linspace(0, 1, 10))
    both = [waves(TIMES, {"q": compression(at)}, interior=inner, draws=19) for inner in (False, True)]
    assert [int(t["layers"][0]) for t in both] == [10, 8]
    assert both[0]["kappa"][0] == pytest.approx(1.0, abs=0.05)
    assert both[1]["kappa"][0] == pytest.approx(1.0, abs=0.05)


def verdict(**tables):
    return wave_verdict(tables)


def test_a_wave_needs_both_types_the_pool_and_two_schedules():
    good = compression(planted(np.random.default_rng(0)))
    noise = compression(150 * np.exp(0.3 * np.random.default_rng(3).standard_normal((3, 8))))
    wave = waves(TIMES, {"q": good, "k": good, "v": good}, draws=19)
    half = waves(TIMES, {"q": good, "k": noise, "v": good}, draws=19)
    assert verdict(constant=wave, cosine=wave).outcome == "shown"
    assert verdict(constant=wave, cosine=half).outcome == "not shown"
    assert verdict(constant=half, cosine=half).outcome == "not shown"
    one = verdict(constant=wave)
    assert (one.outcome, "1 schedules" in one.reason) == ("not resolved", True)
    absent = waves(TIMES, {"q": good, "v": good}, draws=19)
    assert "k: not measured" in verdict(constant=absent, cosine=wave).reason
    few = waves(TIMES, dict.fromkeys("qkvo", good[..., :5]), draws=19)
    assert "5 layers and 4 types cannot" in verdict(constant=few, cosine=few).reason
    flat = waves(TIMES, {"q": np.full((3, 61, 8), 1.0), "k": good}, draws=19)
    assert "never compresses" in verdict(constant=flat, cosine=flat).reason


def test_a_wave_from_late_to_early_layers_is_not_the_claim():
    back = waves(
        TIMES, dict.fromkeys("qk", compression(planted(np.random.default_rng(0))[:, ::-1])), draws=19
    )
    assert back["p_holm"].max() < 0.01
    assert verdict(constant=back, cosine=back).outcome == "not shown"


@pytest.mark.parametrize(
    ("times", "values", "said"),
    [
        (TIMES[:5], np.zeros((4, 6)), "5 times"),
        (TIMES[:3], np.zeros((3, 6)), "at least 4"),
        (TIMES[:5][::-1], np.zeros((5, 6)), "rise"),
        (TIMES[:5], np.full((5, 6), np.nan), "finite"),
    ],
)
def test_wrong_input_is_refused(times, values, said):
    with pytest.raises(MeasureError, match=said):
        fronts(times, values)


@pytest.mark.parametrize(("span", "status"), [(3.1, "ok"), (2.9, "not resolved")])
def test_looks_may_lie_a_third_of_the_range_of_fronts_apart(span, status):
    """Looks are 1 apart, and each layer falls by one step of a line whose half lies at its front."""
    times = np.arange(12.0)
    places = 4.0 + np.linspace(0, span, 4)
    found = fronts(times, -np.clip((times[:, None] - places) / 4 + 0.5, 0, 1))
    assert found.span == pytest.approx(span)
    assert found.spacing == 1
    assert found.status == status


def test_two_layers_have_no_interior():
    found = waves(TIMES, {"q": -np.outer(TIMES, [1.0, 2.0])}, interior=True, draws=19)
    assert found["reason"].tolist() == ["no layer is left", "no type is resolved"]


def test_wrong_families_are_refused():
    good: dict[str, Any] = {"q": np.zeros((5, 6))}
    for wrong in ({}, {**good, "pooled": good["q"]}, {**good, "k": np.zeros((5, 7))}):
        with pytest.raises(MeasureError, match="at least one"):
            waves(TIMES[:5], wrong)
    # Speeds are those of logarithms of times.
    with pytest.raises(MeasureError, match="above 0"):
        waves(TIMES[:5] - TIMES[1], good)
    with pytest.raises(MeasureError, match="19"):
        common_clock(TIMES[:5], good["q"], draws=5)
    with pytest.raises(MeasureError, match="2 must remain"):
        depth_slopes(np.zeros((3, 3)), interior=True)
    with pytest.raises(MeasureError, match="no column"):
        wave_verdict({"constant": pd.DataFrame({"name": ["q"]})})
