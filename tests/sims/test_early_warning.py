"""The verdict on an early warning, and the published alarm with its counts."""

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from sims.analysis.alarm_rocs import alarm_rocs, scores_at
from sims.analysis.early_warning import (
    alarm_confusion,
    early_warning,
    early_warnings,
    published_alarms,
)
from sims.analysis.gain import Gain, signal_gain, wide_scores
from sims.system.errors import MeasureError
from tests.sims.grokking_looks import STEPS, by, many, run


def judged(looks, signal="signal", time=500.0):
    scores = scores_at(looks, [signal, "loss"], [time])
    rocs = alarm_rocs(scores, resamples=99)
    return early_warning(
        rocs[rocs["signal"] == signal], signal_gain(wide_scores(scores), signal, ["loss"], draws=99)
    )


def test_a_planted_signal_is_shown_against_every_control():
    looks = many(np.random.default_rng(0), grok=10, controls={"labels": 9, "no decay": 9}, effect=6.0)
    found = judged(looks)
    assert found.outcome == "shown"
    assert "500 steps after memorisation" in found.claim
    assert "labels (area 1.00" in found.reason


@pytest.mark.parametrize(("runs", "outcome"), [(9, "not resolved"), (60, "not shown")])
def test_a_signal_that_fails_against_one_control_is_not_shown(runs, outcome):
    looks = many(np.random.default_rng(1), grok=runs, controls={"labels": runs, "no decay": 9}, effect=6.0)
    lifted = looks["signal"] + 6.0 * (looks["control"] == "labels")
    found = judged(looks.assign(signal=lifted))
    assert found.outcome == outcome
    assert "labels" in found.reason
    assert "no decay" not in found.reason


@pytest.mark.slow
def test_noise_is_never_shown_and_refuted_by_many_runs():
    for i in range(10):
        looks = many(np.random.default_rng([2, i]), grok=9, controls={"labels": 9}, effect=0.0)
        assert judged(looks, "noise").outcome != "shown"
    looks = many(np.random.default_rng(2), grok=60, controls={"labels": 60}, effect=0.0)
    assert judged(looks, "noise").outcome == "not shown"


def test_a_repeated_baseline_is_not_shown():
    """The area is as large as can be, and a baseline already has it."""
    looks = many(np.random.default_rng(3), grok=10, controls={"labels": 10}, effect=6.0)
    generator = np.random.default_rng(4)
    near = looks.groupby("run")["signal"].transform("mean")
    bumps = looks["run"].map({name: generator.standard_normal() for name in looks["run"].unique()})
    found = judged(looks.assign(loss=near, signal=near + 0.3 * bumps))
    assert found.outcome == "not resolved"
    assert "nats a run" in found.reason


def test_few_runs_are_not_resolved_and_it_says_how_many_are_missing():
    looks = many(np.random.default_rng(5), grok=6, controls={"labels": 8, "no decay": 5}, effect=6.0)
    found = judged(looks)
    assert found.outcome == "not resolved"
    assert "labels: needs 2 more runs that grok (there are 6)" in found.reason
    assert (
        "no decay: needs 2 more runs that grok (there are 6) and 3 more controls (there are 5)"
        in found.reason
    )
    alone = judged(many(np.random.default_rng(5), grok=9, controls={}, effect=6.0))
    assert alone.outcome == "not resolved"


def test_several_signals_at_once():
    looks = many(np.random.default_rng(6), grok=10, controls={"labels": 9, "no decay": 9}, effect=6.0)
    found = early_warnings(
        looks, ["signal", "noise", "loss"], ["loss", "noise"], 500.0, draws=99, resamples=99
    )
    verdicts, gains = by(found.verdicts, "signal"), by(found.gains, "signal")
    assert {name: row["outcome"] for name, row in verdicts.items()} == {
        "signal": "shown",
        "noise": "not resolved",
        "loss": "not resolved",
    }
    assert len(found.rocs) == 9
    assert gains["signal"]["p_holm"] == pytest.approx(0.03)
    assert (found.gains["p_holm"] >= found.gains["p"]).all()
    with pytest.raises(MeasureError, match="no signals"):
        early_warnings(looks, [], ["loss"], 500.0)


def test_a_signal_that_no_run_has_leaves_the_others_judged():
    looks = many(np.random.default_rng(6), grok=10, controls={"labels": 9}, effect=6.0).assign(lost=np.nan)
    found = early_warnings(looks, ["signal", "lost"], ["loss", "noise"], 500.0, draws=99, resamples=99)
    assert list(found.verdicts["outcome"]) == ["shown", "not resolved"]
    gains = by(found.gains, "signal")
    assert gains["lost"]["status"] == "not resolved"
    assert gains["lost"]["reason"] == "no run that counts has lost 500 steps after memorisation"
    assert gains["signal"]["status"] == "ok"


ROW = {
    "clock": "step",
    "time": 100.0,
    "signal": "defect",
    "control": "labels",
    "positives": 8,
    "negatives": 8,
}
AREA = {
    "others_low": 0.8,
    "auc_others": 0.9,
    "others_high": 0.95,
    "low": 0.8,
    "high": 0.95,
    "direction": 1.0,
    "status": "ok",
    "reason": "",
}
SURE = Gain("defect", 16, 8, -0.6, -0.3, 0.3, 0.001)


@settings(deadline=None)
@given(
    st.lists(st.floats(0, 1), min_size=3, max_size=3), st.integers(0, 12), st.integers(0, 12), st.floats(0, 1)
)
def test_the_rule(areas, positives, negatives, p):
    low, auc, high = sorted(areas)
    # An area has an interval with a width, whatever the runs.
    assume(high - low > 1e-6)
    row = {**ROW, "positives": positives, "negatives": negatives, "status": "ok", "reason": ""}
    own = {"others_low": low, "auc_others": auc, "others_high": high, "direction": 1.0}
    rocs = pd.DataFrame([{**row, **own, "low": low, "high": high}])
    found = early_warning(rocs, Gain("defect", 16, 8, -0.6, -0.3, 0.3, p))
    enough = min(positives, negatives) >= 8
    shown = enough and low > 0.7 and p < 0.05
    assert found.outcome == (
        "shown" if shown else "not shown" if enough and low > 0.3 and high < 0.7 else "not resolved"
    )
    assert "nan" not in found.sentence


def test_a_signal_above_one_control_and_below_another_warns_of_nothing():
    row = {**ROW, **AREA}
    opposite = {**row, "control": "no decay", "direction": -1.0}
    assert early_warning(pd.DataFrame([row, {**opposite, "direction": 1.0}]), SURE).outcome == "shown"
    found = early_warning(pd.DataFrame([row, opposite]), SURE)
    assert found.outcome == "not shown"
    assert "larger than in some types of control and smaller than in others" in found.reason
    # A direction that is not certain is none.
    unsure = {**opposite, "others_low": 0.4}
    assert early_warning(pd.DataFrame([row, unsure]), SURE).outcome == "not resolved"


def test_how_many_runs_an_uncertain_area_needs():
    rocs = pd.DataFrame([{**ROW, **AREA, "others_low": 0.6, "auc_others": 0.8}])
    assert "32 runs of each class would decide" in early_warning(rocs, SURE).reason
    # So many that nobody will train them.
    assert "would decide" not in early_warning(rocs.assign(auc_others=0.701), SURE).reason


def test_a_gain_that_is_not_resolved_is_none():
    rocs = pd.DataFrame([{**ROW, **AREA}])
    none = Gain("defect", 16, 8, status="not resolved", reason="the baselines determine the signal")
    assert early_warning(rocs, SURE).outcome == "shown"
    assert early_warning(rocs, none).outcome == "not resolved"
    unsure = rocs.assign(others_low=math.nan, status="not resolved", reason="no direction")
    assert "no direction" in early_warning(unsure, SURE).sentence


def test_one_signal_and_time_only():
    rocs = pd.DataFrame([{**ROW, **AREA}])
    with pytest.raises(MeasureError, match="2 signals and times"):
        early_warning(pd.concat([rocs, rocs.assign(time=200.0)]), SURE)
    with pytest.raises(MeasureError, match="pass one signal"):
        early_warning(rocs, Gain("norm", 16, 8, -0.6, -0.3, 0.3, 0.001))


def oracle(values):
    """The published rule, look by look."""
    base = max(sorted(values[:3])[1], 0.1)
    for i, value in enumerate(values):
        if i >= 2 and value > 10 * base and value > 20:
            return i
    return None


@settings(deadline=None)
@given(
    st.lists(st.floats(0, 300), min_size=60, max_size=60), st.lists(st.floats(0, 3), min_size=3, max_size=3)
)
def test_the_published_alarm_is_the_first_look_far_above_its_base(values, first):
    values = np.array([*first, *values[3:]])
    found = published_alarms(run("one", t_90=1_500.0, defect=values)).iloc[0]
    place = oracle(list(values))
    assert found["status"] == "ok"
    if place is None:
        assert math.isnan(found["alarm"])
        assert found["lead"] == 0
    else:
        assert found["alarm"] == STEPS[place]
        assert found["lead"] == max(1_500 - STEPS[place], 0)


def defect(at, level=50.0):
    return np.where(at <= STEPS, level, 0.5)


def test_counts_of_the_published_alarm():
    shape: dict[str, Any] = {"t_90": 1_500.0}
    looks = pd.concat(
        [
            run("hit", **shape, defect=defect(900)),
            run("late", **shape, defect=defect(1_800)),
            run("missed", **shape, defect=defect(9_000)),
            run("small", **shape, defect=defect(900, 15.0)),
            run("hole", **shape, defect=np.where(STEPS == 50, np.inf, 50.0)),
            run("false", control="labels", defect=defect(900)),
            run("silent", control="labels", defect=defect(9_000)),
            run("other", control="no decay", defect=defect(900)),
            run("at once", t_90=350.0, defect=defect(100)),
        ]
    )
    alarms = published_alarms(looks)
    assert set(alarms["run"]) == set(looks["run"]) - {"at once"}
    assert by(alarms, "run")["hole"]["status"] == "not resolved"
    found = by(alarm_confusion(alarms), "control")
    counts = {
        name: tuple(r[c] for c in ("tp", "fn", "fp", "tn", "late", "left_out")) for name, r in found.items()
    }
    assert counts == {
        "labels": (1, 3, 1, 1, 1, 1),
        "no decay": (1, 3, 1, 0, 1, 1),
        "all": (1, 3, 2, 1, 1, 1),
    }
    told = (
        "Against labels controls: 1 of 4 runs that grok have an alarm before, and 1 of 2 controls; balanced"
    )
    assert found["labels"]["sentence"].startswith(told)
    assert found["labels"]["balanced"] == pytest.approx((0.25 + 0.5) / 2)
    assert found["labels"]["low"] < found["labels"]["balanced"] < found["labels"]["high"]


def test_the_published_counts_have_a_balanced_accuracy_of_a_coin():
    rows = [{"kind": "groks", "lead": 1.0, "alarm": 1.0}] * 24 + [
        {"kind": "groks", "lead": 0.0, "alarm": math.nan}
    ] * 12
    rows += [{"kind": "slow", "alarm": 1.0}] * 12 + [{"kind": "slow", "alarm": math.nan}] * 6
    found = by(alarm_confusion(pd.DataFrame(rows).assign(status="ok")), "control")["slow"]
    assert [found[c] for c in ("tp", "fn", "fp", "tn")] == [24, 12, 12, 6]
    assert found["balanced"] == pytest.approx(0.5)
    assert found["low"] < 0.5 < found["high"]


def test_one_class_has_no_balanced_accuracy():
    only = published_alarms(run("hit", t_90=1_500.0, defect=defect(900)))
    found = by(alarm_confusion(only), "control")["all"]
    assert (found["status"], found["reason"]) == ("not resolved", "there are no controls")
    never = published_alarms(run("false", control="labels", defect=defect(900)))
    assert by(alarm_confusion(never), "control")["labels"]["reason"] == "there are no runs that grok"
