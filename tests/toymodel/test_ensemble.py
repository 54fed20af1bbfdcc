"""An ensemble is K runs that do not know of each other: alone, together, compacted and resumed they are equal."""

import math
from dataclasses import replace

import pytest
import torch
from trajectories import assert_same_state, trajectory

from toymodel.config import RunConfig, as_dict, ensemble_key, run_config
from toymodel.ensemble import Ensemble
from toymodel.errors import CheckpointError, ConfigError
from toymodel.feed import batch_indices
from toymodel.stages import CHAIN
from toymodel.training import train


def members(tiny, stage):
    base = tiny(stage=stage)
    return [
        base,
        replace(base, seed=1, lr=1e-3),
        replace(base, seed=2, weight_decay=0.1),
        replace(base, seed=3, task=replace(base.task, seed=5)),
    ]


@pytest.mark.parametrize("stage", CHAIN)
def test_a_member_does_not_depend_on_its_company(tiny, stage):
    together_rows, together = trajectory(Ensemble(members(tiny, stage)))
    for config in members(tiny, stage):
        rows, alone = trajectory(Ensemble([config]))
        assert repr(rows[config.run_id]) == repr(together_rows[config.run_id])
        assert_same_state(alone[config.run_id], together[config.run_id])


@pytest.mark.parametrize("stage", CHAIN)
def test_resumed_equals_uninterrupted(tiny, stage):
    configs = members(tiny, stage)
    whole_rows, whole = trajectory(Ensemble(configs))
    first = Ensemble(configs)
    for snapshot in train(first):
        if snapshot.step == 8:
            saved = [first.state(k) for k in range(len(configs))]
            break
    # Resume in another order and without one member: company must not matter here either.
    order = [2, 0, 3]
    resumed = Ensemble.from_states([configs[k] for k in order], [saved[k] for k in order], step=8)
    rows, states = trajectory(resumed)
    for k in order:
        run_id = configs[k].run_id
        assert rows[run_id] == [r for r in whole_rows[run_id] if r[0] > 8]
        assert_same_state(states[run_id], whole[run_id])


def test_a_member_that_reaches_its_target_leaves_and_the_rest_go_on(tiny):
    configs = members(tiny, "untied")
    _, undisturbed = trajectory(Ensemble(configs))
    losses = {s.step: s.val_losses for s in train(Ensemble(configs))}
    # A target between the members' losses at step 4: some leave there, the others train on.
    target = sorted(losses[4])[1]
    rows, states = trajectory(Ensemble([replace(c, target_loss=target) for c in configs]))
    lengths = sorted(len(r) for r in rows.values())
    assert lengths[0] == 2
    assert lengths[-1] > 2
    for config in configs:
        stopped = replace(config, target_loss=target).run_id
        if len(rows[stopped]) == 4:
            assert_same_state(states[stopped], undisturbed[config.run_id])


def test_a_member_that_is_at_its_target_before_any_step_is_not_trained(tiny):
    configs = members(tiny, "untied")
    losses = next(iter(train(Ensemble(configs)))).val_losses
    target = sorted(losses)[1]
    seen = [(s.step, s.ended) for s in train(Ensemble([replace(c, target_loss=target) for c in configs]))]
    assert seen[0] == (0, tuple("target" if loss <= target else None for loss in losses))
    assert all(len(ended) == sum(loss > target for loss in losses) for _, ended in seen[1:])
    alone = train(Ensemble([replace(configs[0], target_loss=losses[0])]))
    assert [(s.step, s.ended) for s in alone] == [(0, ("target",))]


def test_divergence_is_contained(tiny):
    configs = [tiny(stage="rope"), tiny(stage="rope", seed=1, lr=2e38)]
    seen = [(s.step, s.ended, s.configs) for s in train(Ensemble(configs))]
    assert seen[1][1] == (None, "diverged")
    assert seen[-1][1] == ("finished",)
    assert seen[-1][2] == (configs[0],)
    rows, _ = trajectory(Ensemble(configs[:1]))
    assert len(rows[configs[0].run_id]) == 4


def test_a_diverged_member_predicts_nothing(tiny):
    ensemble = Ensemble([tiny(), tiny(seed=1)])
    alone = ensemble.scores([0])
    for parameter in ensemble.params.values():
        parameter.detach()[1].fill_(torch.nan)
    # Of logits that are no numbers torch takes the first as the largest: token 0, which some targets are.
    assert (Ensemble([tiny()])._val.sequences[..., 1:] == 0).any()
    assert ensemble.scores([0]) == alone
    found = ensemble.scores([1])[0]
    assert math.isnan(found.loss)
    assert found.accuracy == found.exact == 0.0


@pytest.mark.parametrize("steps", [0, -1])
def test_less_than_one_update_has_no_mean_loss(tiny, steps):
    with pytest.raises(ConfigError, match=f"steps is {steps}; advance by at least 1"):
        Ensemble([tiny()]).advance(steps)


def test_last_evaluation_falls_on_the_last_step(tiny):
    steps = [s.step for s in train(Ensemble([tiny(steps=10, eval_every=4)]))]
    assert steps == [0, 4, 8, 10]


def test_batches_depend_on_seed_and_block_alone(tiny):
    a, b = batch_indices(tiny(), 3), batch_indices(tiny(lr=1.0, stage="untied"), 3)
    assert (a == b).all()
    assert (batch_indices(tiny(seed=1), 3) != a).any()
    assert (batch_indices(tiny(), 4) != a).any()
    # Every training sequence is drawn, and no other.
    many = batch_indices(tiny(batch_size=60), 3)
    assert set(many.ravel().tolist()) == set(range(tiny().task.train))


def test_only_members_of_one_shape_form_an_ensemble(tiny):
    with pytest.raises(ConfigError, match="2 different shapes"):
        Ensemble([tiny(), tiny(batch_size=7)])
    with pytest.raises(ConfigError, match="at least one"):
        Ensemble([])
    assert ensemble_key(tiny(lr=1.0, seed=9)) == ensemble_key(tiny())


def test_a_foreign_state_is_refused(tiny):
    state = Ensemble([tiny(stage="muon")]).state(0)
    with pytest.raises(CheckpointError, match="does not fit"):
        Ensemble.from_states([tiny(stage="untied")], [state], step=4)


def test_configuration_round_trip_and_identity(tiny):
    config = tiny(stage="muon", weight_decay=0.5)
    assert run_config(as_dict(config)) == config
    assert config.run_id == tiny(stage="muon", weight_decay=0.5).run_id
    assert config.run_id != tiny(stage="muon", weight_decay=0.25).run_id
    with pytest.raises(ConfigError, match="another version"):
        run_config({**as_dict(config), "momentum": 1})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stage": "ropes"}, "baseline, rope, muon, untied"),
        ({"batch_size": 301}, "300 training sequences"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"lr": 0.0}, "lr is 0.0"),
        ({"lr": float("nan")}, "lr is nan"),
        ({"weight_decay": -1.0}, "weight_decay"),
        ({"eval_size": 41}, "1..40"),
        ({"newton_schulz": "fp8"}, "'bfloat16'"),
        ({"seed": -1}, "seed is -1"),
        ({"steps": 0}, "steps is 0"),
    ],
)
def test_bad_configurations_name_value_rule_and_remedy(tiny, changes, message):
    with pytest.raises(ConfigError, match=message):
        tiny(**changes)


def test_published_defaults():
    config = RunConfig()
    assert (config.task.vocab, config.task.length, config.task.train) == (1024, 64, 32_000)
    assert (config.model.d_model, config.model.heads, config.model.layers, config.model.mlp_ratio) == (
        128,
        4,
        2,
        2,
    )
