"""Ensembles that train by code of torch.compile: what eager code computes, or nothing at all."""

from dataclasses import replace

import pytest
import torch
from trajectories import assert_same_state

from toymodel import compiled, elementwise
from toymodel.config import ModelConfig
from toymodel.ensemble import Ensemble
from toymodel.errors import CompileError, ConfigError
from toymodel.optim import AdamW
from toymodel.stages import CHAIN
from toymodel.training import train

pytestmark = pytest.mark.usefixtures("compiled_anew")

MOVING = [name for name in CHAIN if CHAIN[name].moves(2)]
FIXED = [name for name in CHAIN if name not in MOVING]
# The first member gets below this loss by step 8; the second, at a lower rate, does not.
LEAVING = {"stage": "baseline", "model": ModelConfig(12, 2, 1), "target_loss": 11.235, "steps": 12}


@pytest.fixture(autouse=True)
def backend(monkeypatch):
    """Code is taken apart as every back end does, derivatives included, and none is generated."""
    monkeypatch.setattr(compiled, "BACKEND", "aot_eager")


def members(tiny, **changes):
    base = tiny(compile=True, newton_schulz="float32", **changes)
    return [base, replace(base, seed=1, lr=1e-3, weight_decay=0.1)]


def states(ensemble):
    return [ensemble.state(k) for k in range(len(ensemble.configs))]


def assert_close(found, expected):
    """Compare matrices and their moments as wholes: a single number with a gradient near zero goes its own way."""
    for ours, theirs in zip(found, expected, strict=True):
        for name, value in theirs.items():
            if value.ndim > 1:
                assert (ours[name] - value).norm() <= 1e-3 * value.norm(), name


@pytest.mark.parametrize(
    "stage", [pytest.param(n, marks=[] if n == "fixed_window" else pytest.mark.slow) for n in FIXED]
)
def test_a_compiled_ensemble_trains_as_an_eager_one(tiny, stage):
    configs = members(tiny, stage=stage)
    fast, plain = Ensemble(configs), Ensemble([replace(c, compile=False) for c in configs])
    before = states(fast)
    fast.check_compiled()
    for ours, theirs in zip(states(fast), before, strict=True):
        assert_same_state(ours, theirs)
    assert torch.allclose(fast.advance(4), plain.advance(4), rtol=1e-5)
    assert_close(states(fast), states(plain))


@pytest.mark.slow
def test_the_check_does_not_change_the_batches_of_the_run(tiny):
    one, other = (Ensemble(members(tiny)) for _ in range(2))
    for ensemble in (one, other):
        ensemble.advance(3)
    one.check_compiled()
    assert torch.equal(one.advance(2), other.advance(2))


def test_members_leave_a_compiled_ensemble(tiny):
    configs = members(tiny, **LEAVING)
    found = {}
    for each in (configs, [replace(c, compile=False) for c in configs]):
        ends = [(s.step, s.ended) for s in train(Ensemble(each))]
        assert ends[-2:] == [(8, ("target", None)), (12, ("finished",))]
        found[each[0].compile] = ends
    assert found[True] == found[False]


def lose_a_derivative(monkeypatch):
    def broken(x):
        return elementwise.squared_relu(x.detach() if torch.compiler.is_compiling() else x)

    monkeypatch.setattr("toymodel.transformer.squared_relu", broken)


def forget_the_decay(monkeypatch):
    update = AdamW.update

    def broken(self, grad, root, factor, scale=1.0):
        if not torch.compiler.is_compiling():
            return update(self, grad, root, factor, scale)
        self.first.lerp_(grad, 0.1)
        self.second.mul_(0.999).addcmul_(grad, grad, value=0.001)
        self.theta.addcdiv_((self.first * self.lr).mul_(factor), self.second.sqrt().div_(root).add_(self.eps))

    monkeypatch.setattr(AdamW, "update", torch.no_grad()(broken))


@pytest.mark.parametrize(
    ("spoil", "named"),
    [(lose_a_derivative, r"gradient of blocks.*mlp.fc is 1 of its size"), (forget_the_decay, "the update")],
)
def test_code_that_computes_something_else_trains_nothing(tiny, monkeypatch, spoil, named):
    spoil(monkeypatch)
    ensemble = Ensemble(members(tiny))
    before = states(ensemble)
    with pytest.raises(CompileError, match=rf"(?s){named}.*nothing was trained by it; leave out --compile"):
        train(ensemble)
    assert ensemble.step == 0
    for ours, theirs in zip(states(ensemble), before, strict=True):
        assert_same_state(ours, theirs)


@pytest.mark.slow
def test_code_for_the_members_that_stay_is_compared_too(tiny, monkeypatch):
    def broken(x):
        return elementwise.squared_relu(x.detach() if torch.compiler.is_compiling() and len(x) == 1 else x)

    monkeypatch.setattr("toymodel.transformer.squared_relu", broken)
    snapshots = train(Ensemble(members(tiny, **LEAVING)))
    assert [next(snapshots).ended for _ in range(3)][-1] == ("target", None)
    with pytest.raises(CompileError, match=r"gradient of blocks.*mlp.fc is 1 of its size"):
        next(snapshots)


def test_a_compiler_that_fails_is_named_with_the_remedy(tiny, monkeypatch):
    def fails(graph, inputs):
        raise RuntimeError("no compiler here")

    monkeypatch.setattr(compiled, "BACKEND", fails)
    with pytest.raises(CompileError, match=r"(?s)fails on this model.*no compiler here.*leave out --compile"):
        train(Ensemble(members(tiny)))


@pytest.mark.slow
def test_more_shapes_than_torch_admits_are_compiled(tiny):
    for count in range(1, 11):
        ensemble = Ensemble(members(tiny)[:1] * count)
        assert max(ensemble.trainable.adamw_errors(torch.tensor(0.1), torch.tensor(-1.0)).values()) < 1e-4


@pytest.mark.parametrize("stage", MOVING)
def test_a_window_that_opens_is_refused(tiny, stage):
    with pytest.raises(
        ConfigError, match=f"stage {stage} has an attention window that opens.*leave out --compile"
    ):
        tiny(stage=stage, compile=True)


def test_compiling_belongs_to_the_identity_of_a_run(tiny):
    assert tiny(compile=True).run_id != tiny().run_id
    assert tiny(compile=False).run_id == tiny().run_id
