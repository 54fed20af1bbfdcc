"""Analyses at equal loss, on runs whose losses, spectra and concentrations are constructed."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from sims.analysis import (
    Runs,
    Thresholds,
    batch_divergence,
    best_rates,
    compare_stages,
    concentration_at_losses,
    concentration_changes,
    early_exponents,
    gain_link,
    gains_by_seed,
    loss_levels,
    matched_exponents,
    matched_spectra,
    mechanism_label,
    outcome_label,
    tail_by_batch,
    tail_trend,
    taxonomy,
    tokens_to,
    trajectories,
    transition_gains,
)
from sims.analysis.at_steps import transition_divergence
from sims.analysis.cells import at_losses, crossing, loss_range
from sims.analysis.matched import sampling_floor
from sims.analysis.taxonomy import Evidence
from sims.errors import MeasureError
from spectra import Spectrum, covariance_spectrum, js_divergence

POINTS = 9
RANKS = np.arange(1, 31)
BAND = "31:20 clean unseen"


def power_law(exponent):
    return RANKS**-exponent


def build(
    stages=("baseline", "rope", "muon"),
    sizes=(32, 128),
    seeds=(0, 1, 2),
    *,
    rate=lambda stage, size, seed: 1.0,
    alpha=lambda stage, size, seed, loss: 1.0,
    gradient=None,
    peak=lambda stage, size, seed, loss: 0.1,
    rankme=lambda stage, size, seed, loss: 10.0,
    speed=lambda stage, seed: 1_000.0,
    points=POINTS,
):
    """Runs whose loss falls linearly in tokens, 4 − rate · (million tokens), each over its own million tokens.

    Everything else is a function of the stage (by its place), the batch size, the seed and the loss.
    """
    runs, rows, spectra = [], [], []
    for i, stage in enumerate(stages):
        for size in sizes:
            for seed in seeds:
                label = {
                    "run_id": f"{stage}-{size}-{seed}",
                    "stage": stage,
                    "batch_size": size,
                    "lr": 1e-3,
                    "seed": seed,
                }
                for step in range(points):
                    tokens = step * 1e6 / (points - 1)
                    loss = 4.0 - rate(i, size, seed) * tokens / 1e6
                    key = (i, size, seed, loss)
                    base = {
                        **label,
                        "step": step,
                        "tokens": tokens,
                        "status": "ok",
                        "null": 0.05,
                        "null_high": 0.1,
                    }
                    rows += [
                        {**base, "quantity": q, "object": o, "site": s, "detail": d, "value": v}
                        for q, o, s, d, v in (
                            ("val_loss", "loss", "validation", "", loss),
                            ("h_peak", "probe", "final", BAND, peak(*key)),
                            ("h_s", "probe", "final", f"{BAND} task", 2 * peak(*key)),
                            ("alpha", "activation", "final", "10-40", alpha(*key)),
                            ("rankme", "activation", "final", "", rankme(*key)),
                            ("rankme", "weight", "embed", "", 20.0 + seed),
                        )
                    ]
                    place = {**label, "step": step, "tokens": tokens, "n": 100, "d": 30, "centred": True}
                    values = power_law(alpha(*key))
                    spectra.append(
                        {
                            **place,
                            "object": "activation",
                            "site": "final",
                            "kind": "eigenvalue",
                            "values": values,
                        }
                    )
                    if gradient:
                        values = power_law(gradient(*key) / 2)
                        spectra.append(
                            {
                                **place,
                                "object": "gradient",
                                "site": "attn.o",
                                "kind": "singular",
                                "values": values,
                            }
                        )
                ended = {"ended": "finished", "step": points - 1, "tokens": 1e6, "val_loss": loss}
                runs.append({**label, **ended, "seconds_training": 1e6 / speed(i, seed)})
    return Runs(pd.DataFrame(runs), pd.DataFrame(rows), pd.DataFrame(spectra), ())


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


# --- transitions -------------------------------------------------------------------------------------------------


def test_gains_are_exact():
    """Losses fall 1, 1.5 and 3 times as fast: gains of one half and one at every loss."""
    runs = build(
        rate=lambda stage, size, seed: (1.0, 1.5, 3.0)[stage],
        speed=lambda stage, seed: (1_000.0, 900.0, 1_800.0)[stage],
    )
    by_seed = gains_by_seed(runs)
    assert len(by_seed) == 2 * 2 * 3
    table = transition_gains(by_seed, by_batch=False).set_index("before")
    for name in ("gain", "proximal"):
        assert table[name].to_numpy() == pytest.approx([0.5, 1.0])
        assert table[f"{name}_low"].to_numpy() == pytest.approx([0.5, 1.0])
    assert table["throughput"].to_numpy() == pytest.approx([-0.1, 1.0])
    assert len(transition_gains(by_seed)) == 4
    (skip,) = transition_gains(gains_by_seed(runs, [("baseline", "muon")]), by_batch=False).to_dict("records")
    assert skip["gain"] == pytest.approx(2.0)
    with pytest.raises(MeasureError, match="stage untied has no usable run"):
        gains_by_seed(runs, [("muon", "untied")])
    with pytest.raises(MeasureError, match="two stages"):
        gains_by_seed(build(("rope",)))


def test_concentration_against_loss():
    """H_peak a function of the loss and the stage alone: at equal loss only the stage is left."""
    runs = build(
        rate=lambda stage, size, seed: (1.0, 1.5, 3.0)[stage] * (1 + 0.05 * seed),
        peak=lambda stage, size, seed, loss: 0.1 + 0.05 * (4 - loss) + 0.02 * stage,
    )
    assert len(trajectories(runs)) == 18 * POINTS * 2
    table = concentration_at_losses(runs)
    own = table[(table["quantity"] == "H_peak") & (table["stage"] == "muon") & (table["batch_size"] == 32)]
    assert own["mean"].to_numpy() == pytest.approx(0.14 + 0.05 * (4 - own["loss"].to_numpy()))
    assert own["loss"].is_monotonic_decreasing
    assert own["tokens"].to_numpy() == pytest.approx(
        np.mean([(4 - own["loss"].to_numpy()) / (3.0 * (1 + 0.05 * s)) * 1e6 for s in range(3)], axis=0)
    )
    changes = concentration_changes(runs, [("baseline", "rope"), ("rope", "muon")])
    assert changes["change"].to_numpy() == pytest.approx(0.02)
    doubled = concentration_changes(runs, [("baseline", "rope")], "H_S task")
    assert doubled["change"].to_numpy() == pytest.approx(0.04)
    # At an equal step the faster stage is further down, too.
    at_step = concentration_changes(runs, [("baseline", "rope")], step=4).query("seed == 0")
    assert at_step["change"].to_numpy() == pytest.approx(0.02 + 0.05 * 0.5 * 0.5)


def test_stages_without_losses_in_common_have_no_gain_and_no_change():
    """At B = 32 the later stage is below all that the earlier one reaches when it is first measured."""
    runs = build(
        ("rope", "muon"),
        rate=lambda stage, size, seed: 0.3 + 0.4 * stage + 2.3 * (stage and size == 32),
        gradient=lambda stage, size, seed, loss: 1.0 + 0.1 * stage + 0.01 * seed,
        alpha=lambda stage, size, seed, loss: 1.0 + 0.1 * stage + 0.01 * seed,
    )
    by_seed = gains_by_seed(runs)
    apart = by_seed["batch_size"] == 32
    assert by_seed.loc[apart, ["loss", "gain", "proximal"]].isna().all(axis=None)
    assert (
        by_seed.loc[apart, "reason"]
        .str.match("B = 32: the runs share no range of losses: one is at 3.625")
        .all()
    )
    assert by_seed.loc[~apart, "proximal"].to_numpy() == pytest.approx(0.7 / 0.3 - 1)
    assert (by_seed.loc[~apart, "reason"] == "").all()
    # The mean over batch sizes would be one over other batch sizes.
    (overall,) = transition_gains(by_seed, by_batch=False).to_dict("records")
    assert math.isnan(overall["proximal"])
    assert overall["throughput"] == pytest.approx(0.0)
    assert overall["reason"].startswith("B = 32")
    by_batch = transition_gains(by_seed).set_index("batch_size")
    assert list(by_batch["reason"] == "") == [False, True]
    assert by_batch.loc[128, "proximal"] == pytest.approx(0.7 / 0.3 - 1)
    changes = concentration_changes(runs, [("rope", "muon")]).set_index("batch_size")
    assert changes.loc[32, "change"].isna().all()
    assert changes.loc[128, "change"].notna().all()
    (label,) = taxonomy(runs).to_dict("records")
    assert (label["outcome"], label["mechanism"]) == ("cannot tell", "cannot tell")
    for name in ("token_gain", "activation", "gradient", "lead", "h_s", "activation_js"):
        assert math.isnan(label[name]), name
    assert label["reason"].startswith("B = 32")
    (divergence,) = transition_divergence(runs).to_dict("records")
    assert math.isnan(divergence["js"])
    assert divergence["reason"].startswith("B = 32")
    table = compare_stages(runs, "rope", "muon")
    assert (table["sizes"] == 1).all()
    assert table["left_out"].str.startswith("B = 32").all()
    with pytest.raises(MeasureError, match="no losses in common"):
        compare_stages(
            build(("rope", "muon"), rate=lambda stage, size, seed: 0.3 + 3 * stage), "rope", "muon"
        )


def test_no_spectrum_is_interpolated_from_the_untrained_model():
    runs = build(("untied",), rate=lambda stage, size, seed: 1.0 + 7.5 * (size == 128))
    with pytest.raises(MeasureError, match="share no range"):
        matched_spectra(runs, interpolate=True)
    with pytest.raises(MeasureError, match="before its first measurement"):
        matched_spectra(runs, loss=3.9, interpolate=True)
    # The first measurement below a loss interpolates nothing.
    assert matched_spectra(runs, loss=3.9)["gap"].min() > 0


@pytest.mark.parametrize("sign", [1, -1])
def test_concentration_goes_with_the_gain(sign):
    """Cells ordered alike (or oppositely) by gain and by change of concentration."""
    rates = {0: 1.0, 1: 1.5, 2: 4.0}
    runs = build(
        rate=lambda stage, size, seed: rates[stage] * (1.0 + 0.2 * (size == 128) * stage),
        peak=lambda stage, size, seed, loss: (
            0.1 + sign * 0.1 * math.log(rates[stage] * (1.0 + 0.2 * (size == 128) * stage))
        ),
    )
    table = gain_link(runs, (None, 4))
    assert list(table["at"]) == ["equal loss", "step 4"]
    assert table["rho"].to_numpy() == pytest.approx(sign)
    assert (table["cells"] == 4).all()
    assert table["p"].to_numpy() == pytest.approx(2 / 24)
    with pytest.raises(MeasureError, match="≥ 4 cells"):
        gain_link(build(("baseline", "rope")))


# --- taxonomy ----------------------------------------------------------------------------------------------------


def about(value, half=0.01):
    return Evidence(value, value - half, value + half)


@pytest.mark.parametrize(
    ("token", "throughput", "label"),
    [
        (0.5, 0.0, "learning"),
        (0.0, 0.5, "throughput"),
        (0.5, 0.5, "joint"),
        (0.5, -0.5, "trade-off"),
        (-0.5, 0.5, "trade-off"),
        (0.0, 0.0, "neutral"),
        (-0.5, 0.0, "regression"),
        (0.05, 0.0, "cannot tell"),
        (0.5, -0.05, "cannot tell"),
    ],
)
def test_outcome_labels(token, throughput, label):
    assert outcome_label(about(token), about(throughput)) == label


def test_no_interval_no_label():
    single = Evidence(0.5, math.nan, math.nan)
    assert outcome_label(single, about(0.0)) == "cannot tell"
    assert mechanism_label(single, single, single, about(0.5)) == "cannot tell"


@pytest.mark.parametrize(
    ("activation", "gradient", "throughput", "label"),
    [
        (3.0, 0.0, 0.0, "activation-led"),
        (3.0, 1.5, 0.0, "activation-led"),
        (0.0, 3.0, 0.0, "gradient-led"),
        (1.5, 3.0, 0.0, "gradient-led"),
        (2.0, 2.2, 0.0, "mixed"),
        (0.0, 0.1, 0.5, "throughput-leaning"),
        (0.0, 0.1, 0.0, "none"),
        (0.0, 0.1, 0.05, "cannot tell"),
        (math.log(2), 0.0, 0.0, "cannot tell"),
        (2.0 + math.log(2), 2.0, 0.0, "cannot tell"),
    ],
)
def test_mechanism_labels(activation, gradient, throughput, label):
    lead = about(activation - gradient, 0.02)
    assert mechanism_label(about(activation), about(gradient), lead, about(throughput)) == label


def test_thresholds_are_used_and_checked():
    assert outcome_label(about(0.5), about(0.0), Thresholds(token_gain=0.6)) == "neutral"
    assert mechanism_label(about(3.0), about(0.0), about(3.0), about(0.0), Thresholds(moved=100.0)) == "none"
    with pytest.raises(MeasureError, match="token_gain is -1"):
        Thresholds(token_gain=-1)
    with pytest.raises(MeasureError, match="moved is"):
        Thresholds(moved=0.5)


def test_taxonomy_of_constructed_transitions():
    """To rope: faster learning with other activations. To muon: more tokens a second and other gradients."""

    def jitter(size, seed):
        return 0.004 * ((3 * seed + size) % 5)

    runs = build(
        rate=lambda stage, size, seed: (1.0, 2.0, 2.0)[stage],
        speed=lambda stage, seed: (1_000.0, 1_000.0, 1_500.0)[stage],
        alpha=lambda stage, size, seed, loss: (1.0, 1.6, 1.6)[stage] + jitter(size, seed + stage),
        gradient=lambda stage, size, seed, loss: (1.0, 1.0, 1.6)[stage] + jitter(size, seed + stage),
        peak=lambda stage, size, seed, loss: 0.1 + 0.05 * (stage > 0),
        seeds=(0, 1, 2, 3),
    )
    first, second = taxonomy(runs).to_dict("records")
    assert (first["outcome"], first["mechanism"]) == ("learning", "activation-led")
    assert (second["outcome"], second["mechanism"]) == ("throughput", "gradient-led")
    assert (first["token_gain"], second["throughput_gain"], first["h_s"]) == pytest.approx((1.0, 0.5, 0.1))
    assert first["activation_js"] > 10 * first["activation_floor"]
    assert first["activation_low"] < first["activation"] < first["activation_high"]
    assert first["seeds"] == 4
    # A single seed has no interval, and so no label.
    single = taxonomy(build(gradient=lambda *_: 1.0, seeds=(0,)))
    assert set(single["outcome"]) == set(single["mechanism"]) == {"cannot tell"}


# --- two stages side by side -------------------------------------------------------------------------------------


def test_stages_are_compared_at_equal_loss():
    """RankMe is a function of the loss and one more in the later stage; its runs are three times as fast."""
    wobble = {0: 0.0, 1: 0.01, 2: -0.01}
    runs = build(
        ("rope", "muon"),
        rate=lambda stage, size, seed: 1.0 + 2.0 * stage,
        rankme=lambda stage, size, seed, loss: 3.0 * (5 - loss) + stage * (1.0 + wobble[seed]) + seed,
    )
    table = compare_stages(runs, "rope", "muon").set_index(["object", "quantity"])
    row = table.loc[("activation", "rankme")]
    assert row["difference"] == pytest.approx(1.0)
    assert row["low"] < 1.0 < row["high"]
    assert (row["n"], row["sizes"], row["verdict"]) == (3, 2, "up")
    # Paired t with differences 1, 1.01, .99: mean 1, standard error .01/√3.
    assert row["p"] == pytest.approx(stats.ttest_1samp([1.0, 1.01, 0.99], 0).pvalue)
    # What does not differ at all has no test, and says so.
    same = table.loc[("weight", "rankme")]
    assert same["difference"] == 0.0
    assert math.isnan(same["p"])
    assert same["verdict"] == "cannot tell"
    with pytest.raises(MeasureError, match="no summary of gradient"):
        compare_stages(runs, "rope", "muon", objects=("gradient",))
