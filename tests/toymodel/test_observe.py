"""Observers between steps: when they look, that looking changes nothing, and that they resume exactly."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch

from toymodel import ConfigError, Ensemble, Schedule, train
from toymodel.ensemble import MemberView


class Path:
    """Sum of squared movements of one matrix between looks: depends on every look before."""

    def __init__(self, schedule):
        self.schedule, self.last = schedule, None
        self.before, self.length = torch.zeros(()), torch.zeros((), dtype=torch.float64)
        self.steps = []

    def due(self, step):
        return self.schedule.due(step, self.last)

    def look(self, view):
        weight = view.weights()["blocks.0.mlp.proj"]
        self.length += (weight - self.before).double().square().sum()
        self.before, self.last = weight.clone(), view.step
        self.steps.append(view.step)

    def state_dict(self):
        return {"before": self.before, "length": self.length.clone(), "last": torch.tensor(self.last)}

    def load_state_dict(self, state):
        self.before, self.length, self.last = state["before"], state["length"], int(state["last"])


EVERY_5 = Schedule(every=5, steps=(1, 7))


def members(tiny, **changes):
    base = tiny(stage="muon", **changes)
    return [base, replace(base, seed=1, lr=1e-3), replace(base, seed=2, task=replace(base.task, seed=5))]


def run(configs, observers=None):
    """{run id: rows}, {run id: final state}."""
    rows, states = {}, {}
    for snapshot in train(Ensemble(configs), observers):
        for k, config in enumerate(snapshot.configs):
            row = (snapshot.step, snapshot.train_losses[k], snapshot.val_losses[k])
            rows.setdefault(config.run_id, []).append(row)
            states[config.run_id] = snapshot.ensemble.state(k)
    return rows, states


def test_looking_changes_no_number(tiny):
    configs = members(tiny)
    rows, states = run(configs)
    observers = [[Path(EVERY_5)], [Path(Schedule(every=1)), Path(Schedule(per_decade=3))], []]
    watched_rows, watched = run(configs, observers)
    assert repr(watched_rows) == repr(rows)
    for run_id, state in states.items():
        assert all(torch.equal(value, watched[run_id][key]) for key, value in state.items())
    assert observers[0][0].steps == [0, 1, 5, 7, 10]
    assert observers[1][0].steps == list(range(13))
    assert observers[1][1].steps == [1, 2, 5, 10]


def test_an_observer_does_not_depend_on_the_company_of_its_run(tiny):
    configs = members(tiny)
    together = [[Path(EVERY_5)] for _ in configs]
    run(configs, together)
    for config, (expected,) in zip(configs, together, strict=True):
        alone = Path(EVERY_5)
        run([config], [[alone]])
        assert alone.steps == expected.steps
        assert alone.length == expected.length > 0


@pytest.mark.parametrize("stop", [0, 4, 8])
def test_restored_observers_continue_exactly(tiny, stop):
    configs = members(tiny)
    whole = [[Path(EVERY_5)] for _ in configs]
    run(configs, whole)
    first, ensemble = [[Path(EVERY_5)] for _ in configs], Ensemble(configs)
    for snapshot in train(ensemble, first):
        if snapshot.step == stop:
            break
    saved = [(ensemble.state(k), first[k][0].state_dict()) for k in range(3)]
    # In another order and without one member.
    order = [2, 0]
    second = [[Path(EVERY_5)] for _ in order]
    for (observer,), k in zip(second, order, strict=True):
        observer.load_state_dict(saved[k][1])
    resumed = Ensemble.from_states([configs[k] for k in order], [saved[k][0] for k in order], stop)
    list(train(resumed, second))
    for (observer,), k in zip(second, order, strict=True):
        assert first[k][0].steps + observer.steps == whole[k][0].steps
        assert observer.length == whole[k][0].length


def test_observers_follow_their_member_when_others_leave(tiny):
    base = tiny(stage="rope")
    # The first diverges at once; a target between the others' losses at step 4 lets one of them go.
    losses = [s.val_losses for s in train(Ensemble([base, replace(base, seed=1)]))][1]
    target = sum(losses) / 2
    # One that is not at the target before it is trained.
    seeds = range(7, 40)
    starts = next(iter(train(Ensemble([replace(base, seed=s) for s in seeds])))).val_losses
    seed = next(s for s, loss in zip(seeds, starts, strict=True) if loss > target)
    configs = [
        replace(c, target_loss=target)
        for c in (replace(base, seed=seed, lr=2e38), base, replace(base, seed=1))
    ]
    together = [[Path(Schedule(every=3))] for _ in configs]
    ended = [s.ended for s in train(Ensemble(configs), together)]
    assert sorted(map(str, ended[1])) == ["None", "diverged", "target"]
    for config, (expected,) in zip(configs, together, strict=True):
        alone = Path(Schedule(every=3))
        run([config], [[alone]])
        assert alone.steps == expected.steps
        assert torch.equal(alone.length, expected.length) or alone.length.isnan()
    # Steps 0 and 3 for those that leave at step 4; 6 at least for the one that stays.
    looks = sorted(len(o.steps) for (o,) in together)
    assert looks[:2] == [2, 2]
    assert looks[2] > 2


def test_time_of_observers_is_not_time_of_training(tiny):
    seconds = [s.seconds for s in train(Ensemble([tiny()]), [[Path(Schedule(every=1))]])]
    assert all(set(s) == {"training", "evaluation", "observation"} for s in seconds)
    assert all(s["observation"] > 0 for s in seconds)
    assert "observation" not in next(train(Ensemble([tiny()]))).seconds


def test_nobody_looking_costs_no_call(tiny, monkeypatch):
    ensemble = Ensemble([tiny()])
    calls = []
    advance = ensemble.advance

    def noted(steps, after):
        calls.append((steps, after))
        return advance(steps, after)

    monkeypatch.setattr(ensemble, "advance", noted)
    list(train(ensemble, [[]]))
    assert calls == [(4, None)] * 3


def test_a_view_shows_the_weights_without_copying(tiny):
    ensemble = Ensemble(members(tiny))
    ensemble.advance(2)
    view = ensemble.view(1)
    assert isinstance(view, MemberView)
    assert (view.step, view.tokens, view.config) == (2, 2 * 6 * 9, ensemble.configs[1])
    weights = view.weights()
    assert weights.keys() == ensemble.params.keys()
    assert weights["embed"].shape == (23, 12)
    assert not weights["embed"].requires_grad
    assert weights["embed"].data_ptr() == ensemble.params["embed"][1].data_ptr()


def test_what_an_observer_raises_reaches_the_caller(tiny):
    class Broken(Path):
        def look(self, view):
            raise RuntimeError("no room")

    with pytest.raises(RuntimeError, match="no room"):
        list(train(Ensemble([tiny()]), [[Broken(EVERY_5)]]))


def test_observers_are_one_sequence_a_member(tiny):
    with pytest.raises(ConfigError, match="1 entries for 2 members"):
        train(Ensemble([tiny(), tiny(seed=1)]), [[]])
    shared = Path(EVERY_5)
    with pytest.raises(ConfigError, match="given twice"):
        train(Ensemble([tiny(), tiny(seed=1)]), [[shared], [shared]])


def test_a_schedule_is_due_once_for_each_of_its_steps():
    schedule = Schedule(every=40, steps=(3, 90, 3), per_decade=1)
    expected = [0, 1, 3, 10, 40, 80, 90, 100, 120]
    assert [s for s in range(130) if schedule.due(s, s - 1 if s else None)] == expected
    assert not any(schedule.due(s, s) for s in range(130))
    # Offered every seventh step: the first one at or after each scheduled step.
    last, looks = None, []
    for step in range(0, 130, 7):
        if schedule.due(step, last):
            last = step
            looks.append(step)
    assert looks == [0, 7, 14, 42, 84, 91, 105, 126]


@pytest.mark.parametrize("per_decade", [1, 2, 3, 7, 50])
def test_log_spaced_looks_are_the_rounded_powers(per_decade):
    schedule = Schedule(per_decade=per_decade)
    expected = {round(10 ** (i / per_decade)) for i in range(4 * per_decade + 1)}
    assert {s for s in range(10_001) if schedule.due(s, s - 1)} == expected


def test_a_schedule_round_trips_through_json():
    schedule = Schedule(every=5, steps=(9, 2), per_decade=4)
    assert schedule.steps == (2, 9)
    assert Schedule(**json.loads(json.dumps(asdict(schedule)))) == schedule
    numbers = Schedule(every=np.int64(5), steps=np.array([9, 2]), per_decade=np.int32(4))
    assert json.dumps(asdict(numbers)) == json.dumps(asdict(schedule))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "no step"),
        ({"every": 0}, "every is 0"),
        ({"every": 2.5}, r"every is 2\.5"),
        ({"per_decade": True}, "per_decade is True"),
        ({"steps": (3, -1)}, "contains -1"),
        ({"steps": 5}, "steps is 5; pass a tuple of integers"),
    ],
)
def test_bad_schedules_are_refused(fields, message):
    with pytest.raises(ConfigError, match=message):
        Schedule(**fields)
