"""Transitions between stages at equal loss, on constructed runs: gains, concentration, two stages side by side."""

import math
from dataclasses import replace

import pytest
from constructed import POINTS, build
from scipy import stats

from sims.analysis.at_steps import transition_divergence
from sims.analysis.concentration import concentration_changes, trajectories
from sims.analysis.paired import compare_stages
from sims.analysis.taxonomy import taxonomy
from sims.analysis.transitions import gain_link, gains_by_seed, transition_gains
from sims.studies.paper.concentration import gain_finding
from sims.system.errors import MeasureError


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


def test_a_transition_with_fewer_batch_sizes_than_another_says_which():
    runs = build(rate=lambda stage, size, seed: (1.0, 1.5, 3.0)[stage] * (1 + 0.05 * seed))
    by_seed = gains_by_seed(runs)
    even = transition_gains(by_seed, by_batch=False)
    assert list(even["batch_sizes"]) == ["32, 128"] * 2
    assert "at B" not in gain_finding(even).text
    lacks = (by_seed["before"] == "baseline") & (by_seed["batch_size"] == 128)
    text = gain_finding(transition_gains(by_seed[~lacks], by_batch=False)).text
    assert "baseline → rope at B = 32 0.5" in text
    assert "rope → muon at B = 32, 128 1." in text


def test_concentration_against_loss():
    """H_peak a function of the loss and the stage alone: at equal loss only the stage is left."""
    runs = build(
        rate=lambda stage, size, seed: (1.0, 1.5, 3.0)[stage] * (1 + 0.05 * seed),
        peak=lambda stage, size, seed, loss: 0.1 + 0.05 * (4 - loss) + 0.02 * stage,
    )
    assert len(trajectories(runs)) == 18 * POINTS * 2
    changes = concentration_changes(runs, [("baseline", "rope"), ("rope", "muon")])
    assert changes["change"].to_numpy() == pytest.approx(0.02)
    doubled = concentration_changes(runs, [("baseline", "rope")], "H_S task")
    assert doubled["change"].to_numpy() == pytest.approx(0.04)
    # At an equal step the faster stage is further down, too.
    at_start = replace(runs, rows=runs.rows[(runs.rows["object"] != "probe") | (runs.rows["step"] == 0)])
    assert concentration_changes(at_start, [("baseline", "rope")], step=4).empty
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


def test_seeds_count_where_the_seconds_of_training_are_not_known():
    """As of checkpoints that others trained."""
    runs = build(("rope", "muon"), rate=lambda stage, size, seed: 1 + stage + 0.01 * seed)
    untimed = replace(runs, runs=runs.runs.assign(seconds_training=math.nan))
    for by_batch in (True, False):
        timed, found = (transition_gains(gains_by_seed(r), by_batch=by_batch) for r in (runs, untimed))
        assert (found["n"] == 3).all()
        assert found["throughput"].isna().all()
        assert found[["gain", "gain_low", "gain_high"]].equals(timed[["gain", "gain_low", "gain_high"]])
    assert "the spread of 3 seeds" in gain_finding(found).text
    (label,) = taxonomy(untimed).to_dict("records")
    assert (label["seeds"], label["outcome"]) == (3, "cannot tell")
    assert label["reason"] == "the seconds of training are not known"


def test_a_stage_without_spectra_is_named():
    runs = build(("rope", "muon"))
    lost = (runs.spectra["stage"] == "muon") & (runs.spectra["batch_size"] == 128)
    for without in (lost, runs.spectra["stage"] == "muon"):
        thinned = replace(runs, spectra=runs.spectra[~without])
        (label,), (divergence,) = (f(thinned).to_dict("records") for f in (taxonomy, transition_divergence))
        assert math.isnan(label["activation_js"])
        assert math.isnan(divergence["js"])
        assert "B = 128: no spectrum of muon is stored" in label["reason"]
        assert "B = 128: no spectrum of muon is stored" in divergence["reason"]


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
    # Two transitions have two orders, however many batch sizes each has.
    assert table["p"].to_numpy() == pytest.approx(0.5)
    with pytest.raises(MeasureError, match="≥ 4 cells"):
        gain_link(build(("baseline", "rope")))


def test_a_cell_with_a_gain_and_no_change_of_concentration_is_left_out():
    """The last stage is measured only at its start and end at one batch size: it has losses, but no common ones."""
    runs = build(
        sizes=(32, 64, 128),
        rate=lambda stage, size, seed: 1.0 + 0.3 * stage + 1e-3 * size,
        peak=lambda stage, size, seed, loss: 0.1 + 0.1 * stage + 1e-3 * size,
    )
    late = (
        (runs.rows["stage"] == "muon") & (runs.rows["batch_size"] == 128) & (runs.rows["step"] < POINTS - 1)
    )
    measured = runs.rows["quantity"] != "val_loss"
    thinned = replace(runs, rows=runs.rows[~(late & measured)])
    (whole,) = gain_link(runs)["cells"]
    (left,) = gain_link(thinned)["cells"]
    assert (whole, left) == (6, 4)


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


def test_seeds_with_one_spectrum_are_no_level_to_compare_with():
    (label,) = taxonomy(build(("rope", "muon"), rate=lambda stage, size, seed: 1.0 + stage)).to_dict(
        "records"
    )
    assert label["mechanism"] == "cannot tell"
    assert math.isnan(label["activation"])
    assert label["token_gain"] == pytest.approx(1)
