"""The budget: on a simulated clock, looks are spaced so that they stay within their share of the time."""

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sims.monitor.plan import LookPlan


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def run(plan, clock, steps, a_step, cost):
    """Take steps and looks; return the steps that were looked at."""
    looked = []
    for step in range(steps + 1):
        if step:
            clock.now += a_step
        if step < plan.next:
            continue
        if plan.affordable():
            with plan.timed():
                clock.now += cost(step)
            plan.looked(cost(step))
            looked.append(step)
        plan.next = plan.after(step)
    return looked


@given(
    every=st.integers(1, 50),
    budget=st.floats(0.005, 0.5),
    a_step=st.floats(1e-3, 1.0),
    cost=st.floats(1e-3, 30.0),
)
def test_the_share_is_kept_once_the_first_look_is_paid_for(every, budget, a_step, cost):
    clock = Clock()
    plan = LookPlan(every, budget, clock)
    steps = min(20_000, max(10 * every, math.ceil(4 * cost / budget / a_step)))
    looked = run(plan, clock, steps, a_step, lambda step: cost)
    assert all(step % every == 0 for step in looked)
    paid = cost / budget <= clock.now
    assert plan.share <= budget * (1 + 1e-9) or not paid
    # Not lazier than need be: the next look would not have been affordable much earlier.
    if len(looked) > 1:
        longest = max(b - a for a, b in pairwise(looked))
        assert longest <= max(every, math.ceil(2 * cost / budget / a_step) + 2 * every)


@given(every=st.integers(1, 50))
def test_without_a_budget_every_multiple_is_looked_at(every):
    clock = Clock()
    looked = run(LookPlan(every, None, clock), clock, 200, 1.0, lambda step: 100.0)
    assert looked == list(range(0, 201, every))


def test_dearer_looks_are_rarer():
    clock = Clock()
    plan = LookPlan(10, 0.1, clock)
    looked = run(plan, clock, 20_000, 0.01, lambda step: 0.1 if step < 5_000 else 1.0)
    early = [s for s in looked if s < 5_000]
    late = [s for s in looked if s > 6_000]
    assert plan.share <= 0.1
    assert len(early) / 5_000 > 3 * len(late) / 14_000


def test_times_of_earlier_processes_count():
    clock = Clock()
    plan = LookPlan(10, 0.1, clock)
    run(plan, clock, 1_000, 0.01, lambda step: 0.1)
    later = LookPlan(10, 0.1, clock)
    later.load_state_dict(plan.state_dict(), 1_000)
    assert later.share == pytest.approx(plan.share)
    assert (later.next, later.cost, later.looks) == (plan.next, plan.cost, plan.looks)


def test_the_set_up_is_no_part_of_the_budget_and_of_what_is_told():
    clock = Clock()
    plan = LookPlan(10, 0.05, clock)
    clock.now += 100.0
    plan.ready()
    looked = run(plan, clock, 400, 0.1, lambda step: 0.1)
    assert looked[0] == 10
    assert plan.spent <= 0.05 * plan.wall
    assert plan.share > 0.7
    assert not plan.over_budget


def test_a_run_too_short_for_its_looks_says_so():
    clock = Clock()
    plan = LookPlan(10, 0.05, clock)
    assert run(plan, clock, 50, 0.1, lambda step: 5.0) == [10]
    assert plan.over_budget
