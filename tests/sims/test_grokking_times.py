"""Times of memorisation and generalisation, and the rule of delay."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sims.analysis.grokking import first_held, timing
from sims.system.errors import MeasureError

STEPS = [0, 100, 200, 300, 400, 500, 600]


def curve(at, low=0.0, high=1.0):
    """Low before a step, high from it on."""
    return [high if s >= at else low for s in STEPS]


def test_a_single_look_above_the_level_does_not_count():
    assert first_held(STEPS, [0, 1, 0, 0.9, 0.95, 0, 0], 0.9) == 300
    assert first_held(STEPS, curve(600), 0.9) is None
    assert first_held([], [], 0.9) is None


@pytest.mark.parametrize(
    ("train", "test", "delayed", "reason"),
    [
        (curve(200), curve(400), True, ""),
        (curve(200), curve(400, low=0.5), True, ""),
        (curve(200), curve(400, low=0.51), False, "0.51 already at step 200"),
        (curve(200), curve(300), False, "before twice the 200"),
        (curve(200), curve(300, high=0.89), False, "test accuracy 0.9 was not held"),
        (curve(200, high=0.97), curve(400), False, "training accuracy 0.98 was not held"),
        (curve(600), curve(400), False, "training accuracy 0.98 was not held"),
    ],
)
def test_delay_needs_a_late_rise_from_a_low_level(train, test, delayed, reason):
    found = timing(STEPS, train, test)
    assert found.delayed is delayed
    assert reason in found.reason
    assert bool(found.reason) is not delayed


def test_all_times_are_told():
    found = timing(STEPS, curve(100), [0, 0.05, 0.2, 0.6, 0.6, 0.95, 1])
    assert (found.memorised, found.test_at_memorised) == (100, 0.05)
    assert found.reached == {0.1: 200, 0.5: 300, 0.9: 500}


@given(st.lists(st.floats(0, 1), min_size=0, max_size=12), st.floats(0, 1))
def test_first_held_is_its_definition(values, level):
    steps = [10 * i for i in range(len(values))]
    pairs = [s for s, a, b in zip(steps, values, values[1:], strict=False) if a >= level and b >= level]
    assert first_held(steps, values, level) == (pairs[0] if pairs else None)


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=2, max_size=12))
def test_a_delayed_run_satisfies_every_condition(pairs):
    steps = [10 * (i + 1) for i in range(len(pairs))]
    found = timing(steps, [a for a, _ in pairs], [b for _, b in pairs])
    late, memorised = found.reached[0.9], found.memorised
    at = found.test_at_memorised
    if late is None or memorised is None or at is None:
        assert not found.delayed
    else:
        assert found.delayed == (late >= 2 * memorised and at <= 0.5)
    times = [found.reached[q] for q in (0.1, 0.5, 0.9)]
    known = [t for t in times if t is not None]
    assert known == sorted(known)
    assert times[: len(known)] == known


@pytest.mark.parametrize(
    ("steps", "values", "message"),
    [
        ([0, 1], [0.5], "2 steps and 1 accuracies"),
        ([0, 0], [0.5, 0.5], "rising steps"),
        ([0, 1], [0.5, 1.5], "at step 1 is 1.5"),
        ([0, 1], [float("nan"), 0.5], "at step 0 is nan"),
    ],
)
def test_what_is_no_curve_of_accuracies_is_refused(steps, values, message):
    with pytest.raises(MeasureError, match=message):
        first_held(steps, values, 0.5)
