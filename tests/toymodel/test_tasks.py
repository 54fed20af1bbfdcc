"""Tasks: what a new one costs, that masks are respected, and that present run ids stay."""

from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from toymodel import (
    TASKS,
    ConfigError,
    Ensemble,
    ModelConfig,
    RunConfig,
    Split,
    Task,
    TaskConfig,
    make_dataset,
    train,
)
from toymodel.config import as_dict, canonical_json, run_config
from toymodel.cross_entropy import head_cross_entropy, position_losses
from toymodel.data import split_generators
from toymodel.tasks import check_task, task_from, task_values
from toymodel.tasks.modular_walk_probes import training_bands
from toymodel.tasks.modular_walks import modular_walks


@dataclass(frozen=True)
class Sums(Task):
    """a, b, "=" and a + b mod p; the sum alone counts."""

    kind = "sums"

    modulus: int = 5
    train: int = 60
    val: int = 20
    test: int = 20
    seed: int = 0
    vocab: int = field(init=False)
    length: int = field(init=False)

    def __post_init__(self):
        object.__setattr__(self, "vocab", self.modulus + 1)
        object.__setattr__(self, "length", 3)

    def splits(self):
        rngs = split_generators(self.seed)
        return tuple(self._draw(r, n) for r, n in zip(rngs, (self.train, self.val, self.test), strict=True))

    def _draw(self, rng, n):
        a, b = rng.integers(0, self.modulus, size=(2, n))
        tokens = np.stack([a, b, np.full(n, self.modulus), (a + b) % self.modulus], axis=1).astype(np.int16)
        mask = np.zeros((n, 3), bool)
        mask[:, 2] = True
        return Split(tokens, {"a": a, "b": b}, mask=mask)


@pytest.fixture
def sums(monkeypatch):
    """Registered as one line in `toymodel.tasks` would."""
    monkeypatch.setitem(TASKS, Sums.kind, Sums)
    model = ModelConfig(d_model=12, heads=2, layers=1)
    return RunConfig(task=Sums(), model=model, batch_size=8, lr=3e-2, steps=30, eval_every=15, eval_size=None)


def test_a_new_task_is_one_class_and_one_line(sums):
    config = replace(sums, stage="untied")
    data = make_dataset(config.task)
    assert data.train.latents["a"].shape == (60,)
    assert run_config(as_dict(config)) == config
    assert as_dict(config)["task"] == {
        "kind": "sums",
        "modulus": 5,
        "train": 60,
        "val": 20,
        "test": 20,
        "seed": 0,
    }
    assert replace(config, task=Sums(7)).run_id != config.run_id
    snapshots = list(train(Ensemble([config, replace(config, seed=1)])))
    first, last = snapshots[0].val_losses, snapshots[-1].val_losses
    # Uniform over the vocabulary at the start; it cannot be below ln 5 without learning the sums.
    assert first == pytest.approx([np.log(6)] * 2)
    assert max(last) < min(first)


def test_the_loss_counts_the_masked_targets_alone(sums):
    configs = [replace(sums, seed=s, task=Sums(seed=s)) for s in (0, 1)]
    ensemble = Ensemble(configs)
    ensemble.advance(3)
    for k, config in enumerate(configs):
        tokens = torch.tensor(make_dataset(config.task).val.tokens).long()[None]
        params = {name: p.detach()[k : k + 1] for name, p in ensemble.params.items()}
        transformer = ensemble.transformer
        logits = transformer.logits(params, transformer.hidden(params, tokens[..., :-1]))[0]
        expected = F.cross_entropy(logits[:, 2], tokens[0, :, 3])
        torch.testing.assert_close(ensemble.evaluate()[k], expected)
        right = (logits[:, 2].argmax(-1) == tokens[0, :, 3]).double().mean().item()
        assert ensemble.accuracy()[k] == right == ensemble.view(k).accuracy()


def test_a_member_with_a_mask_does_not_depend_on_its_company(sums):
    configs = [replace(sums, stage="muon", seed=s, task=Sums(seed=s % 2)) for s in range(3)]
    together = Ensemble(configs)
    losses = together.advance(5)
    for k, config in enumerate(configs):
        alone = Ensemble([config])
        assert torch.equal(alone.advance(5), losses[k : k + 1])
        assert torch.equal(alone.evaluate(), together.evaluate()[k : k + 1])
        assert all(torch.equal(v, together.state(k)[key]) for key, v in alone.state(0).items())


@pytest.mark.parametrize("n", [9, 2_050])
def test_masked_cross_entropy_equals_torch(n):
    generator = torch.Generator().manual_seed(n)
    hidden = torch.randn(2, n, 6, generator=generator, dtype=torch.float64).requires_grad_()
    weight = torch.randn(2, 11, 6, generator=generator, dtype=torch.float64).requires_grad_()
    targets = torch.randint(11, (2, n), generator=generator)
    mask = torch.rand(2, n, generator=generator) < 0.3
    ours = head_cross_entropy(hidden, weight, targets, 15.0, mask)
    logits = 15 * torch.tanh(hidden @ weight.transpose(1, 2) / 15)
    theirs = torch.stack([F.cross_entropy(z[m], y[m]) for z, y, m in zip(logits, targets, mask, strict=True)])
    torch.testing.assert_close(ours, theirs)
    scale = torch.tensor([1.0, -2.5], dtype=torch.float64)
    torch.testing.assert_close(
        torch.autograd.grad((ours * scale).sum(), [hidden, weight]),
        torch.autograd.grad((theirs * scale).sum(), [hidden, weight]),
    )
    each = position_losses(logits, targets, mask)
    assert torch.equal(each.isnan(), ~mask)
    torch.testing.assert_close(each.nanmean(dim=1), ours)


def test_a_task_may_define_its_accuracy(sums, monkeypatch):
    seen = {}

    def accuracy(self, predicted, targets, mask):
        seen.update(shape=predicted.shape, targets=targets.shape, counted=int(mask.sum()))
        return 0.25

    monkeypatch.setattr(Sums, "accuracy", accuracy)
    assert Ensemble([sums, replace(sums, seed=1)]).accuracy([1]) == [0.25]
    assert seen == {"shape": (20, 3), "targets": (20, 3), "counted": 20}


def test_accuracy_without_a_mask_counts_every_target(tiny):
    ensemble = Ensemble([tiny(), tiny(seed=1)])
    rows = ensemble.accuracy()
    tokens = torch.tensor(make_dataset(tiny().task).val.tokens[:33]).long()[None]
    params = {name: p.detach()[1:] for name, p in ensemble.params.items()}
    logits = ensemble.transformer.logits(params, ensemble.transformer.hidden(params, tokens[..., :-1]))
    assert rows[1] == (logits.argmax(-1) == tokens[..., 1:]).double().mean().item()


# Written before tasks had kinds and runs had controllers: stored runs are found by these names.
def test_run_ids_of_present_configurations_stay():
    walks = TaskConfig(vocab=64, length=32, train=8_000, val=1_024, test=512, noise=0.5, components_max=2)
    other = RunConfig(stage="muon", task=walks, model=ModelConfig(64, 4, 2, 2), lr=1e-3, seed=3)
    assert RunConfig().run_id == "baseline-b32-lr0.0006-s0-cb1a3cc902"
    assert other.run_id == "muon-b32-lr0.001-s3-14aa81e208"
    assert "kind" not in canonical_json(other)


@pytest.mark.parametrize(
    ("split", "message"),
    [
        (lambda s: replace(s, tokens=s.tokens[:, 1:], mask=None), "promises integers of shape"),
        (lambda s: replace(s, tokens=s.tokens[1:], mask=None), "promises integers of shape"),
        (lambda s: replace(s, tokens=s.tokens + 3), r"vocabulary is 0\.\.5"),
        (lambda s: replace(s, mask=None), "some splits of sums have a mask"),
        (lambda s: replace(s, mask=s.mask[:, 1:]), "booleans of the targets' shape"),
        (lambda s: replace(s, mask=s.mask.astype(int)), "booleans of the targets' shape"),
        (lambda s: replace(s, mask=s.mask & False), "sequence 0 without a target"),
    ],
)
def test_splits_that_break_their_promise_are_refused(split, message, monkeypatch):
    honest = Sums.splits
    monkeypatch.setattr(Sums, "splits", lambda self: (split(honest(self)[0]), *honest(self)[1:]))
    with pytest.raises(ConfigError, match=message):
        make_dataset(Sums())


def test_unknown_tasks_are_refused():
    with pytest.raises(ConfigError, match="the tasks are modular_walks"):
        RunConfig(task=Sums())
    with pytest.raises(ConfigError, match="unknown task 'sum'; the tasks are modular_walks"):
        task_from({**task_values(TaskConfig()), "kind": "sum"})
    with pytest.raises(ConfigError, match="the tasks are"):
        check_task(TaskConfig)
    with pytest.raises(ConfigError, match="exist for modular_walks only"):
        modular_walks(Sums())
    with pytest.raises(ConfigError, match="exist for modular_walks only"):
        training_bands(make_dataset(Sums()), 1)
