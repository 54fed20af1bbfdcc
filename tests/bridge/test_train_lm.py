"""Language models of the toy's stages: sizes, data, what a step is, what it costs."""

import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from training_runs import after, last_weights, learner_of, make_shards, run_of, same, small_config

from sims.bridge.training.config import LmConfig, lm_config
from sims.bridge.training.corpus import Corpus
from sims.bridge.training.learner import Execution, Learner, shared_by
from sims.bridge.training.memory import Live, step_memory
from sims.bridge.training.speed import _visible, flops_per_token, measured_rate
from sims.bridge.training.tiers import TIERS
from sims.bridge.training.watch import SPIKE, WINDOW, Watch
from sims.errors import StoreError
from sims.ranks import Ranks
from toymodel.config import ModelConfig, RunConfig, as_dict
from toymodel.cross_entropy import head_cross_entropy
from toymodel.elementwise import rms_norm
from toymodel.ensemble import Ensemble, batch_indices, dataset
from toymodel.errors import ConfigError
from toymodel.stages import CHAIN
from toymodel.task import TaskConfig

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
        ({"tokens": 0}, "steps is 0"),
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
    assert same(learner.state(), ensemble.state(0))


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


def test_operations_are_those_that_torch_counts(shards):
    config = small_config("rope")
    learner = learner_of(config, shards)
    batch = learner.corpus.batch(0, config.batch_size, slice(None))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        learner.model(batch)
    sizes = config.sizes
    counted = {str(op).split(".")[1]: n for op, n in counter.get_flop_counts()["Global"].items()}
    products = sum(n for name, n in counted.items() if "attention" not in name)
    attention = 4 * sizes.d * sizes.layers * (sizes.length + 1) / 2
    assert flops_per_token(config.transformer()) == pytest.approx(
        3 * (products / config.tokens_per_step + attention)
    )


@pytest.mark.parametrize(("length", "window"), [(7, 3), (7, 7), (7, 20), (5, 1)])
def test_visible_positions_are_those_of_the_mask(length, window):
    rows, columns = np.mgrid[:length, :length]
    mask = (columns <= rows) & (rows - columns < window)
    assert _visible(length, window) == pytest.approx(mask.sum() / length)


def test_a_rate_is_measured():
    assert 1e8 < measured_rate(torch.device("cpu"), torch.float32) < 1e14


@pytest.mark.parametrize("recompute", [False, True])
def test_the_memory_estimate_is_what_a_real_step_takes(recompute, shards):
    config = small_config("value_mix", length=32, batch_tokens=512)
    estimate = step_memory(config, 16, recompute)
    with Live() as live:
        learner = learner_of(config, shards, 16, recompute)
        resident = live.now
        learner.gradients()
        learner.update()
    assert resident == pytest.approx(estimate.resident, rel=0.01)
    assert live.peak == pytest.approx(estimate.peak, rel=0.02)


def test_live_bytes_are_those_of_the_profiler():
    def work():
        x = torch.zeros(1_000, 50)
        y = x.exp()
        z = (x + y).square()
        del y
        return (z @ z.T).sum()

    with Live() as live:
        work()
    with torch.profiler.profile(profile_memory=True) as seen:
        work()
    sizes = [e.nbytes() for e in seen.profiler.kineto_results.events() if e.name() == "[memory]"]
    highest = max(np.cumsum(sizes))
    assert live.peak == pytest.approx(highest, rel=0.01)
    assert live.now < 1_000


def test_blocks_that_run_again_take_less_memory_and_more_sequences_take_more():
    config = LmConfig.of_tier("tiny", "muon", 1_000)
    once, again = (step_memory(config, 32, r) for r in (False, True))
    assert again.peak < 0.5 * once.peak
    assert step_memory(config, 8, False).peak < 0.5 * once.peak
    assert once.resident == again.resident


def test_a_run_that_rises_is_noticed_and_one_that_is_noisy_is_not():
    noisy = Watch()
    generator = np.random.default_rng(0)
    assert not any(noisy.see(4.0 + 0.3 * x) for x in generator.standard_normal(500))
    assert noisy.see(20.0) is None
    rising = Watch()
    said = [rising.see(4.0 if i < 40 else 4.0 + 2 * SPIKE) for i in range(60)]
    assert said.index(next(s for s in said if s)) < 40 + WINDOW
    assert "rose to" in next(s for s in said if s)
    for bad in (math.nan, math.inf):
        assert str(bad) in (Watch().see(bad) or "")
    restored = Watch()
    restored.restore(rising.state())
    assert (restored.best, restored.recent) == (rising.best, rising.recent)


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


def test_ranks_orthogonalise_their_parts_alone(monkeypatch):
    matrices = torch.randn(5, 4, 3, generator=torch.Generator().manual_seed(0))
    seen, parts = [], []
    monkeypatch.setattr("torch.distributed.all_gather", lambda out, own: parts.append(own))
    for rank in range(2):
        shared_by(Ranks(rank, 2))(lambda own: seen.append(own) or 2 * own, matrices)
    assert [len(own) for own in seen] == [3, 2]
    assert torch.equal(torch.cat(parts)[:5], 2 * matrices)
    gathered = shared_by(Ranks())(lambda own: 2 * own, matrices)
    assert torch.equal(gathered, 2 * matrices)


def test_a_stopped_run_goes_on_to_the_same_bits(shards, tmp_path):
    config = small_config("flex_window")
    whole = run_of(config, shards, tmp_path / "whole")
    assert whole.go() == "finished"
    # Once between two evaluations, and once where weights are kept.
    for calls in (3, 2):
        run = run_of(config, shards, tmp_path / "parts", after(calls))
        assert run.go() == "stopped"
    assert run.learner.step == 5
    run = run_of(config, shards, tmp_path / "parts")
    assert run.go() == "finished"
    assert same(*(last_weights(r.folder, r.config)[1] for r in (whole, run)))
    columns = ["step", "tokens", "quantity", "object", "site", "value"]
    assert run.folder.rows()[columns].equals(whole.folder.rows()[columns])
    losses = whole.folder.rows().query("quantity == 'val_loss'")
    assert losses["step"].tolist() == sorted({0, 4, 8, *config.checkpoint_steps})
    assert losses["value"].iloc[-1] < losses["value"].iloc[0]
    assert [p.name for p in run.folder.checkpoints()] == [
        f"step-{step:09d}.safetensors" for step in config.checkpoint_steps
    ]


def test_what_was_done_after_the_stored_state_is_done_again(shards, tmp_path):
    """As after a kill: parts of later steps are there, and the state is an older one."""
    config = small_config()
    whole = run_of(config, shards, tmp_path / "whole")
    whole.go()
    run = run_of(config, shards, tmp_path / "parts", after(3))
    run.go()
    state = (run.folder.path / "state.safetensors").read_bytes()
    run_of(config, shards, tmp_path / "parts", after(4)).go()
    (run.folder.path / "state.safetensors").write_bytes(state)
    run_of(config, shards, tmp_path / "parts").go()
    columns = ["step", "quantity", "value"]
    assert run.folder.rows()[columns].equals(whole.folder.rows()[columns])


def test_a_run_ends_at_its_target_with_weights(shards, tmp_path):
    config = small_config(tokens=12_800, target_loss=3.5, lr=5e-3)
    run = run_of(config, shards, tmp_path)
    assert run.go() == "target"
    outcome = run.folder.outcome
    assert outcome["val_loss"] <= 3.5 < math.log(128)
    assert outcome["step"] < config.steps
    assert last_weights(run.folder, run.config)[0] == outcome["step"]


def test_a_run_that_diverges_keeps_its_last_stored_weights(shards, tmp_path):
    config = small_config("rope", tokens=12_800, checkpoints=())
    run = run_of(config, shards, tmp_path, after(5))
    assert run.go() == "stopped"
    good = run.learner.weights()
    run = run_of(config, shards, tmp_path)
    gradients = run.learner.gradients
    run.learner.gradients = lambda: gradients() if run.learner.step < 9 else math.nan
    assert run.go() == "diverged"
    outcome = run.folder.outcome
    assert (outcome["ended"], outcome["step"]) == ("diverged", 9)
    assert "loss is nan" in outcome["reason"]
    step, kept = last_weights(run.folder, run.config)
    assert step == 5
    assert same(kept, good)


def test_changed_shards_are_refused_by_name(tmp_path):
    shards = make_shards(tmp_path / "shards")
    config = small_config()
    run_of(config, shards, tmp_path / "out", after(2)).go()
    make_shards(shards, seed=1)
    with pytest.raises(StoreError, match=r"text_train_000001.bin had .* SHA-256 .*, and has .*; put the old"):
        run_of(config, shards, tmp_path / "out")
    (shards / "text_train_000002.bin").unlink()
    with pytest.raises(StoreError, match=r"text_train_000002.bin is missing"):
        run_of(config, shards, tmp_path / "out")


def test_a_full_disk_leaves_the_last_state(shards, tmp_path, monkeypatch):
    config = small_config()
    run = run_of(config, shards, tmp_path, after(3))
    run.go()
    before = (run.folder.path / "state.safetensors").read_bytes()
    run = run_of(config, shards, tmp_path, store_every=0.0)

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StoreError, match=r"no space left.*same command again"):
        run.go()
    monkeypatch.undo()
    assert (run.folder.path / "state.safetensors").read_bytes() == before
    whole = run_of(config, shards, tmp_path / "whole")
    whole.go()
    again = run_of(config, shards, tmp_path)
    again.go()
    assert same(*(last_weights(r.folder, r.config)[1] for r in (whole, again)))


def test_a_damaged_state_is_named(shards, tmp_path):
    config = small_config()
    run = run_of(config, shards, tmp_path, after(3))
    run.go()
    file = run.folder.path / "state.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"state.safetensors cannot be read.*delete it"):
        run_of(config, shards, tmp_path).go()


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


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_step_of_d12_on_a_gpu_takes_the_memory_that_was_estimated(tmp_path):
    shards = make_shards(tmp_path / "shards", train=20_000)
    (shards / "data.json").unlink()
    config = LmConfig.of_tier("d12", "untied", batch_tokens=8_192, tokens=81_920)
    corpus = Corpus(shards, config.length)
    torch.cuda.reset_peak_memory_stats()
    learner = Learner(config, Execution(torch.device("cuda"), 8), corpus, Ranks())
    losses = []
    for _ in range(5):
        losses.append(learner.gradients())
        learner.update()
    assert losses[0] == pytest.approx(math.log(50_304), rel=1e-3)
    assert losses[-1] < losses[0]
    assert torch.cuda.max_memory_allocated() == pytest.approx(step_memory(config, 8, False).peak, rel=0.2)
