"""Interventions: what they change and what they leave, member by member, and over an interruption."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from trajectories import assert_same_state, trajectory

from spectra import window_edges
from toymodel import CheckpointError, ConfigError, Ensemble, Intervention, train
from toymodel.config import as_dict, canonical_json, run_config
from toymodel.subspace import SubspaceScaling

SUBSPACE = ("edge", "random", "even", "drift")
SHORT = {"window": 3, "stride": 2}
DECAY = Intervention("decay", start=5, stop=9, factor=0.25)
EVERY = [DECAY, *(Intervention(kind, start=7, stop=11, factor=0.5, **SHORT) for kind in SUBSPACE)]


def weights_by_step(config, steps=12):
    ensemble, found = Ensemble([config]), []
    ensemble.advance(steps, lambda: found.append(ensemble.weights(0)))
    return found


def same(a, b):
    return all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("stage", ["baseline", "muon"])
@pytest.mark.parametrize("own", EVERY, ids=lambda own: own.kind)
def test_nothing_changes_before_the_first_step(own, stage, tiny):
    config = tiny(stage=stage, weight_decay=0.5)
    plain, changed = weights_by_step(config), weights_by_step(replace(config, intervention=own))
    assert [same(a, b) for a, b in zip(plain, changed, strict=True)] == [i < own.start for i in range(12)]


def test_weight_decay_is_multiplied_between_its_steps(tiny):
    config = tiny(weight_decay=0.5, intervention=DECAY)
    ensemble, shares = Ensemble([config]), []
    ensemble.advance(12, lambda: shares.append(float(ensemble.view(0).decay()["embed"])))
    full, lowered = config.lr * 0.5, config.lr * 0.125
    expected = [lowered if 5 <= i < 9 else full for i in range(12)]
    np.testing.assert_allclose(shares, expected, rtol=1e-4)


def test_a_decay_lowered_from_the_first_step_on_is_that_decay(tiny):
    lowered = tiny(weight_decay=0.5, intervention=Intervention("decay", factor=0.25))
    assert same(weights_by_step(lowered)[-1], weights_by_step(tiny(weight_decay=0.125))[-1])


def test_a_factor_of_one_changes_nothing(tiny):
    config = tiny(weight_decay=0.5)
    plain = weights_by_step(config)[-1]
    for kind in SUBSPACE:
        own = Intervention(kind, factor=1.0, **SHORT)
        assert same(weights_by_step(replace(config, intervention=own))[-1], plain), kind


@pytest.mark.parametrize("stage", ["baseline", "muon"])
def test_members_do_not_depend_on_their_company(stage, tiny):
    base = tiny(stage=stage, weight_decay=0.5)
    configs = [base, *(replace(base, seed=i + 1, intervention=own) for i, own in enumerate(EVERY))]
    rows, states = trajectory(Ensemble(configs))
    for config in configs:
        own_rows, own = trajectory(Ensemble([config]))
        assert repr(own_rows[config.run_id]) == repr(rows[config.run_id])
        for key, value in own[config.run_id].items():
            assert torch.equal(value, states[config.run_id][key]), key


@pytest.mark.parametrize("stop", [0, 4, 8])
def test_an_interrupted_run_continues_exactly(stop, tiny):
    base = tiny(weight_decay=0.5)
    configs = [replace(base, seed=i, intervention=own) for i, own in enumerate(EVERY)]
    _, whole = trajectory(Ensemble(configs))
    ensemble = Ensemble(configs)
    for snapshot in train(ensemble):
        if snapshot.step == stop:
            break
    saved = [ensemble.state(k) for k in range(len(configs))]
    resumed = Ensemble.from_states(configs[::-1], saved[::-1], stop)
    resumed.advance(12 - stop)
    for k, config in enumerate(configs[::-1]):
        assert_same_state(resumed.state(k), whole[config.run_id])


def test_interventions_follow_their_member_when_others_leave(tiny):
    base = tiny(weight_decay=0.5)
    stays = [replace(base, seed=i + 1, intervention=own) for i, own in enumerate(EVERY)]
    _, states = trajectory(Ensemble([replace(base, lr=2e38), *stays]))
    _, expected = trajectory(Ensemble(stays))
    for config in stays:
        assert_same_state(states[config.run_id], expected[config.run_id])


def test_states_of_other_runs_are_refused(tiny):
    plain, changed = tiny(weight_decay=0.5), tiny(weight_decay=0.5, intervention=EVERY[1])
    with pytest.raises(CheckpointError, match="lacks 'held' of the window of updates"):
        Ensemble.from_states([changed], [Ensemble([plain]).state(0)], 4)
    with pytest.raises(CheckpointError, match="intervention/held"):
        Ensemble.from_states([plain], [Ensemble([changed]).state(0)], 4)


def test_only_an_intervention_enters_the_identity(tiny):
    plain = tiny(weight_decay=0.5)
    assert "intervention" not in canonical_json(plain)
    for own in EVERY:
        config = replace(plain, intervention=own)
        assert config.run_id != plain.run_id
        assert run_config(as_dict(config)) == config


# One window and one update, of which the laws are asked.


@st.composite
def cases(draw):
    window, seed = draw(st.integers(2, 7)), draw(st.integers(0, 10_000))
    generator = np.random.default_rng(seed)
    directions = draw(st.integers(0, window - 1))
    factor = draw(st.sampled_from([0.0, 0.3, 1.7]))
    updates = generator.standard_normal((window, 40)) * np.exp(generator.standard_normal((window, 1)))
    update = generator.standard_normal(40) + generator.standard_normal(window) @ updates
    return window, directions, factor, seed, updates, update, generator.standard_normal(40)


def changed_update(kind, case):
    """The update without its decay, after the window of a case."""
    window, directions, factor, seed, updates, update, decayed = case
    own = Intervention(kind, window, None, factor, directions, window, 1)
    scaling, weights = SubspaceScaling(own, seed), torch.zeros(40, dtype=torch.float64)
    for step, each in enumerate(torch.from_numpy(updates)):
        moved = scaling.change(step, weights, weights, weights + each)
        assert torch.equal(moved, weights + each)
        weights = moved
    theta = torch.from_numpy(decayed)
    return (scaling.change(window, weights, theta, theta + torch.from_numpy(update)) - theta).numpy()


def check_laws(case):
    """Every kind takes the same energy; "edge" that of the first singular vectors, "random" of one in their span."""
    window, directions, factor, _, updates, g, _ = case
    vectors = np.linalg.svd(updates, full_matrices=False)[2]
    k = directions or int(window_edges(updates @ updates.T, window).edges(max(1, window // 2))[0][0])
    inside = vectors[:k].T @ (vectors[:k] @ g)
    energy = g @ g - (1 - factor**2) * (inside @ inside)
    found = {kind: changed_update(kind, case) for kind in SUBSPACE}
    mean = updates.mean(axis=0)
    along = mean * (mean @ g) / (mean @ mean)
    np.testing.assert_allclose(found.pop("drift"), g - (1 - factor) * along, rtol=1e-7, atol=1e-9)
    for kind, after in found.items():
        np.testing.assert_allclose(after @ after, energy, rtol=1e-8, err_msg=kind)
    np.testing.assert_allclose(found["edge"], g - (1 - factor) * inside, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(found["even"], g * math.sqrt(energy / (g @ g)), rtol=1e-8)
    removed = g - found["random"]
    np.testing.assert_allclose(vectors.T @ (vectors @ removed), removed, atol=1e-8 * np.abs(removed).max())
    # A projection: what is removed is (1−f) times the part of g along it.
    np.testing.assert_allclose(removed @ removed, (1 - factor) * (removed @ g), rtol=1e-8)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(cases())
def test_all_kinds_take_the_same_energy(case):
    check_laws(case)


def all_of_it(self, g):
    return (1 - self.settings.factor) * g


MUTANTS = {
    "one direction too many": lambda m: m.setattr(
        "toymodel.subspace._edge", lambda energies, most: 1 + int(energies[:most].argmin())
    ),
    "a carrier of other energy": lambda m: m.setattr(
        SubspaceScaling, "_carrier", lambda self, held, inside: torch.eye(len(held), dtype=held.dtype)[0]
    ),
    "the whole update": lambda m: m.setattr(SubspaceScaling, "_removed", all_of_it),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_the_laws_refuse_mutants(mutant, monkeypatch):
    generator = np.random.default_rng(0)
    updates = generator.standard_normal((6, 40)) * np.array([[9.0], [8.0], [1.0], [1.0], [1.0], [1.0]])
    case = (6, 0, 0.3, 0, updates, generator.standard_normal(6) @ updates, generator.standard_normal(40))
    check_laws(case)
    MUTANTS[mutant](monkeypatch)
    with pytest.raises(AssertionError):
        check_laws(case)


def test_the_random_direction_is_that_of_the_seed_and_turns_with_the_window():
    updates = np.eye(4, 40) * np.array([[4.0], [3.0], [2.0], [1.0]])
    case = (4, 1, 0.0, 3, updates, np.ones(40), np.zeros(40))
    first = changed_update("random", case)
    assert np.array_equal(first, changed_update("random", case))
    other = changed_update("random", (*case[:3], 4, *case[4:]))
    assert not np.allclose(first, other)
    # Neighbouring windows: nearly the same direction is removed.
    turned = case[4] + 0.01 * np.random.default_rng(0).standard_normal((4, 40))
    near = changed_update("random", (*case[:4], turned, *case[5:]))
    a, b = 1 - first, 1 - near
    assert a @ b / math.sqrt((a @ a) * (b @ b)) > 0.95


def test_updates_that_are_not_finite_stay_as_they_are():
    own = Intervention("edge", 2, window=2, stride=1)
    scaling, weights = SubspaceScaling(own, 0), torch.zeros(3)
    for step in range(2):
        weights = scaling.change(step, weights, weights, weights + torch.ones(3) * (step + 1))
    broken = torch.tensor([math.nan, 1.0, 2.0])
    assert scaling.change(2, weights, weights, broken) is broken


def test_a_window_without_movement_takes_nothing():
    scaling, weights = SubspaceScaling(Intervention("random", 2, window=2, stride=1), 0), torch.zeros(3)
    for step in range(2):
        weights = scaling.change(step, weights, weights, weights)
    assert torch.equal(scaling.change(2, weights, weights, torch.ones(3)), torch.ones(3))


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ({"kind": "halve"}, r"intervention.kind is 'halve'; the kinds are none, decay, edge"),
        ({"kind": "decay", "start": -1}, r"intervention.start is -1; updates are counted from 0"),
        ({"kind": "decay", "start": 4, "stop": 4}, r"intervention.stop is 4; it must be after .*start, 4"),
        ({"kind": "edge", "factor": -0.1}, r"intervention.factor is -0.1; it must be a finite number"),
        ({"kind": "edge", "window": 1}, r"a window has at least 2 updates"),
        ({"kind": "edge", "directions": 10}, r"must be below the 10 updates of the window"),
        ({"kind": "decay", "directions": 2}, r"directions is 2, which the kind decay does not read"),
        ({"factor": 0.5}, r"factor is 0.5, which the kind none does not read"),
    ],
)
def test_impossible_interventions_are_refused(own, message):
    with pytest.raises(ConfigError, match=message):
        Intervention(**own)


@pytest.mark.parametrize(
    ("own", "message"),
    [
        (Intervention("decay", start=12), r"start is 12, and the run ends after 12 updates"),
        (Intervention("decay"), r"the run has no weight decay; give it one"),
        (Intervention("edge", start=2), r"full after 50 updates, when the intervention is over"),
        (Intervention("edge", start=2, stop=6, **SHORT), r"full after 6 updates, when the intervention"),
    ],
)
def test_interventions_without_effect_are_refused(own, message, tiny):
    with pytest.raises(ConfigError, match=message):
        tiny(intervention=own, weight_decay=0.0)
