"""Modular arithmetic: its tables against plain Python, its splits, random labels, and training on it."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from toymodel import ConfigError, Ensemble, ModelConfig, ModularArithmetic, RunConfig, make_dataset
from toymodel.config import as_dict, run_config

PRIMES = [3, 5, 7, 11, 13]
PLAIN = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "x2+y2": lambda a, b: a * a + b * b,
    "x2+xy+y2": lambda a, b: a * a + a * b + b * b,
    "x3+xy": lambda a, b: a * a * a + a * b,
}

tasks = st.builds(
    ModularArithmetic,
    p=st.sampled_from(PRIMES),
    op=st.sampled_from(list(PLAIN)),
    fraction=st.floats(0.2, 0.8),
    labels=st.sampled_from(["true", "random"]),
    seed=st.integers(0, 2**31),
)


def rows(*splits):
    return [tuple(row) for split in splits for row in split.tokens.tolist()]


@given(tasks)
def test_training_and_the_rest_are_all_pairs_once(task):
    train, val, test = task.splits()
    first = 1 if task.op == "mul" else 0
    pairs = {(a, b) for a in range(first, task.p) for b in range(first, task.p)}
    seen = rows(train, val)
    assert len(seen) == len(pairs)
    assert {(a, b) for a, b, _ in seen} == pairs
    assert len(train) == task.train == round(task.fraction * len(pairs))
    assert rows(test) == rows(val)
    expected = Counter(PLAIN[task.op](a, b) % task.p for a, b in pairs)
    assert Counter(c for _, _, c in seen) == expected
    if task.labels == "true":
        assert all(c == PLAIN[task.op](a, b) % task.p for a, b, c in seen)


@given(tasks)
def test_a_task_is_its_settings(task):
    config = RunConfig(task=task, batch_size=1, eval_size=None)
    assert run_config(as_dict(config)) == config
    assert sorted(as_dict(config)["task"]) == ["fraction", "kind", "labels", "op", "p", "seed"]
    again, other = make_dataset(task), make_dataset(replace(task, seed=task.seed + 1))
    assert again.metadata == make_dataset(task).metadata
    assert again.overlap == 0
    # 3 residues have few splits.
    assert task.p < 11 or other.metadata["sha256"] != again.metadata["sha256"]


def test_random_labels_keep_their_frequencies_and_lose_the_rule():
    task = ModularArithmetic(p=47, labels="random")
    seen = rows(*task.splits()[:2])
    assert set(Counter(c for *_, c in seen).values()) == {47}
    # Chance is 1/47 = 0.021 of 2,209; the limit is five standard deviations above it.
    assert sum((a + b) % 47 == c for a, b, c in seen) / len(seen) < 0.037
    # The pairs are split as those with true labels are.
    true = ModularArithmetic(p=47).splits()[0].tokens
    assert (task.splits()[0].tokens[:, :2] == true[:, :2]).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"p": 9}, "p is 9; pass a prime number from 3 to 1,009"),
        ({"p": 2}, "p is 2; pass a prime number"),
        ({"p": 1_013}, "p is 1013; pass a prime number"),
        ({"p": 7.0}, "p is 7.0; pass an integer"),
        ({"op": "div"}, "op is 'div'; choose from add, sub, mul"),
        ({"labels": "noisy"}, "labels is 'noisy'; choose"),
        ({"fraction": 0.0}, "fraction is 0.0; it must lie between 0 and 1"),
        ({"fraction": 1}, "fraction is 1.0; it must lie"),
        ({"fraction": 0.001, "p": 5}, "at least one of the 25 pairs"),
        ({"fraction": float("nan")}, "fraction is nan"),
        ({"fraction": "half"}, "fraction is 'half'; pass a number"),
        ({"fraction": np.complex64(0.5)}, "pass a number between 0 and 1"),
        ({"seed": -1}, "seed is -1; it must be at least 0"),
    ],
)
def test_bad_settings_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        ModularArithmetic(**changes)


def config(**changes):
    changes = {"task": ModularArithmetic(p=7), "batch_size": 24, "eval_size": None, **changes}
    return RunConfig("untied", model=ModelConfig(16, 2, 1), lr=1e-2, steps=40, eval_every=20, **changes)


def counted(ensemble, k, tokens):
    """Predictions and results of sequences, by plain code."""
    params = {name: p.detach()[k : k + 1] for name, p in ensemble.params.items()}
    tokens = torch.tensor(tokens).long()[None]
    network = ensemble.transformer
    logits = network.logits(params, network.hidden(params, tokens[..., :-1]))[0, :, 1]
    return logits.argmax(-1) == tokens[0, :, 2]


def test_accuracy_of_both_splits_counts_the_results_alone():
    configs = [config(task=ModularArithmetic(p=7, seed=s), seed=s) for s in (0, 1)]
    ensemble = Ensemble(configs)
    ensemble.advance(40)
    for split in ("val", "train"):
        found = [
            counted(ensemble, k, getattr(make_dataset(c.task), split).tokens).double().mean().item()
            for k, c in enumerate(configs)
        ]
        assert ensemble.accuracy(split=split) == found
        # One target a sequence: exact match is accuracy.
        assert ensemble.exact(split=split) == found
        assert (
            ensemble.view(1).accuracy(split) == ensemble.exact([1], split)[0] == ensemble.view(1).exact(split)
        )
    assert min(ensemble.accuracy(split="train")) > max(ensemble.accuracy())
    with pytest.raises(ConfigError, match="split is 'test'; choose 'val' or 'train'"):
        ensemble.accuracy(split="test")  # type: ignore[arg-type]


def test_training_accuracy_is_of_the_first_sequences(tiny, monkeypatch):
    monkeypatch.setattr("toymodel.ensemble.TRAINING_SEQUENCES", 10)
    ensemble = Ensemble([tiny(), tiny(seed=1)])
    ensemble.advance(3)
    tokens = torch.tensor(make_dataset(tiny().task).train.tokens[:10]).long()[None]
    params = {name: p.detach()[1:] for name, p in ensemble.params.items()}
    logits = ensemble.transformer.logits(params, ensemble.transformer.hidden(params, tokens[..., :-1]))
    right = logits.argmax(-1) == tokens[..., 1:]
    assert ensemble.accuracy([1], "train") == [right.double().mean().item()]
    assert ensemble.exact([1], "train") == [right[0].all(dim=1).double().mean().item()]


def test_exact_match_needs_every_counted_target():
    task = ModularArithmetic(p=7)
    predicted, targets = torch.tensor([[1, 2], [1, 3], [0, 2]]), torch.tensor([[1, 2], [1, 2], [1, 2]])
    assert task.exact(predicted, targets, None) == pytest.approx(1 / 3)
    mask = torch.tensor([[False, True]] * 3)
    assert task.exact(predicted, targets, mask) == pytest.approx(2 / 3)
    assert task.exact(predicted, targets, ~mask) == pytest.approx(2 / 3)
