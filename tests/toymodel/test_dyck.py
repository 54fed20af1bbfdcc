"""Bracket strings: their law against an enumeration of all of them, depths by plain counting, splits, and training."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from toymodel import ConfigError, DyckDepth, Ensemble, ModelConfig, RunConfig, Split, make_dataset
from toymodel.config import as_dict, run_config
from toymodel.tasks.dyck import draw_strings


def enumerated(pairs, rise):
    """Every string of up to so many pairs and its probability, by following each choice."""
    law = Counter()

    def follow(text, size, opened, probability):
        closed = len(text) - opened
        if closed == size:
            law[text] += probability / pairs
        elif opened == size:
            follow(text + ")", size, opened, probability)
        elif opened == closed:
            follow(text + "(", size, opened + 1, probability)
        else:
            follow(text + "(", size, opened + 1, probability * rise)
            follow(text + ")", size, opened, probability * (1 - rise))

    for size in range(1, pairs + 1):
        follow("", size, 0, 1.0)
    return law


def spelled(row):
    """The string of a row, whose padding is at its end."""
    text = "".join("_()"[t] for t in row).rstrip("_")
    assert "_" not in text
    return text


def test_strings_follow_the_law():
    law = enumerated(4, 0.55)
    # The Catalan numbers 1, 2, 5, 14.
    assert len(law) == 22
    assert sum(law.values()) == pytest.approx(1)
    drawn = Counter(map(spelled, draw_strings(np.random.default_rng(0), 20_000, 4, 0.55)))
    assert set(drawn) == set(law)
    expected = [20_000 * law[text] for text in law]
    assert stats.chisquare([drawn[text] for text in law], expected).pvalue > 1e-3


tasks = st.builds(
    DyckDepth,
    pairs=st.integers(6, 14),
    rise=st.floats(0.3, 0.7),
    train=st.integers(1, 40),
    val=st.integers(1, 30),
    test=st.integers(1, 30),
    seed=st.integers(0, 2**31),
)


@settings(deadline=None)
@given(tasks)
def test_classes_are_depths_and_no_string_of_training_is_tested(task):
    data = make_dataset(task)
    assert data.overlap == data.test_overlap == 0
    for split, size in ((data.train, task.train), (data.val, task.val), (data.test, task.test)):
        assert split.inputs.shape == (size, 2 * task.pairs)
        assert (split.tokens[:, -1] == 0).all()
        for row, depths, counted in zip(split.inputs, split.targets, split.mask, strict=True):
            text = spelled(row)
            assert counted.tolist() == [i < len(text) for i in range(task.length)]
            depth = 0
            for i, bracket in enumerate(text):
                depth += 1 if bracket == "(" else -1
                assert depths[i] == depth >= 0
            assert depth == 0
            assert 1 <= len(text) // 2 <= task.pairs
    assert run_config(as_dict(RunConfig(task=task, batch_size=1, eval_size=None))).task == task


def test_the_size_of_a_split_changes_no_other():
    few, many = DyckDepth(val=10).splits(), DyckDepth(val=500).splits()
    assert (few[0].tokens == many[0].tokens).all()
    assert (few[2].tokens == many[2].tokens).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pairs": 1}, "pairs is 1; it must be from 2 to 64"),
        ({"pairs": 65}, "pairs is 65"),
        ({"train": 0}, "train is 0; it must be at least 1"),
        ({"val": 1.5}, "val is 1.5; pass an integer"),
        ({"rise": 1.0}, "rise is 1.0; it is a probability"),
        ({"rise": float("nan")}, "rise is nan"),
        ({"rise": np.complex64(0.5)}, "it is a probability"),
        ({"seed": -1}, "seed is -1; it must be at least 0"),
    ],
)
def test_bad_settings_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        DyckDepth(**changes)


def test_strings_that_training_has_used_up_are_an_error():
    with pytest.raises(
        ConfigError, match="of 20 validation strings outside training; raise pairs or lower train"
    ):
        DyckDepth(pairs=2, train=200, val=20).splits()


TASK = DyckDepth(pairs=5, train=30, val=40, test=10)
RUN = RunConfig(
    task=TASK, model=ModelConfig(12, 2, 1), batch_size=10, lr=1e-2, steps=12, eval_every=6, eval_size=None
)


def test_losses_and_accuracies_are_of_the_classes(monkeypatch):
    # In parts that count unequal numbers of targets.
    monkeypatch.setattr("toymodel.ensemble.TOKENS_AT_ONCE", {"cpu": 7 * TASK.length})
    configs = [RUN, replace(RUN, seed=1, task=replace(TASK, seed=3))]
    ensemble = Ensemble(configs)
    ensemble.advance(12)
    for k, config in enumerate(configs):
        data = make_dataset(config.task)
        params = {name: p.detach()[k : k + 1] for name, p in ensemble.params.items()}
        network = ensemble.transformer
        for split in ("val", "train"):
            own = getattr(data, split)
            logits = network.logits(params, network.hidden(params, torch.tensor(own.inputs).long()[None]))[0]
            targets, mask = torch.tensor(own.targets).long(), torch.tensor(own.mask)
            right = logits.argmax(-1) == targets
            assert ensemble.accuracy([k], split) == [right[mask].double().mean().item()]
            assert ensemble.exact([k], split) == [(right | ~mask).all(dim=1).double().mean().item()]
            loss = F.cross_entropy(logits[mask], targets[mask])
            assert ensemble.scores([k], split)[0].loss == pytest.approx(loss.item(), rel=1e-5)
            if split == "val":
                torch.testing.assert_close(ensemble.evaluate()[k], loss)


@pytest.mark.parametrize("stage", ["baseline", "untied"])
def test_a_member_with_classes_does_not_depend_on_its_company(stage):
    configs = [replace(RUN, stage=stage, seed=s, task=replace(TASK, seed=s % 2)) for s in range(3)]
    together = Ensemble(configs)
    losses = together.advance(5)
    for k, config in enumerate(configs):
        alone = Ensemble([config])
        assert torch.equal(alone.advance(5), losses[k : k + 1])
        assert torch.equal(alone.evaluate(), together.evaluate()[k : k + 1])
        assert all(torch.equal(v, together.state(k)[key]) for key, v in alone.state(0).items())


@pytest.mark.parametrize(
    ("split", "message"),
    [
        (lambda s: replace(s, labels=s.labels[:, 1:]), "pass integers of shape"),
        (lambda s: replace(s, labels=s.labels.astype(float)), "the labels are float64"),
        (lambda s: replace(s, labels=s.labels + 7), r"has labels 7\.\."),
        (lambda s: replace(s, labels=None), "some splits of dyck_depth have labels and others none"),
    ],
)
def test_labels_that_break_the_promise_are_refused(split, message, monkeypatch):
    honest = DyckDepth.splits
    monkeypatch.setattr(DyckDepth, "splits", lambda self: (split(honest(self)[0]), *honest(self)[1:]))
    with pytest.raises(ConfigError, match=message):
        make_dataset(TASK)


def test_labels_are_part_of_what_a_data_set_is_known_by():
    tokens = np.array([[1, 2, 0]], np.int16)
    splits = [Split(tokens, None, labels=np.array([row], np.int16)) for row in ([1, 0], [0, 1])]
    data = make_dataset(TASK)
    digests = {replace(data, train=s).metadata["sha256"] for s in splits}
    assert len(digests) == 2
