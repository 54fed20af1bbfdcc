"""Interventions on language models: what they change, over an interruption, on several processes, and their memory."""

import gc

import pytest
import torch
from training_runs import CPU, after, last_weights, learner_of, make_shards, run_of, same, small_config

from sims.runs.lm_config import lm_config
from sims.training.execution import Execution
from sims.training.memory import Live, step_memory
from toymodel.config import as_dict
from toymodel.errors import ConfigError
from toymodel.intervention import NONE, Intervention

WINDOW = {"window": 2, "stride": 2}
EDGE = Intervention("edge", start=5, factor=0.5, **WINDOW)
DECAY = Intervention("decay", start=5, stop=8, factor=0.25)


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return make_shards(tmp_path_factory.mktemp("lm") / "shards")


def config_of(own=NONE, stage="untied", **given):
    return small_config(stage, intervention=own, weight_decay=0.5, warmup=0.2, warmdown=0.8, **given)


def weights(trainer):
    return torch.cat([p.detach()[0].flatten() for p in trainer.trainable.params.values()])


def steps(trainer, count):
    """Weights before every update and after the last one."""
    found = [weights(trainer)]
    for _ in range(count):
        trainer.gradients()
        trainer.update()
        found.append(weights(trainer))
    return found


@pytest.mark.parametrize("own", [EDGE, DECAY], ids=lambda own: own.kind)
def test_nothing_changes_before_the_first_step(own, shards):
    plain, changed = (steps(learner_of(config_of(i), shards), 8) for i in (NONE, own))
    assert [torch.equal(a, b) for a, b in zip(plain, changed, strict=True)] == [i <= 5 for i in range(9)]


def test_the_part_along_the_edge_is_removed_at_every_rate_of_the_schedule(shards):
    """An independent account of each changed update, in which weight decay has the rate of its step."""
    own = Intervention("edge", start=4, directions=1, window=2, stride=1)
    config = config_of(own, "baseline")
    trainer = learner_of(config, shards)
    seen = [w.double() for w in steps(trainer, 9)]
    for step in range(4, 9):
        lr = config.lr * config.lr_scale(step)
        update = seen[step + 1] - (1 - 0.5 * lr) * seen[step]
        window = torch.stack([seen[step - 1] - seen[step - 2], seen[step] - seen[step - 1]])
        first = torch.linalg.svd(window, full_matrices=False)[2][0]
        assert abs(first @ update) < 1e-3 * update.norm()
    # Weight decay alone has a part along it that is larger.
    assert abs(first @ seen[8]) * 0.5 * config.lr > 1e-3 * update.norm()


@pytest.mark.parametrize("own", [EDGE, DECAY], ids=lambda own: own.kind)
def test_an_interrupted_run_is_the_whole_one(own, shards, tmp_path):
    config = config_of(own)
    assert config.run_id != config_of().run_id
    assert lm_config(as_dict(config)) == config
    assert "intervention" not in as_dict(config_of())
    whole = run_of(config, shards, tmp_path / "whole")
    assert whole.go() == "finished"
    # Within the intervention, and between two updates of a window.
    assert run_of(config, shards, tmp_path / "parts", after(7)).go() == "stopped"
    parts = run_of(config, shards, tmp_path / "parts")
    assert parts.go() == "finished"
    assert same(*(last_weights(r.folder, r.config)[1] for r in (whole, parts)))


def test_several_processes_cannot_change_updates_but_their_decay():
    execution = Execution(CPU, 4)
    assert execution.rounds(config_of(DECAY), 2) == execution.rounds(config_of(), 2)
    assert execution.rounds(config_of(EDGE), 1) == 2
    with pytest.raises(ConfigError, match=r"intervention.kind is edge: each of 2 processes"):
        execution.rounds(config_of(EDGE), 2)


def test_settings_are_checked_with_the_run():
    with pytest.raises(ConfigError, match="run ends after 10 updates"):
        config_of(Intervention("decay", start=10))
    with pytest.raises(ConfigError, match="has no weight decay"):
        small_config("untied", intervention=Intervention("decay"), weight_decay=0.0)


def live_bytes(config, shards, count):
    """Bytes of tensors that a run holds after some steps, and at most in the last of them."""
    trainer = learner_of(config, shards)
    with Live() as live:
        steps(trainer, count - 1)
        gc.collect()
        trainer.gradients()
        live.peak = live.now
        trainer.update()
    gc.collect()
    return live.now, live.peak


@pytest.mark.slow
def test_the_memory_is_that_of_the_tensors_that_are_held(shards):
    own = Intervention("edge", start=8, window=4, stride=2, directions=1)
    # The last of nine updates is the first that is changed: the directions are found in it, and kept for the next one.
    plain, changed = (live_bytes(config_of(i, "baseline", tokens=2_560), shards, 9) for i in (NONE, own))
    size = config_of(stage="baseline").transformer().parameter_count()
    kept, most = own.memory(size)
    assert changed[0] - plain[0] == pytest.approx(kept, rel=0.01)
    assert 0.8 * most <= changed[1] - plain[0] <= 1.02 * most
    config = config_of(stage="baseline")
    before, after_ = (step_memory(c, 8, False) for c in (config, config_of(own, "baseline")))
    assert after_.resident - before.resident == kept
    assert after_.peak >= before.peak + kept
    assert DECAY.memory(size) == (0, 0)
