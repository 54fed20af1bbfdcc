"""Alarms of grokking: scores at equal times, directions and thresholds from other runs, leads, null and power."""

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from sims.analysis.alarm_rocs import alarm_rocs, scores_at
from sims.analysis.alarms import alarms, lead_of, lead_summary, outcomes
from sims.analysis.early_warning import published_alarms
from sims.system.errors import MeasureError
from tests.sims.grokking_looks import STEPS, by, many, run

CONTROLS = {"random labels": 10, "no decay": 10}


def test_outcomes_of_each_kind():
    at_once = run("at once", t_90=350.0)
    diverged = run("diverged").assign(train=lambda t: t["train"].where(t["step"] < 1_000))
    after = run("after", t_90=1_000.0).assign(test=lambda t: t["test"].where(t["step"] < 2_000))
    looks = pd.concat([run("late", t_90=1_500.0), at_once, diverged, after, run("never", control="labels")])
    found = by(outcomes(looks), "run")
    assert {name: row["outcome"] for name, row in found.items()} == {
        "late": "groks",
        "at once": "not delayed",
        "diverged": "diverged",
        "after": "groks",
        "never": "does not grok",
    }
    assert (found["late"]["t_mem"], found["late"]["t_90"]) == (300.0, 1_500.0)
    assert math.isnan(found["never"]["t_90"])


def test_scores_are_read_at_equal_times_and_only_before_generalisation():
    ended = run("ended", steps=STEPS[:8], signal=0.0)
    looks = pd.concat(
        [
            run("late", t_90=1_500.0, signal=STEPS * 1.0),
            run("slow", t_90=2_000.0, t_mem=600.0, signal=STEPS * 1.0),
            run("lost", t_mem=9e9, signal=1.0),
            run("gap", signal=np.where(STEPS == 500, np.nan, 1.0)),
            ended,
        ]
    )
    after = by(scores_at(looks, ["signal"], [220.0, 1_200.0]), "run", "time")
    assert after[("late", 220.0)]["value"] == 500.0
    assert after[("slow", 220.0)]["value"] == 800.0
    assert "test accuracy" in after[("late", 1_200.0)]["reason"]
    assert "never memorises" in after[("lost", 220.0)]["reason"]
    assert "missing" in after[("gap", 220.0)]["reason"]
    assert "ends before" in after[("ended", 220.0)]["reason"]
    step = by(scores_at(looks, ["signal"], [520.0], clock="step"), "run")
    assert step["late"]["value"] == step["slow"]["value"] == 500.0
    assert step["lost"]["value"] == 1.0
    early = scores_at(looks, ["signal"], [10.0], clock="step")
    assert set(early["reason"]) == {"the run was not looked at before"}


def rocs_of(looks, **options):
    scores = scores_at(looks, ["signal", "noise"], [500.0])
    return alarm_rocs(scores, resamples=99, **options)


def test_a_run_without_a_test_accuracy_at_the_time_is_left_out_for_that_reason():
    looks = run("one", signal=1.0).assign(test=lambda t: t["test"].where(t["step"] != 500))
    reasons = scores_at(looks, ["signal"], [450.0, 500.0], clock="step")["reason"]
    assert reasons.tolist() == ["", "its test accuracy is missing"]


def test_rocs_per_type_of_control_and_pooled():
    looks = many(np.random.default_rng(0), grok=10, controls=CONTROLS, effect=-4.0)
    found = by(rocs_of(looks), "signal", "control")
    for control in (*CONTROLS, "all"):
        row = found[("signal", control)]
        assert row["auc"] < 0.1
        assert row["direction"] == -1
        assert row["auc_others"] > 0.9
        assert row["others_low"] > 0.7
        assert row["sentence"].startswith(
            f"signal 500 steps after memorisation, against {control} controls: AUC 0.0"
        )
        assert (row["positives"], row["negatives"]) == (10, 20 if control == "all" else 10)


def test_runs_that_were_meant_to_grok_and_did_not_are_a_type_of_control():
    looks = pd.concat(
        [many(np.random.default_rng(1), grok=4, controls={}, effect=1.0)]
        + [run(f"failed {i}", signal=0.0, noise=1.0 * i) for i in range(3)]
        + [run("grew", control="no decay", t_90=1_500.0, signal=0.0, noise=0.0)]
    )
    found = rocs_of(looks)
    assert set(found["control"]) == {"did not grok", "all"}
    assert (found["negatives"] == 3).all()
    assert (found["left_out"] == 0).all()


@pytest.mark.slow
def test_noise_has_no_direction_that_other_runs_show():
    """Classes without a difference: the lower bound with the direction of other runs is seldom above 0.5."""
    generator = np.random.default_rng(2)
    trials, larger = 40, 0
    for _ in range(trials):
        looks = many(generator, grok=8, controls={"labels": 8}, effect=0.0)
        row = by(rocs_of(looks), "signal", "control")[("noise", "labels")]
        larger += row["others_low"] > 0.5
    assert stats.binomtest(larger, trials, 0.05, "greater").pvalue > 1e-2


def test_directions_of_other_groups():
    """In each group the signal points the other way: a run left out is predicted, a group left out is not."""
    parts = []
    for group, sign in (("add", 1.0), ("mul", -1.0)):
        for i in range(12):
            shape: dict[str, Any] = {"signal": sign * 3.0 + 0.01 * i, "noise": 0.0}
            parts.append(run(f"{group} {i}", group, t_90=1_500.0, **shape))
            parts.append(run(f"{group} c{i}", group, "labels", signal=0.01 * i, noise=0.0))
    looks = pd.concat(parts)
    chosen = looks[looks["group"] == "add"]
    one = by(rocs_of(chosen), "signal", "control")[("signal", "labels")]
    assert one["auc_others"] == 1.0
    both = by(rocs_of(looks, leave="group"), "signal", "control")[("signal", "labels")]
    assert both["auc_others"] < 0.3
    alone = by(rocs_of(chosen, leave="group"), "signal", "control")[("signal", "labels")]
    assert alone["status"] == "not resolved"
    assert "no direction" in alone["reason"]


def test_a_planted_rise_is_found_with_its_lead():
    looks = many(np.random.default_rng(3), grok=12, controls=CONTROLS, effect=0.0, rise=12.0)
    found = alarms(looks, "signal")
    summary = by(lead_summary(found), "kind")
    assert summary["groks"]["alarms"] == 12
    assert summary["groks"]["sentence"].startswith(
        "12 of 12 runs that grok have an alarm before; median lead"
    )
    assert summary["groks"]["median_lead"] == pytest.approx(550, abs=50)
    assert summary["groks"]["median_low"] <= summary["groks"]["median_lead"]
    assert summary["groks"]["lead_10"] <= summary["groks"]["lead_90"]
    assert summary["all"]["runs"] == 20
    assert summary["all"]["share"] <= 0.25
    assert summary["all"]["share_low"] <= summary["all"]["share"] <= summary["all"]["share_high"]
    turned = alarms(looks.assign(signal=-looks["signal"]), "signal")
    assert (turned["direction"] == -found["direction"]).all()
    pd.testing.assert_series_equal(turned["alarm"], found["alarm"])


def test_noise_keeps_the_budget_of_false_alarms():
    """Thresholds of 39 other controls: at most 10 % of the runs left out have an alarm, up to chance."""
    looks = many(np.random.default_rng(4), grok=4, controls={"labels": 40}, effect=0.0)
    controls = alarms(looks, "noise").query("kind == 'labels'")
    assert stats.binomtest(int(controls["alarm"].notna().sum()), 40, 0.1, "greater").pvalue > 1e-2


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10**6), st.sampled_from([0.0, 0.1, 0.3]))
def test_a_threshold_is_the_smallest_that_keeps_the_budget_among_the_others(seed, budget):
    """Slow oracle: with the chosen direction, count the others' alarms just at and just below the threshold."""
    looks = many(np.random.default_rng(seed), grok=3, controls={"labels": 5, "no decay": 4}, effect=0.5)
    found = alarms(looks, "signal", budget=budget)
    own = {name: part["signal"].to_numpy() for name, part in looks.groupby("run")}

    def alarmed(name, direction, level):
        values = direction * own[name]
        return any(values[i] > level and values[i + 1] > level for i in range(len(values) - 1))

    for record in found.to_dict("records"):
        others = [
            r["run"] for r in found.to_dict("records") if r["kind"] != "groks" and r["run"] != record["run"]
        ]
        d, level = record["direction"], record["direction"] * record["threshold"]
        share = [sum(alarmed(o, d, at) for o in others) / len(others) for at in (level, level - 1e-9)]
        assert share[0] <= budget < share[1]


def test_one_run_does_not_move_its_own_threshold():
    looks = many(np.random.default_rng(5), grok=6, controls={"labels": 6}, effect=0.0)
    before = by(alarms(looks, "signal"), "run")
    mine = looks["run"] == "labels 2"
    after = by(alarms(looks.assign(signal=looks["signal"].where(~mine, 1e6)), "signal"), "run")
    assert after["labels 2"]["threshold"] == before["labels 2"]["threshold"]
    assert after["labels 2"]["alarm"] == STEPS[1]
    assert after["run 0"]["threshold"] != before["run 0"]["threshold"]


def test_without_controls_or_runs_that_grok_there_is_no_threshold():
    only = alarms(many(np.random.default_rng(6), grok=4, controls={}, effect=0.0), "signal")
    assert set(only["status"]) == {"not resolved"}
    assert "no other runs of controls" in only["reason"].iloc[0]
    assert by(lead_summary(only), "kind")["groks"]["status"] == "not resolved"
    never = alarms(many(np.random.default_rng(6), grok=0, controls={"labels": 4}, effect=0.0), "signal")
    assert "that grok" in never["reason"].iloc[0]
    assert set(lead_summary(never)["status"]) == {"not resolved"}
    assert alarms(run("gone", t_90=310.0, signal=1.0), "signal").empty


def test_a_constant_signal_raises_no_alarm():
    looks = many(np.random.default_rng(7), grok=3, controls={"labels": 3}, effect=0.0)
    found = alarms(looks.assign(signal=1.0), "signal")
    assert found["alarm"].isna().all()
    assert (found.loc[found["kind"] == "groks", "lead"] == 0).all()


def test_runs_without_the_signal_are_not_resolved_and_set_no_threshold():
    looks = many(np.random.default_rng(7), grok=4, controls={"labels": 4}, effect=0.0)
    gone = looks["run"] == "labels 1"
    part = by(alarms(looks.assign(signal=looks["signal"].where(~gone)), "signal"), "run")
    assert part["labels 1"]["status"] == "not resolved"
    assert "fewer than two looks" in part["labels 1"]["reason"]
    rest = by(alarms(looks[~gone], "signal"), "run")
    assert [part[n]["threshold"] for n in rest] == [rest[n]["threshold"] for n in rest]
    controls = alarms(looks.assign(signal=looks["signal"].where(looks["control"] == "")), "signal")
    assert set(controls["status"]) == {"not resolved"}
    assert controls["alarm"].isna().all()


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 4), st.integers(0, 3), st.none() | st.integers(25, 60))
def test_times_of_a_run_are_those_of_all_its_looks_however_often_a_signal_is_measured(every, first, end):
    """A loss of 0 has no logarithm, so that a signal may end before a run generalises."""
    looks = many(np.random.default_rng(7), grok=4, controls={"labels": 4}, effect=1.0)
    place = looks.groupby("run").cumcount()
    measured = (place % every == first % every) & (place < (end or 60))
    part = looks.assign(signal=looks["signal"].where(measured))
    times = by(outcomes(looks), "run")
    for found in (alarms(part, "signal"), published_alarms(part, "signal")):
        assert set(found["run"]) == set(times)
        assert set(found.loc[found["kind"] == "groks", "run"]) == {f"run {i}" for i in range(4)}
        assert [times[row["run"]]["t_90"] for row in found.to_dict("records") if row["kind"] == "groks"] == (
            found.loc[found["kind"] == "groks", "t_90"].tolist()
        )
        assert found["alarm"].dropna().isin(looks.loc[measured, "step"]).all()


@settings(deadline=None)
@given(st.floats(0, 1e4) | st.just(math.nan), st.floats(0, 1e4))
def test_a_missed_or_late_alarm_has_no_lead(alarm, t_90):
    lead = lead_of(alarm, t_90)
    assert lead >= 0
    assert (lead > 0) == (alarm < t_90)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda t: t.drop(columns="train"), "no column train"),
        (lambda t: pd.concat([t, t]), "two looks at step 50"),
        (lambda t: t[:0], "no looks"),
        (lambda t: t.assign(control=None), "control is missing"),
        (lambda t: t.assign(group=[*["add"] * 30, *["mul"] * 30]), "2 values of group"),
        (lambda t: t.assign(test=1.5), "between 0 and 1"),
    ],
)
def test_bad_looks_are_refused(change, why):
    with pytest.raises(MeasureError, match=why):
        outcomes(change(run("one", signal=0.0)))


def test_bad_options_are_refused():
    looks = run("one", signal=0.0)
    bad: Any = "seed"
    with pytest.raises(MeasureError, match="1 signals and 0 times"):
        scores_at(looks, ["signal"], [])
    with pytest.raises(MeasureError, match="clock is"):
        scores_at(looks, ["signal"], [1.0], clock=bad)
    with pytest.raises(MeasureError, match="no column other"):
        scores_at(looks, ["other"], [1.0])
    with pytest.raises(MeasureError, match="leave is"):
        alarm_rocs(scores_at(looks, ["signal"], [1.0]), leave=bad)
    with pytest.raises(MeasureError, match="budget 1"):
        alarms(looks, "signal", budget=1.0)


@pytest.mark.parametrize("runs", [1, 2, 3])
def test_a_median_lead_has_an_interval_from_three_runs_on(runs):
    """One run has no spread: its bootstrap would be an interval without a width."""
    found = pd.DataFrame(
        {"kind": "groks", "status": "ok", "reason": "", "alarm": 500.0, "lead": 900.0 + 50.0 * i}
        for i in range(runs)
    )
    row = lead_summary(found).to_dict("records")[0]
    assert (row["median_low"] < row["median_high"]) == (runs == 3)
    assert np.isnan(row["median_low"]) == np.isnan(row["median_high"]) == (runs < 3)
    assert ("steps [" in row["sentence"]) == (runs == 3)
