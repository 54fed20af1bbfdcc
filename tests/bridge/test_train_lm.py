"""Language models of the toy's stages: sizes, data, what a step is."""

import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from training_runs import learner_of, make_shards, same, small_config

from sims.runs.lm_config import LmConfig, lm_config
from sims.runs.tiers import TIERS
from sims.system.errors import EngineError, StoreError
from sims.system.process_group import ProcessGroup
from sims.text.corpus import Corpus
from sims.training.execution import Execution, fitting
from sims.training.failures import explained
from sims.training.language_model import shared_by
from sims.training.lm_runner import LmSetup
from toymodel import TaskConfig
from toymodel.config import ModelConfig, RunConfig, as_dict
from toymodel.cross_entropy import head_cross_entropy
from toymodel.data import dataset
from toymodel.elementwise import rms_norm
from toymodel.ensemble import Ensemble
from toymodel.errors import ConfigError
from toymodel.feed import batch_indices
from toymodel.stages import CHAIN

DOCS = Path(__file__).parents[2] / "docs" / "bridge-training.md"


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return make_shards(tmp_path_factory.mktemp("lm") / "shards")


@pytest.mark.parametrize("name", TIERS)
def test_parameter_counts_are_those_of_the_formula_and_of_the_docs(name):
    tier = TIERS[name]
    stated = re.search(rf"^\| {name} \|.*$", DOCS.read_text(), flags=re.MULTILINE)
    assert stated is not None
    numbers = [int(n.replace(",", "")) for n in re.findall(r"\d[\d,]{5,}", stated[0])]
    blocks = 12 * tier.layers * tier.width**2
    table = 50_304 * tier.width
    expected = {
        "baseline": table + tier.length * tier.width + blocks,
        "rope": table + blocks,
        "muon": table + blocks,
        "untied": 2 * table + blocks,
    }
    found = {s: LmConfig.of_tier(name, s).transformer().parameter_count() for s in expected}
    assert found == expected
    assert set(expected.values()) <= set(numbers)


def test_a_tier_says_what_is_not_given():
    config = LmConfig.of_tier("d12", "muon")
    assert (config.sizes.vocab, config.sizes.mlp, config.sizes.heads) == (50_304, 3_072, 6)
    assert config.batch_size * config.length == config.tokens_per_step == 524_288
    assert config.steps == math.ceil(2_500_000_000 / 524_288)
    assert LmConfig.of_tier("d12", "muon", batch_tokens=262_144).steps == math.ceil(2_500_000_000 / 262_144)
    assert lm_config(as_dict(config)) == config
    assert replace(config, data="ab").run_id == config.run_id
    assert replace(config, lr=1e-3).run_id != config.run_id
    assert config.checkpoint_steps[0] == 0
    assert config.checkpoint_steps[-1] == config.steps


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"batch_tokens": 1_000}, "multiple of the length 128.*take 1024"),
        ({"lr": 0.0}, "lr is 0.0"),
        ({"warmup": 0.9, "warmdown": 0.2}, "not be negative, nor above 1"),
        ({"checkpoints": (0.5, 1.5)}, "shares of the run"),
        ({"precision": "float16"}, "choose bfloat16 or float32"),
        ({"tokens": 0}, "tokens is 0; a run has at least 1"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_impossible_runs_are_refused(given, message):
    with pytest.raises(ConfigError, match=message):
        LmConfig.of_tier("tiny", "muon", **given)


def test_the_learning_rate_rises_stays_and_falls():
    config = small_config(tokens=12_800, warmup=0.1, warmdown=0.25)
    scales = [config.lr_scale(step) for step in range(config.steps)]
    assert config.steps == 100
    np.testing.assert_allclose(scales[:10], np.arange(1, 11) / 10)
    assert set(scales[10:75]) == {1.0}
    np.testing.assert_allclose(scales[75:], np.arange(25, 0, -1) / 25)
    toy = small_config(warmup=0.0, warmdown=0.0)
    assert {toy.lr_scale(step) for step in range(toy.steps)} == {1.0}


def test_a_pass_sees_every_sequence_once_however_it_is_divided(shards):
    corpus = Corpus(shards, 16, seed=3)
    n = len(corpus.train)
    whole = corpus.batch(0, n, slice(None))
    assert {tuple(row) for row in whole.tolist()} == {tuple(r) for r in corpus.train.take(range(n)).tolist()}
    again = corpus.batch(1, n, slice(None))
    assert not torch.equal(whole, again)
    assert torch.equal(whole.sort(dim=0).values, again.sort(dim=0).values)
    # A step in the middle of which one pass ends and the next begins, by one rank and by three.
    step, size = n // 12, 12
    parts = [corpus.batch(step, size, slice(first, first + 4)) for first in (0, 4, 8)]
    assert torch.equal(torch.cat(parts), corpus.batch(step, size, slice(None)))
    assert torch.equal(corpus.batch(step, size, slice(None)), torch.cat([whole, again])[step * 12 :][:12])
    assert not torch.equal(Corpus(shards, 16, seed=4).batch(0, n, slice(None)), whole)


def test_shards_that_are_touched_while_they_are_read_are_named(tmp_path):
    shards = make_shards(tmp_path / "shards")
    corpus = Corpus(shards, 16)
    corpus.check()
    file = shards / "text_train_000002.bin"
    file.write_bytes(file.read_bytes())
    with pytest.raises(StoreError, match=r"text_train_000002.bin has changed"):
        corpus.check()
    file.unlink()
    with pytest.raises(StoreError, match=r"text_train_000002.bin is gone"):
        corpus.check()


class _ToyBatches:
    """The batches of a toy run, in the place of a corpus."""

    def __init__(self, config):
        self.config, self.tokens = config, dataset(config.task).train.tokens

    def batch(self, step, batch_size, part):
        rows = batch_indices(self.config, 0)[step][part]
        return torch.as_tensor(self.tokens[rows]).long()


@pytest.mark.parametrize("stage", ["untied", "unet", "attn_scale"])
def test_a_learner_is_a_toy_ensemble_of_one(stage):
    task = TaskConfig(vocab=128, length=16, train=200, val=16, test=8)
    toy = RunConfig(stage, task, ModelConfig(64, 4, 4, 4), batch_size=8, lr=2e-3, steps=10, eval_size=16)
    ensemble = Ensemble([toy])
    config = small_config(stage, warmup=0.0, warmdown=0.0)
    assert (config.sizes, config.steps) == (toy.sizes, toy.steps)
    learner = learner_of(config, None, corpus=_ToyBatches(toy))
    for _ in range(4):
        loss = learner.gradients()
        learner.update()
        assert loss == float(ensemble.advance(1))
    assert same(learner.trainable.states([0])[0], ensemble.state(0))


def gradients_of(config, shards, micro_batch=8, recompute=False):
    learner = learner_of(config, shards, micro_batch, recompute)
    # Away from the zeros of the start, behind which nothing has a gradient.
    generator = torch.Generator().manual_seed(5)
    for bank in learner.trainable.banks:
        bank.vector.add_(0.02 * torch.randn(bank.vector.shape, generator=generator))
    loss = learner.gradients()
    return loss, torch.cat(learner.grads)


@pytest.mark.parametrize("stage", ["baseline", "unet", "value_embed"])
def test_micro_batches_and_blocks_run_again_change_nothing(stage, shards):
    config = small_config(stage)
    loss, whole = gradients_of(config, shards)
    assert gradients_of(config, shards, recompute=True)[0] == loss
    assert torch.equal(gradients_of(config, shards, recompute=True)[1], whole)
    loss_in_parts, in_parts = gradients_of(config, shards, micro_batch=2)
    assert loss_in_parts == pytest.approx(loss, rel=1e-5)
    torch.testing.assert_close(in_parts, whole, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("stage", CHAIN)
def test_bfloat16_is_float32_but_for_rounding(stage, shards):
    loss, exact = gradients_of(small_config(stage), shards)
    rounded, close = gradients_of(small_config(stage, precision="bfloat16"), shards)
    assert rounded != loss
    assert rounded == pytest.approx(loss, rel=0.01)
    assert torch.nn.functional.cosine_similarity(exact, close, dim=0) > 0.995


def test_the_head_sums_in_float32_under_autocast():
    generator = torch.Generator().manual_seed(2)
    hidden = torch.randn(1, 300, 32, generator=generator).requires_grad_()
    weight = torch.randn(1, 500, 32, generator=generator).requires_grad_()
    targets = torch.randint(500, (1, 300), generator=generator)
    with torch.autocast("cpu", torch.bfloat16):
        loss = head_cross_entropy(hidden, weight, targets)
    grads = torch.autograd.grad(loss.sum(), (hidden, weight))
    # The same products from rounded factors, everything behind them in float32.
    h, w = hidden.detach().bfloat16().float(), weight.detach().bfloat16().float()
    logits = (h @ w.transpose(1, 2)).bfloat16().float()
    expected = torch.nn.functional.cross_entropy(logits[0], targets[0])
    assert float(loss.detach()) == pytest.approx(float(expected), rel=1e-6)
    assert loss.dtype == grads[0].dtype == grads[1].dtype == torch.float32
    slopes = logits.softmax(-1) - torch.nn.functional.one_hot(targets, 500)
    for grad, full in zip(grads, (slopes @ w / 300, slopes.transpose(1, 2) @ h / 300), strict=True):
        assert (grad - full).norm() < 0.01 * full.norm()


def test_the_norm_of_half_precision_is_that_of_float32_rounded():
    x = torch.randn(4, 33, generator=torch.Generator().manual_seed(0)).bfloat16().requires_grad_()
    wide = x.detach().float().requires_grad_()
    y, expected = rms_norm(x), rms_norm(wide)
    assert torch.equal(y, expected.bfloat16())
    y.float().square().sum().backward()
    expected.square().sum().backward()
    assert x.grad is not None
    assert x.grad.dtype == torch.bfloat16
    torch.testing.assert_close(x.grad.float(), wide.grad, atol=0.02, rtol=0.02)


def test_steps_that_cannot_be_divided_are_refused_with_a_remedy():
    config = small_config()
    assert Execution(torch.device("cpu"), 2).rounds(config, 2) == 2
    with pytest.raises(
        ConfigError, match="8 sequences is no whole number of rounds of 2 × 3; take --micro-batch 2"
    ):
        Execution(torch.device("cpu"), 3).rounds(config, 2)
    with pytest.raises(ConfigError, match="a number of ranks that divides 8"):
        Execution(torch.device("cpu"), 1).rounds(config, 3)
    with pytest.raises(ConfigError, match="leave out --compile"):
        Execution(torch.device("cpu"), 8, compile=True).rounds(small_config("flex_window"), 1)


@given(st.integers(1, 200), st.integers(1, 4), st.integers(1, 70))
@settings(max_examples=60, deadline=None)
def test_a_micro_batch_that_fits_is_the_largest_that_does(each, ranks, most):
    found = fitting(each * ranks, ranks, most)
    assert [m for m in range(found, most + 1) if each % m == 0] == [found]


@pytest.mark.parametrize(("sequences", "micro"), [(50, 25), (64, 32), (33, 11), (7, 7), (37, 1)])
def test_by_default_a_step_is_divided_whatever_its_size(tmp_path, sequences, micro):
    """The tier takes 32 at once; several batch sizes of one command need not have one that fits them all."""
    config = LmConfig.of_tier("tiny", "rope", 256, batch_tokens=128 * sequences)
    assert LmSetup(tmp_path).execution(config).micro_batch == micro


@pytest.mark.parametrize(("micro", "smaller"), [(32, 16), (25, 5), (3, 1)])
def test_out_of_memory_names_a_micro_batch_that_fits(micro, smaller):
    execution = Execution(torch.device("cpu"), micro)
    with (
        pytest.raises(EngineError, match=rf"from {micro} to {smaller}, or"),
        explained(execution, ProcessGroup(), lambda: 0),
    ):
        raise MemoryError


def test_ranks_orthogonalise_their_parts_alone(monkeypatch):
    matrices = torch.randn(5, 4, 3, generator=torch.Generator().manual_seed(0))
    seen, parts = [], []
    monkeypatch.setattr("torch.distributed.all_gather", lambda out, own: parts.append(own))
    for rank in range(2):
        shared_by(ProcessGroup(rank, 2))(lambda own: seen.append(own) or 2 * own, matrices)
    assert [len(own) for own in seen] == [3, 2]
    assert torch.equal(torch.cat(parts)[:5], 2 * matrices)
    gathered = shared_by(ProcessGroup())(lambda own: 2 * own, matrices)
    assert torch.equal(gathered, 2 * matrices)


@pytest.mark.slow
def test_a_step_of_d12_on_a_processor(tmp_path):
    """GPT-2's vocabulary and the real width: the shapes and the memory of a real run."""
    shards = tmp_path / "shards"
    make_shards(shards)
    (shards / "data.json").unlink()
    config = LmConfig.of_tier("d12", "muon", length=64, batch_tokens=128, tokens=256, precision="bfloat16")
    learner = learner_of(config, shards, micro_batch=2, recompute=True)
    assert sum(p.numel() for p in learner.trainable.params.values()) == 50_304 * 768 + 12 * 12 * 768**2
    before = learner.trainable.muon_bank.vector.clone()
    first = learner.gradients()
    learner.update()
    # Tied N(0, 0.02²) tokens: their own logit is 0.02·768 = 15.4 at the start.
    assert 10 < first < 18
    assert not torch.equal(before, learner.trainable.muon_bank.vector)
    assert learner.gradients() < first


@pytest.mark.slow
def test_a_compiled_model_is_the_same(shards):
    config = small_config("unet")
    plain = learner_of(config, shards)
    compiled = learner_of(config, shards)
    compiled.model.compile()
    for _ in range(3):
        ours = compiled.gradients()
        assert ours == pytest.approx(plain.gradients(), rel=1e-4)
        plain.update()
        compiled.update()
