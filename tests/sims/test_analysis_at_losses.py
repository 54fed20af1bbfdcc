"""Losses as the clock, and spectra and exponents at equal loss, on constructed runs."""

import math

import numpy as np
import pandas as pd
import pytest
from constructed import build, power_law
from hypothesis import given
from hypothesis import strategies as st

from sims.analysis.cells import at_losses, best_rates, crossing, loss_levels, loss_range, tokens_to
from sims.analysis.matched import batch_divergence, matched_spectra, sampling_floor
from sims.analysis.prediction import early_exponents
from sims.analysis.runs import Runs
from sims.analysis.tails import _steeper, matched_exponents, tail_by_batch, tail_trend
from sims.system.errors import MeasureError
from spectra import Spectrum, covariance_spectrum, js_divergence

# --- losses as the clock -----------------------------------------------------------------------------------------


LOSSES = np.array([4.0, 3.0, 3.5, 1.0])
VALUES = np.array([[0.0, 1.0], [1.0, 1.0], [5.0, 1.0], [10.0, 2.0]])


def test_at_losses_reads_the_first_passage():
    found = at_losses(np.arange(1, 5), LOSSES, VALUES, np.array([4.5, 4.0, 3.25, 2.0, 0.5]))
    assert found[:, 0] == pytest.approx([np.nan, 0.0, 0.75, 8.0, np.nan], nan_ok=True)
    assert found[3, 1] == pytest.approx(1.6)


def test_nothing_is_interpolated_from_the_untrained_model():
    """3.25 lies between the untrained model and the first record; 4 and 3 are the records themselves."""
    found = at_losses(np.arange(4), LOSSES, VALUES, np.array([4.0, 3.25, 3.0, 2.0]))
    assert found[:, 0] == pytest.approx([0.0, np.nan, 1.0, 8.0], nan_ok=True)
    curve = pd.DataFrame({"tokens": [0, 10, 20], "value": [4.0, 3.0, 2.0]})
    assert [crossing(curve, v) for v in (5.0, 3.5, 3.0, 2.5)] == pytest.approx(
        [0, np.nan, 10, 15], nan_ok=True
    )


def test_losses_in_common_begin_with_the_first_record_of_training():
    one = pd.DataFrame({"tokens": range(5), "value": [9.0, 4.0, 3.0, 2.0, 1.0]})
    two = pd.DataFrame({"tokens": range(3), "value": [5.0, 3.5, 2.0]})
    assert loss_range([one, two]) == (3.5, 2.0)
    # A run that was worse at its first record than untrained is known below its start only.
    assert loss_range([one, two.assign(value=[3.2, 3.5, 2.0])]) == (3.2, 2.0)
    # Without a record of the untrained model the first one counts.
    assert loss_range([one[1:], two[1:]]) == (3.5, 2.0)
    # 3, 2, 3.5, 2 lie in that range.
    assert loss_levels([one, two], 5) == pytest.approx(np.quantile([3, 2, 3.5, 2], [0.9, 0.7, 0.5, 0.3, 0.1]))
    with pytest.raises(MeasureError, match="share no range"):
        loss_levels([one.assign(value=9.0), two])
    # Common to both if the way from the untrained model counted: 5 … 4.5.
    with pytest.raises(MeasureError, match=r"one is at 3\.500 .* another never falls below 4\.500"):
        loss_range([one.assign(value=[9.0, 8.0, 6.0, 5.0, 4.5]), two])
    # A run that never gets below its start would be read untrained, at 0 tokens, whatever the others are at 3.
    worse, better = two.assign(value=[3.0, 3.1, 3.2]), two.assign(value=[3.05, 3.02, 2.8])
    with pytest.raises(MeasureError, match=r"one is at 3\.000 .* another never falls below 3\.100"):
        loss_levels([worse, better])


# Few values, so that losses of the untrained model come again.
CURVES = st.lists(st.lists(st.integers(1, 6), min_size=2, max_size=5), min_size=2, max_size=3)


@given(CURVES, st.integers(1, 5))
def test_every_level_in_common_is_reached_by_training(losses, levels):
    curves = [pd.DataFrame({"tokens": range(len(own)), "value": np.array(own, float)}) for own in losses]
    try:
        found = loss_levels(curves, levels)
    except MeasureError:
        return
    for level in (*found, loss_range(curves)[1]):
        assert all(crossing(curve, level) >= 1 for curve in curves), level


def test_tokens_to_a_loss():
    runs = build(rate=lambda stage, size, seed: 1.0 + 0.5 * (size == 128))
    table = tokens_to(runs)
    # 4 − 1 is the loss that every run of a stage reached.
    assert (table["target"] == 3.0).all()
    assert table.loc[table["batch_size"] == 32, "tokens"].to_numpy() == pytest.approx(1e6)
    assert table.loc[table["batch_size"] == 128, "tokens"].to_numpy() == pytest.approx(1e6 / 1.5)
    with pytest.raises(MeasureError, match="3 of 6 runs of stage baseline never reach"):
        tokens_to(runs, 2.9)
    with pytest.raises(MeasureError, match="before its first evaluation"):
        tokens_to(runs, 3.95)


def test_one_learning_rate_a_cell():
    good, bad = build(), build(rate=lambda stage, size, seed: 0.5)
    for table in (bad.runs, bad.rows, bad.spectra):
        table["lr"], table["run_id"] = 2e-3, table["run_id"] + "-fast"
    both = Runs(
        *(pd.concat(t) for t in zip(*((r.runs, r.rows, r.spectra) for r in (good, bad)), strict=True)), ()
    )
    with pytest.raises(MeasureError, match=r"2 learning rates \(0.001, 0.002\)"):
        tokens_to(both)
    kept = best_rates(both)
    assert set(kept.runs["run_id"]) == set(kept.rows["run_id"]) == set(good.runs["run_id"])
    # A seed that diverged counts against its rate, and one that reached the target earlier for it.
    both.runs.loc[both.runs["run_id"] == "rope-32-1", ["ended", "val_loss"]] = ["diverged", math.nan]
    assert set(best_rates(both).runs.query("stage == 'rope' and batch_size == 32")["lr"]) == {2e-3}
    assert set(best_rates(both).runs.query("stage == 'rope' and batch_size == 128")["lr"]) == {1e-3}


# --- matched spectra ---------------------------------------------------------------------------------------------


def test_interpolated_spectra_have_the_exponent_of_the_loss():
    runs = build(
        ("untied",),
        rate=lambda stage, size, seed: 1.0 + 0.1 * seed + 0.33 * (size == 128),
        alpha=lambda stage, size, seed, loss: 5.0 - loss,
    )
    table = matched_spectra(runs, interpolate=True)
    assert (table["own_loss"] == 3.0).all()
    assert (table["gap"] == 0.0).all()
    for row in table.to_dict("records"):
        assert row["values"] == pytest.approx(power_law(2.0))
        assert row["tokens"] == pytest.approx(
            1e6 / (1.0 + 0.1 * row["seed"] + 0.33 * (row["batch_size"] == 128))
        )
    first = matched_spectra(runs)
    assert first["gap"].max() > 0
    assert (first["gap"] <= first["bracket"] + 1e-9).all()
    assert first["values"].iloc[3] == pytest.approx(power_law(5.0 - first["own_loss"].iloc[3]))
    with pytest.raises(MeasureError, match="at or below a loss"):
        matched_spectra(runs, loss=0.5)
    with pytest.raises(MeasureError, match="there are final"):
        matched_spectra(runs, "nowhere")


def test_divergence_beside_its_floors():
    """Exponents 1 + .05·seed, and .3 more at the larger batch."""
    runs = build(("untied",), alpha=lambda stage, size, seed, loss: 1.0 + 0.05 * seed + 0.3 * (size == 128))
    row = batch_divergence(matched_spectra(runs)).iloc[0]
    equal = [js_divergence(power_law(1.0 + 0.05 * s), power_law(1.3 + 0.05 * s)) for s in range(3)]
    assert (row["js"], row["low"], row["high"]) == pytest.approx((np.mean(equal), min(equal), max(equal)))
    within = [
        js_divergence(power_law(base + 0.05 * s), power_law(base + 0.05 * t))
        for base in (1.0, 1.3)
        for s, t in ((0, 1), (0, 2), (1, 2))
    ]
    assert row["floor"] == pytest.approx(np.mean(within))
    across = [
        js_divergence(power_law(1.0 + 0.05 * s), power_law(1.3 + 0.05 * t))
        for s in range(3)
        for t in range(3)
        if s != t
    ]
    assert row["excess"] == pytest.approx(np.mean(across) - np.mean(within))
    assert row["excess_low"] < row["excess"] < row["excess_high"]
    assert row["seeds"] == 3


def test_no_effect_of_batch_size_has_an_excess_around_zero():
    """200 stages of three seeds at two sizes, exponents independent: a 95 % interval misses 0 in few of them."""
    generator = np.random.default_rng(0)
    rows = []
    for stage in range(200):
        for size in (32, 128):
            for seed in range(3):
                values = power_law(1.0 + 0.1 * generator.standard_normal())
                label = {"stage": stage, "batch_size": size, "seed": seed, "loss": 2.0}
                rows.append(
                    {**label, "kind": "singular", "n": 100, "d": 30, "centred": False, "values": values}
                )
    table = batch_divergence(pd.DataFrame(rows))
    assert ((table["excess_low"] > 0).mean()) < 0.06
    assert abs(table["excess"].mean()) < 3 * table["excess"].sem()
    assert table["sampling_floor"].isna().all()


def test_sampling_floor_is_that_of_gaussian_samples():
    generator = np.random.default_rng(1)
    population = Spectrum(power_law(1.0), n=400, d=30, centred=True)
    scale = np.sqrt(population.shares)
    draws = [
        js_divergence(*(covariance_spectrum(generator.standard_normal((400, 30)) * scale) for _ in range(2)))
        for _ in range(60)
    ]
    assert sampling_floor(population, pairs=60) == pytest.approx(np.mean(draws), rel=0.25)
    assert math.isnan(sampling_floor(Spectrum(power_law(1.0))))


def test_the_sampling_floor_of_many_samples_is_that_of_drawing_them(monkeypatch):
    """Tokens of a text are too many to be drawn: their Wishart matrices have the same law."""
    population = Spectrum(power_law(1.0), n=17_000, d=30, centred=True)
    fast = sampling_floor(population, pairs=60)
    monkeypatch.setattr("sims.analysis.matched.DRAWN_ROWS", 20_000)
    assert fast == pytest.approx(sampling_floor(population, pairs=20), rel=0.25)
    assert fast < sampling_floor(Spectrum(power_law(1.0), n=1_700, d=30, centred=True)) / 5


def test_no_spectrum_is_interpolated_from_the_untrained_model():
    runs = build(("untied",), rate=lambda stage, size, seed: 1.0 + 7.5 * (size == 128))
    with pytest.raises(MeasureError, match="share no range"):
        matched_spectra(runs, interpolate=True)
    with pytest.raises(MeasureError, match="before its first measurement"):
        matched_spectra(runs, loss=3.9, interpolate=True)
    # The first measurement below a loss interpolates nothing.
    assert matched_spectra(runs, loss=3.9)["gap"].min() > 0


# --- exponents ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("slope", "verdict"), [(-0.2, "smaller batch"), (0.2, "larger batch"), (0.0, "cannot tell")]
)
def test_tails_by_batch_size(slope, verdict):
    jitter = {0: 0.0, 1: 0.02, 2: -0.02}
    runs = build(
        ("untied",),
        sizes=(32, 64, 128),
        alpha=lambda stage, size, seed, loss: (
            2.0 + slope * math.log2(size / 32) + jitter[(seed + size) % 3] + 0.1 * loss
        ),
    )
    exponents = matched_exponents(runs)
    assert len(exponents) == 9
    means = tail_by_batch(exponents).set_index("batch_size")["alpha"]
    assert means[128] - means[32] == pytest.approx(2 * slope, abs=0.03)
    row = tail_trend(exponents).iloc[0]
    assert row["steeper"] == verdict
    assert row["slope"] == pytest.approx(slope, abs=0.02)
    if slope:
        assert (row["rho"], row["p"]) == pytest.approx((math.copysign(1.0, slope), 2 / 6**3))
        # Two sizes of three seeds allow no p-value below one quarter, whatever they show.
        two = tail_trend(exponents[exponents["batch_size"] != 64]).iloc[0]
        assert (two["p_min"], two["steeper"]) == (0.25, "cannot tell")
    with pytest.raises(MeasureError, match="≥ 2 batch sizes"):
        tail_trend(exponents[exponents["batch_size"] == 32])


@pytest.mark.parametrize(("sign", "verdict"), [(1, "larger batch"), (-1, "smaller batch")])
def test_one_constant_seed_does_not_turn_the_trend_of_tails(sign, verdict):
    rows = pd.DataFrame(
        {"stage": "a", "window": "1-10", "batch_size": 2**b, "seed": s, "loss": 1.0}
        | {"alpha": 1.0 if s == 3 else 1 + 0.1 * sign * b + 0.001 * s}
        for s in range(4)
        for b in range(4)
    )
    (row,) = tail_trend(rows).to_dict("records")
    assert row["p"] < 0.001
    assert (row["steeper"], row["slope"], row["rho"]) == (
        verdict, pytest.approx(0.075 * sign), pytest.approx(0.75 * sign)
    )  # fmt: skip
    # What has no direction is on no side.
    (flat,) = tail_trend(rows.assign(alpha=1.0)).to_dict("records")
    assert (flat["rho"], flat["p"], flat["steeper"]) == (0.0, 1.0, "cannot tell")
    assert [_steeper(math.nan, 0.01), _steeper(0.5, math.nan)] == ["cannot tell", "cannot tell"]


def test_exponents_at_fractions_of_training():
    runs = build(("untied",), alpha=lambda stage, size, seed, loss: loss)
    table = early_exponents(runs, fractions=(0.1, 0.2, 0.5)).set_index(["run_id", "fraction"])
    # The loss is 4 − tokens, so that α is too; the first measurement of training is at an eighth.
    assert math.isnan(table.loc[("untied-32-0", 0.1), "alpha"])
    assert table.loc[("untied-32-0", 0.2), "alpha"] == pytest.approx(3.8)
    assert table.loc[("untied-128-2", 0.5), "alpha"] == pytest.approx(3.5)
    assert table["tokens"].to_numpy() == pytest.approx(1e6)
    with pytest.raises(MeasureError, match=r"\(0, 1\]"):
        early_exponents(runs, fractions=(0.0,))
