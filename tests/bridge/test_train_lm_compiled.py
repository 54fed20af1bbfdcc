"""Language models under torch.compile: the same gradients as eager code, or none are trained."""

from dataclasses import replace

import pytest
import torch
from training_runs import learner_of, make_shards, run_of, same, small_config

from sims.system.errors import EngineError
from sims.training.compiled import check_compiled
from sims.training.throughput import Throughput
from sims.training.trainer import profile, train
from toymodel import elementwise
from toymodel.stages import CHAIN

pytestmark = pytest.mark.usefixtures("compiled_anew")

WITHOUT_WINDOW = [name for name, stage in CHAIN.items() if stage.window is None]


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return make_shards(tmp_path_factory.mktemp("shards"))


def compiled_learner(config, shards):
    """A trainer whose model is compiled by the back end that generates no code."""
    learner = learner_of(config, shards)
    learner.execution = replace(learner.execution, compile=True)
    learner.model.compile(backend="aot_eager", fullgraph=True)
    return learner


@pytest.mark.parametrize(
    ("stage", "precision"),
    [(name, precision) for name in WITHOUT_WINDOW for precision in ("float32", "bfloat16")],
)
@pytest.mark.slow
def test_gradients_of_compiled_language_models_pass_the_check(shards, stage, precision):
    learner = compiled_learner(small_config(stage, precision=precision, logit_bias=True), shards)
    before = learner.state()
    check_compiled(learner)
    assert same(learner.state(), before)


@pytest.mark.slow
def test_the_check_changes_nothing_in_the_run(shards):
    learner, other = (compiled_learner(small_config("unet"), shards) for _ in range(2))
    check_compiled(learner)
    assert learner.gradients() == other.gradients()
    assert all(torch.equal(a, b) for a, b in zip(learner.grads, other.grads, strict=True))


def lose_a_derivative(monkeypatch):
    """Let compiled code lose the derivative of the activation, as torch 2.11 did with that of the norm."""

    def broken(x):
        return elementwise.squared_relu(x.detach() if torch.compiler.is_compiling() else x)

    monkeypatch.setattr("toymodel.transformer.squared_relu", broken)


@pytest.mark.slow
def test_a_lost_derivative_is_refused_before_the_first_step(shards, monkeypatch):
    lose_a_derivative(monkeypatch)
    # At the start the output projections are zero, and so are these gradients, lost or not.
    for start in (lambda t: next(train(t, Throughput(1, 1.0, 1.0))), lambda t: profile(t, 1)):
        learner = compiled_learner(small_config(), shards)
        before = learner.state()
        with pytest.raises(
            EngineError,
            match=r"gradient of blocks.*mlp.fc is 1 of its size.*leave out --compile, or use another",
        ):
            start(learner)
        assert learner.step == 0
        assert same(learner.state(), before)


@pytest.mark.slow
def test_a_compiler_that_fails_is_named_with_the_remedy(shards):
    def fails(graph, inputs):
        raise RuntimeError("no compiler here")

    learner = compiled_learner(small_config(), shards)
    learner.model.compile(backend=fails)
    with pytest.raises(EngineError, match=r"(?s)fails on this model.*no compiler here.*leave out --compile"):
        check_compiled(learner)


@pytest.mark.slow
def test_the_run_ends_with_the_reason_and_stores_nothing(shards, tmp_path, monkeypatch):
    lose_a_derivative(monkeypatch)
    compiling = torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", lambda model: compiling(model, backend="aot_eager"))
    run = run_of(small_config(), shards, tmp_path)
    run.setup = replace(run.setup, compile=True)
    with pytest.raises(EngineError, match="nothing was trained"):
        run.go()
    assert not run.folder.done
    assert not run.folder.checkpoints()
    assert not (run.folder.path / "state.safetensors").exists()
    # Without --compile the same folder goes on.
    run.setup = replace(run.setup, compile=False)
    assert run.go() == "finished"
