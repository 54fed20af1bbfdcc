"""Language models on a (simulated) CUDA device: trained, stopped, gone on with, and measured on text as on a CPU."""

from dataclasses import replace

import pandas as pd
import pytest
import torch
from simulated import simulated_device
from training_runs import VOCABULARY, after, learner_of, make_shards, run_of, small_config

from sims.measure.engine import measure
from sims.measure.lm import prepare_text
from sims.models.transformer import TransformerSubject
from sims.runs.lm_measure_config import LmMeasureConfig
from sims.system.process_group import ProcessGroup
from sims.text.corpus import Corpus
from sims.training.execution import Execution
from sims.training.trainer import Trainer
from toymodel.stages import STAGES

MEASURING = LmMeasureConfig(
    tokens=320, length=16, batch=64, loss_tokens=160, windows=((1, 10),), gradient_sequences=8, families=()
)


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return make_shards(tmp_path_factory.mktemp("device") / "shards")


def config_of(stage, **given):
    # Newton–Schulz in float32: bfloat16 products of a CPU and those of a device differ.
    return small_config(stage, newton_schulz="float32", **given)


def trainer_on_device(config, shards, recompute=False):
    execution = Execution(torch.device("cuda"), 4, recompute)
    return Trainer(config, execution, Corpus(shards, config.length, config.seed), ProcessGroup())


# The last of the chain has the parts of all.
@pytest.mark.parametrize("stage", [*(pytest.param(s, marks=pytest.mark.slow) for s in STAGES), "attn_scale"])
def test_a_language_model_trains_as_on_a_processor(shards, stage):
    # The last one, which has the parts of all, with a bias of the logits too.
    config = config_of(stage, logit_bias=stage == "attn_scale")
    host = learner_of(config, shards, micro_batch=4)
    with simulated_device():
        there = trainer_on_device(config, shards, recompute=stage == "untied")
        for _ in range(3):
            assert there.gradients() == pytest.approx(host.gradients(), rel=1e-6)
            there.update()
            host.update()
        assert there.evaluate() == pytest.approx(host.evaluate(), rel=1e-6)
        for name, weight in there.weights().items():
            torch.testing.assert_close(weight, host.weights()[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("logit_bias", [False, True])
def test_a_step_waits_for_its_loss_and_its_text_only(shards, logit_bias):
    config = config_of("untied", logit_bias=logit_bias)
    with simulated_device() as device:
        trainer = trainer_on_device(config, shards)
        trainer.gradients()
        trainer.update()
        with device.counting() as counts:
            trainer.gradients()
            trainer.update()
    # The text of each micro-batch goes to the device; the loss comes back once a step.
    assert counts.waits <= trainer.rounds + 1, str(counts)
    assert {t.to for t in counts.transfers} == {"device"}


@pytest.mark.slow
def test_a_run_on_the_device_is_stopped_measured_and_gone_on_with(shards, tmp_path):
    config = config_of("rope")
    whole = run_of(config, shards, tmp_path / "host", measuring=MEASURING)
    assert whole.go() == "finished"
    with simulated_device():
        for stopped in (after(4), lambda: False):
            run = run_of(config, shards, tmp_path / "there", stopped, measuring=MEASURING)
            run.setup = replace(run.setup, device="cuda")
            left = run.go()
    assert left == "finished"
    there, here = (
        r.folder.rows().sort_values(["step", "quantity", "object", "site", "detail"]).reset_index(drop=True)
        for r in (run, whole)
    )
    pd.testing.assert_frame_equal(there, here, rtol=1e-4, atol=1e-6)


def test_text_is_measured_on_the_device_as_on_a_processor(shards):
    config = config_of("untied")
    weights = learner_of(config, shards).weights()
    paths = sorted(shards.glob("*val*.bin"))
    expected = measure(TransformerSubject.of_weights(config, weights, 0), prepare_text(MEASURING, paths))
    with simulated_device():
        subject = TransformerSubject.of_weights(config, weights, 0, "cuda")
        found = measure(subject, prepare_text(MEASURING, paths, device="cuda"))
    assert config.sizes.vocab >= VOCABULARY
    for one, other in zip(found.rows, expected.rows, strict=True):
        assert {**one, "value": 0} == {**other, "value": 0} or one["null"] == pytest.approx(
            other["null"], nan_ok=True
        )
        assert one["value"] == pytest.approx(other["value"], rel=1e-5, abs=1e-9, nan_ok=True), one
