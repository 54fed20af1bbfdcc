"""Decline of g23: planted, absent, unresolved."""

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from sims.analysis.gap_decline import _declines, gap_decline
from sims.system.errors import MeasureError
from tests.sims.grokking_looks import by

STEPS = 100 * np.arange(1, 31)
QUICK: dict[str, Any] = {"null_draws": 499, "draws": 99}


def run(name, kind, y, t_90=math.nan, steps=STEPS):
    return pd.DataFrame({"run": name, "kind": kind, "step": steps, "t_90": t_90, "g23": np.exp(y)})


def runs(generator, fall, kinds=("labels", "no decay"), each=6):
    """Noise in all runs; of those that grok, ln g23 falls by `fall` from half of t_90 on."""
    parts = []
    for i in range(each):
        t_90 = float(generator.integers(12, 28) * 100)
        noise = 0.3 * generator.standard_normal(len(STEPS))
        parts.append(run(f"grok {i}", "groks", noise - fall * np.clip(2 * STEPS / t_90 - 1, 0, 1), t_90))
        parts += [run(f"{k} {i}", k, 0.3 * generator.standard_normal(len(STEPS))) for k in kinds]
    return pd.concat(parts)


def test_a_planted_decline_is_shown_against_every_control():
    found = gap_decline(runs(np.random.default_rng(0), 4.0), **QUICK)
    assert found.verdict.outcome == "shown"
    assert set(found.controls["control"]) == {"labels", "no decay"}
    assert (found.controls["ratio"] > np.exp(3)).all()
    assert (found.controls["falling_groks"] == 1).all()
    assert (found.controls["falling"] <= 0.5).all()
    assert "in controls" in found.sentence


def test_a_decline_that_a_control_has_too_is_not_shown():
    looks = runs(np.random.default_rng(1), 4.0)
    same = looks["kind"] == "labels"
    looks["g23"] = looks["g23"] * np.where(same, (looks["step"] / 100.0) ** -3, 1.0)
    found = gap_decline(looks, **QUICK)
    assert found.verdict.outcome == "not shown"
    p = by(found.controls, "control")
    assert p["labels"]["p"] > 0.05 > p["no decay"]["p"]


TRIALS = 100


@pytest.mark.slow
def test_without_a_difference_the_level_holds():
    """Runs that grok, and one type of control, all noise: p < 0.05 in at most 5 % of 100 sets."""
    shown = sum(
        gap_decline(
            runs(np.random.default_rng([2, i]), 0.0, ("labels",)), null_draws=99, draws=1
        ).verdict.outcome
        == "shown"
        for i in range(TRIALS)
    )
    assert stats.binomtest(shown, TRIALS, 0.05, "greater").pvalue > 1e-2


@settings(deadline=None)
@given(st.lists(st.floats(-5, 5), min_size=1, max_size=20))
def test_the_decline_is_from_the_largest_value_so_far(y):
    assert _declines(np.array(y)) == pytest.approx([max(y[: i + 1]) - y[i] for i in range(len(y))])


def test_longer_controls_have_no_more_time():
    looks = runs(np.random.default_rng(3), 4.0)
    later = STEPS + 3_000
    tail = pd.concat([run(f"labels {i}", "labels", np.full(30, -20.0), steps=later) for i in range(6)])
    plain, longer = gap_decline(looks, **QUICK), gap_decline(pd.concat([looks, tail]), **QUICK)
    pd.testing.assert_frame_equal(plain.controls, longer.controls)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda t: t[t["kind"] != "groks"], "groks: 0 runs"),
        (lambda t: t[t["kind"] == "groks"], "no controls"),
        (lambda t: t[~t["run"].isin([f"labels {i}" for i in range(4)])], "labels: 2 runs"),
        (lambda t: t.assign(g23=t["g23"].where(t["step"] != 500, 0.0)), "not positive"),
        (lambda t: t.assign(g23=t["g23"].where(t["step"] != 500)), "not finite"),
        (lambda t: t[t["step"] < 600], "a segmentation needs 8"),
        (lambda t: t.assign(t_90=t["t_90"] + 9_000), "t_90 = "),
    ],
)
def test_what_cannot_be_compared_says_why(change, why):
    found = gap_decline(change(runs(np.random.default_rng(4), 1.0)), **QUICK)
    assert found.verdict.outcome == "not resolved"
    assert why in found.sentence


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda t: t.drop(columns="g23"), "no column g23"),
        (lambda t: pd.concat([t, t]), "two at a step"),
        (lambda t: t[:0], "no windows"),
        (lambda t: t.assign(t_90=np.nan), "has no t_90"),
    ],
)
def test_bad_input_is_refused(change, why):
    with pytest.raises(MeasureError, match=why):
        gap_decline(change(runs(np.random.default_rng(5), 1.0)), **QUICK)
