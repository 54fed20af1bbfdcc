"""Clipping of gradients and AdamW's β₂ as fields of a run."""

from dataclasses import replace

import pytest
import torch
from simulated import simulated_device
from trajectories import assert_same_state, trajectory

from toymodel.config import RunConfig, as_dict, canonical_json, run_config
from toymodel.ensemble import Ensemble
from toymodel.errors import ConfigError

STAGES = ["baseline", "untied"]


def members(tiny, stage, **changes):
    base = tiny(stage=stage, newton_schulz="float32", clip=0.5, beta2=0.98, **changes)
    return [base, replace(base, seed=1, lr=1e-3), replace(base, seed=2, task=replace(base.task, seed=5))]


@pytest.mark.parametrize("stage", STAGES)
def test_clipping_is_that_of_torch_for_each_member(tiny, stage):
    ensemble = Ensemble(members(tiny, stage))
    trainable = ensemble.trainable
    generator = torch.Generator().manual_seed(0)
    # Members with norms far above, about, and below the limit.
    sizes = torch.tensor([3.0, 1e-2, 1e-4])
    grads = {
        name: torch.randn(p.shape, generator=generator) * sizes.view(-1, *[1] * (p.ndim - 1))
        for name, p in ensemble.params.items()
    }
    vectors = trainable.clipped(trainable.flatten(grads), 0.5)
    norms = []
    for k in range(3):
        theirs = [torch.nn.Parameter(torch.zeros(g.shape[1:])) for g in grads.values()]
        for p, g in zip(theirs, grads.values(), strict=True):
            p.grad = g[k].clone()
        norms.append(float(torch.nn.utils.clip_grad_norm_(theirs, 0.5)))
        for name, p in zip(grads, theirs, strict=True):
            bank, vector = next(
                (b, v) for b, v in zip(trainable.banks, vectors, strict=True) if name in b.params
            )
            torch.testing.assert_close(bank.block(vector, name)[k], p.grad, rtol=1e-5, atol=0)
    assert norms[0] > 0.5 > norms[2]


@pytest.mark.parametrize("stage", STAGES)
def test_a_clipped_member_does_not_depend_on_its_company(tiny, stage):
    _, together = trajectory(Ensemble(members(tiny, stage)))
    for config in members(tiny, stage):
        _, alone = trajectory(Ensemble([config]))
        assert_same_state(alone[config.run_id], together[config.run_id])


@pytest.mark.parametrize("stage", STAGES)
def test_a_resumed_clipped_run_goes_on_exactly(tiny, stage):
    configs = members(tiny, stage)
    _, whole = trajectory(Ensemble(configs))
    first = Ensemble(configs)
    first.advance(5)
    resumed = Ensemble.from_states(configs, [first.state(k) for k in range(3)], 5)
    resumed.advance(7)
    for k, config in enumerate(configs):
        assert_same_state(resumed.state(k), whole[config.run_id])


@pytest.mark.parametrize("stage", STAGES)
def test_a_clipped_step_is_captured_and_neither_waits_nor_copies(tiny, stage):
    configs = members(tiny, stage)
    expected = trajectory(Ensemble(configs))[1]
    with simulated_device() as device:
        found = trajectory(Ensemble(configs, "cuda", "on"))[1]
        ensemble = Ensemble(configs, "cuda", "off")
        ensemble.advance(2)
        with device.counting() as counts:
            ensemble.advance(1)
    assert (counts.waits, len(counts.transfers)) == (0, 0), str(counts)
    for run_id, state in expected.items():
        assert_same_state(found[run_id], state)


def test_a_limit_that_no_norm_reaches_changes_nothing(tiny):
    free, wide = Ensemble([tiny()]), Ensemble([tiny(clip=1e6)])
    for ensemble in (free, wide):
        ensemble.advance(4)
    assert_same_state(free.state(0), wide.state(0))
    tight = Ensemble([tiny(clip=1e-3)])
    tight.advance(4)
    # The momentum is a mean of gradients.
    assert max(float(v.norm()) for key, v in tight.state(0).items() if key.startswith("adamw.first")) < 1e-3


def test_beta2_is_that_of_the_optimiser(tiny):
    assert Ensemble([tiny(beta2=0.98)]).trainable.adamw.betas == (0.9, 0.98)
    ours, stage = Ensemble([tiny(beta2=0.999)]), Ensemble([tiny()])
    for ensemble in (ours, stage):
        ensemble.advance(3)
    assert_same_state(ours.state(0), stage.state(0))


def test_both_are_left_out_of_the_identity_where_they_are_not_given():
    assert "beta2" not in canonical_json(RunConfig())
    assert "clip" not in canonical_json(RunConfig())
    config = RunConfig(beta2=0.98, clip=1.0)
    assert run_config(as_dict(config)) == config
    assert len({c.run_id for c in (config, RunConfig(), RunConfig(clip=1.0), RunConfig(beta2=0.98))}) == 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"beta2": 1.0}, "beta2 is 1.0; it must be at least 0 and below 1"),
        ({"beta2": -0.1}, "beta2 is -0.1"),
        ({"clip": 0.0}, "clip is 0.0; a norm of gradients is positive"),
        ({"clip": float("nan")}, "clip is nan; it must be a finite number"),
    ],
)
def test_values_out_of_range_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        RunConfig(**changes)
