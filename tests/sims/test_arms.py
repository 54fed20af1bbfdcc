"""Times of grokking under interventions, paired by seed: ratios, bounds, and the verdicts on them."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from sims.analysis import arms
from sims.analysis.arms import arm_ratio, delays_more, shifts_apart
from sims.system.errors import MeasureError


def times(**of):
    """Times by arm, a list over seeds; None where a run does not grok within 4,000 steps."""
    rows = [
        {"seed": seed, "arm": arm, "time": 4_000.0 if t is None else t, "reached": t is not None}
        for arm, all_ in of.items()
        for seed, t in enumerate(all_)
    ]
    return pd.DataFrame(rows)


BASE = [1_000.0, 1_500.0, 1_200.0, 2_000.0, 900.0, 1_700.0]
SPREAD = np.array([0.97, 1.02, 1.0, 1.03, 0.98, 1.0])


def scaled(factor):
    return list(factor * SPREAD * BASE)


def test_the_ratio_is_that_of_paired_logarithms():
    found = arm_ratio(times(a=scaled(1.3), b=BASE), "a", "b")
    logs = np.log(1.3 * SPREAD)
    low, high = stats.t.interval(0.95, 5, logs.mean(), stats.sem(logs))
    np.testing.assert_allclose([found.ratio, found.low, found.high], np.exp([logs.mean(), low, high]))
    assert (found.seeds, found.bounded, found.left_out) == (6, 0, 0)


def test_several_runs_of_a_seed_count_once():
    table = pd.concat([times(a=scaled(2.0), b=BASE), times(a=scaled(0.5))])
    found = arm_ratio(table, "a", "b")
    assert found.seeds == 6
    assert found.ratio == pytest.approx(math.exp(np.log(SPREAD).mean()))


def test_runs_that_do_not_grok_are_bounds_or_left_out():
    found = arm_ratio(times(a=[None, None, *scaled(1.3)[2:]], b=[None, *BASE[1:5]]), "a", "b")
    assert (found.seeds, found.bounded, found.left_out) == (4, 1, 2)
    assert not found.within(0.0, math.inf)


@pytest.mark.parametrize(
    ("factor", "outcome"), [(1.3, "shown"), (1.0, "not shown"), (0.7, "not shown"), (1.08, "shown")]
)
def test_a_longer_time_is_a_delay(factor, outcome):
    ratio = arm_ratio(times(a=scaled(factor), b=BASE), "a", "b")
    verdict = delays_more("it delays", ratio)
    assert verdict.outcome == outcome
    assert ratio.told in verdict.reason


def test_a_wide_interval_decides_nothing():
    wide = list(np.array(BASE) * [0.5, 2.0, 0.6, 1.9, 0.7, 1.6])
    ratio = arm_ratio(times(a=wide, b=BASE), "a", "b")
    assert delays_more("it delays", ratio).outcome == "not resolved"
    assert shifts_apart("it shifts", [ratio]).outcome == "not resolved"


@pytest.mark.parametrize(
    ("factors", "outcome"),
    [
        ((1.3, 1.4), "shown"),
        ((0.7, 0.6), "shown"),
        ((1.3, 1.0), "not shown"),
        ((1.3, 0.7), "not shown"),
        ((1.0, 1.0), "not shown"),
    ],
)
def test_a_shift_holds_against_every_other_arm(factors, outcome):
    ratios = [arm_ratio(times(a=scaled(f), b=BASE), "a", "b") for f in factors]
    assert shifts_apart("it shifts", ratios).outcome == outcome


def test_three_seeds_decide_nothing():
    ratio = arm_ratio(times(a=scaled(1.5)[:3], b=BASE[:3]), "a", "b")
    assert delays_more("it delays", ratio).reason == "3 seeds count beside b; the rule needs 4"
    assert shifts_apart("it shifts", [ratio]).outcome == "not resolved"


def test_lower_bounds_do_not_show_that_nothing_changes():
    slow = [3_800.0] * 6
    ratio = arm_ratio(times(a=[None] * 6, b=[t * s for t, s in zip(slow, SPREAD, strict=True)]), "a", "b")
    assert ratio.bounded == 6
    assert ratio.high < arms.MARGIN
    assert delays_more("it delays", ratio).outcome != "not shown"


LATE = [1_950.0, 1_990.0, 1_910.0, 1_970.0, 1_930.0, 1_950.0, 1_940.0]


@pytest.mark.parametrize(
    ("a", "b"),
    [
        # Seven of eight in half the time, and one that never groks; and an arm that never groks in fewer steps.
        ([*LATE, None], [2 * t for t in [*LATE, 1_950.0]]),
        ([None] * 5, [8_000.0, 8_200.0, 8_400.0, 8_600.0, 8_800.0]),
    ],
)
def test_an_arm_that_may_never_grok_is_not_earlier(a, b):
    ratio, turned = (arm_ratio(times(a=a, b=b), *pair) for pair in (("a", "b"), ("b", "a")))
    assert ratio.high < 1 < turned.low
    assert (ratio.censored, ratio.censored_other) == (turned.censored_other, turned.censored)
    assert (ratio.censored, ratio.bounded) == (a.count(None), a.count(None))
    assert ratio.side == turned.side == 0
    for own in (ratio, turned):
        verdict = delays_more("it delays", own)
        assert (verdict.outcome, shifts_apart("it shifts", [own]).outcome) == ("not resolved",) * 2
        assert "the time of a is a lower bound" in verdict.reason
    # A mutant that counts the steps of a run that never groks as its time decides both.
    mutant = replace(ratio, censored=0)
    assert delays_more("it delays", mutant).outcome == "not shown"
    assert shifts_apart("it shifts", [mutant]).outcome == "shown"


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.floats(1, 500), st.floats(1, 500)), min_size=4, max_size=8), st.floats(1, 1e3))
def test_more_steps_never_turn_a_verdict(pairs, budget):
    """What is decided within some steps is not the opposite once every run is trained until it groks."""
    full = pd.DataFrame(
        [
            {"seed": s, "arm": arm, "time": t, "reached": True}
            for s, pair in enumerate(pairs)
            for arm, t in zip("ab", pair, strict=True)
        ]
    )
    cut = full.assign(time=full["time"].clip(upper=budget), reached=full["time"] <= budget)
    known = cut.groupby("seed")["reached"].any()
    seen = full[full["seed"].isin(known[known].index)]
    short, long = arm_ratio(cut, "a", "b"), arm_ratio(seen, "a", "b")
    # Of the pairs that count in both, the mean moves away from 1 alone.
    if short.side:
        assert (math.log(long.ratio) - math.log(short.ratio)) * short.side >= -1e-12


@pytest.mark.parametrize("delay", [1.0, pytest.param(1.25, marks=pytest.mark.slow)])
def test_error_rates_of_the_rules(delay):
    """Without a delay hardly anything is shown; with one by a quarter and a spread of a tenth, nearly always."""
    generator, shown = np.random.default_rng(3), 0
    for _ in range(200):
        own = np.array(BASE) * delay * np.exp(0.1 * generator.standard_normal(6))
        shown += delays_more("", arm_ratio(times(a=list(own), b=BASE), "a", "b")).outcome == "shown"
    # 2.5 % of 200 are 5 with a standard deviation of 2.2.
    assert shown <= 14 if delay == 1.0 else shown >= 170


def test_a_table_without_times_is_refused():
    with pytest.raises(MeasureError, match="no column reached"):
        arm_ratio(times(a=BASE).drop(columns="reached"), "a", "b")
    with pytest.raises(MeasureError, match="a time is 0"):
        arm_ratio(times(a=[0.0, *BASE[1:]], b=BASE), "a", "b")
