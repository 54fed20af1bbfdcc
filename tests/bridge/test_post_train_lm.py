"""Post-training of language models: plain steps are the trainer's own, rewards and pairs follow the training text."""

import json
import math
import shutil
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from training_runs import VOCABULARY, learner_of, make_shards, run_of, same, small_config

from sims import cli
from sims.runs.lm_config import LmConfig
from sims.runs.store import RunFolder, run_folders
from sims.runs.tensors import load_tensors
from sims.studies.post_train import measured
from sims.studies.post_train.measured import all_items, measure_item, post_data, settings_of
from sims.studies.post_train.signals import check_signals
from sims.studies.post_train.sources import Plan, fit_runs
from sims.studies.post_train.words import words_of
from sims.system.errors import MeasureError, StoreError
from sims.text.corpus import Corpus
from sims.text.shards import read_shard
from sims.training.post_training import ContinuedText, TextOptions, texts_of
from toymodel.errors import ConfigError
from toymodel.posttrain import continued
from toymodel.posttrain.config import KINDS, PostTraining
from toymodel.posttrain.continued import (
    STREAM,
    Signal,
    as_params,
    draw_pairs,
    objective_of,
    signal_of,
    train_further,
)

END = 0
OWN = {"steps": 3, "batch_size": 8, "samples": 4, "pairs": 16, "prompt": 3, "length": 3, "lr": 1e-3}
SMALL = Plan(sequences=80, prompts=2, samples=256, band_sequences=8)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Walks in which token 0 begins a document, and two runs on them that have learned to go on by one."""
    folder = make_shards(tmp_path_factory.mktemp("lm") / "shards", train=24_000, val=6_000)
    record = {"tokenizer": {"vocabulary": VOCABULARY, "end": END}}
    (folder / "data.json").write_text(json.dumps(record))
    for seed in (0, 1):
        config = small_config("rope", seed=seed, checkpoints=(1.0,), tokens=7_680, lr=5e-3)
        run_of(config, folder, folder.parent / "runs").go()
    return folder


@pytest.fixture(scope="module")
def runs(made):
    return made.parent / "runs"


@pytest.fixture(scope="module")
def going(made, runs):
    """A run that goes on, and its last weights."""
    folder = run_folders(runs)[0]
    model = ContinuedText(folder.spec, texts_of(folder.spec, TextOptions(made)))  # pyright: ignore
    return model, load_tensors(folder.checkpoints()[-1], folder.spec)[1]


class Drawn(Corpus):
    """A corpus whose steps have the sequences that post-training draws."""

    def __init__(self, folder, length, own):
        super().__init__(folder, length)
        self.draws = np.random.default_rng(np.random.SeedSequence(own.seed, spawn_key=(STREAM,)))

    def batch(self, step, batch_size, part):
        return self.train.take(self.draws.integers(0, len(self.train), batch_size))[part]


@pytest.mark.parametrize("stage", ["rope", "muon", "untied"])
def test_plain_steps_are_those_of_the_trainer_to_the_last_bit(stage, made):
    # Without clipping and ramps both are the same updates from fresh moments.
    config = small_config(stage, warmup=0, warmdown=0, lr=OWN["lr"])
    own = PostTraining("plain", **OWN, clip=1e9)
    trainer = learner_of(config, made, corpus=Drawn(made, config.length, own))
    before = trainer.weights()
    for _ in range(own.steps):
        trainer.gradients()
        trainer.update()
    model = ContinuedText(config, texts_of(config, TextOptions(made)))
    after = train_further(model, before, own)
    assert same(after, trainer.weights())
    assert not same(after, before)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_repeats_to_the_last_bit(kind, going):
    model, weights = going
    seen: list[float] = []
    own = PostTraining(kind, **OWN)
    one = train_further(model, weights, own, lambda _, loss: seen.append(loss))
    assert same(one, train_further(model, weights, own))
    assert not same(one, weights)
    assert not same(one, train_further(model, weights, replace(own, seed=1)))
    if kind == "dpo":
        # Nothing tells the model from the reference yet.
        assert seen[0] == pytest.approx(math.log(2), abs=1e-6)
        assert seen[-1] < seen[0]


def trigrams(made):
    """What followed each pair of tokens in the training text, within a document."""
    shards = sorted(made.glob("*train*.bin"))
    text = np.concatenate([read_shard(path, VOCABULARY) for path in shards]).tolist()
    found: dict[tuple[int, ...], set[int]] = {}
    for i in range(1, len(text)):
        pair = (text[i - 1],) if text[i - 1] == END or i == 1 else (text[i - 2], text[i - 1])
        found.setdefault(pair, set()).add(text[i])
    return found


def follows(found, before, token):
    return token in found.get((before[1],) if before[1] == END else tuple(before), set())


def test_pairs_and_rewards_follow_the_trigrams_of_the_training_text(made, going):
    model, weights = going
    found = trigrams(made)
    sequences = model.train().take(range(12))
    pairs = draw_pairs(model, as_params(weights), sequences, torch.Generator().manual_seed(0))
    assert pairs.counted.any()
    assert not pairs.counted[:, 0].any()
    for i, row in enumerate(sequences.tolist()):
        for t in range(1, len(row) - 1):
            wrong = int(pairs.wrong[i, t])
            assert wrong != row[t + 1]
            assert bool(pairs.counted[i, t]) != follows(found, row[t - 1 : t + 1], wrong)
    # Training text is right; with a token changed it is right where all three trigrams occur.
    rows = np.concatenate([sequences[:, :6].numpy()] * 20)
    changed = np.random.default_rng(0).integers(0, VOCABULARY, len(rows))
    rows[12:, 3] = np.where(changed[12:] < 50, changed[12:], rows[12:, 3])
    expected = [all(follows(found, row[t - 2 : t], row[t]) for t in range(3, 6)) for row in rows.tolist()]
    assert model.right(rows, 3).tolist() == expected
    assert all(expected[:12])
    assert not all(expected)


def test_narrow_text_is_a_part_of_the_training_text_and_its_ends_are_held_out(made, going):
    model, _ = going
    texts = model.texts
    narrow, held_out = (own.take(range(len(own))).tolist() for own in (texts.narrow, texts.held_out))
    total = len(model.train())
    assert 0.03 * total < len(narrow) + len(held_out) < 0.3 * total
    assert len(held_out) < len(narrow)
    assert len(texts.rest) < len(texts.corpus.val)
    trained, left_out = texts.chosen
    for own in (trained, left_out):
        assert 0.05 <= own.share < 0.3
        assert 0 < own.documents < own.every
    assert trained.share == pytest.approx((len(narrow) + len(held_out)) / total, rel=0.05)
    assert left_out.share == pytest.approx(1 - len(texts.rest) / len(texts.corpus.val), abs=0.05)
    words = words_of(model.config, PostTraining("plain"), SMALL, TextOptions(made))
    assert f"{trained.documents} of {trained.every} documents, {100 * trained.share:.1f} %" in words.narrow
    assert f"{100 * left_out.share:.1f} % of the validation text" in words.narrow


@pytest.fixture
def quick(monkeypatch):
    """Few steps and samples."""
    small = tuple(PostTraining(kind, **OWN) for kind in KINDS)
    monkeypatch.setattr(measured, "settings_of", lambda *_: small)
    monkeypatch.setattr(measured, "TEXT_PLAN", SMALL)


@pytest.mark.slow
def test_the_command_measures_every_kind_once(made, runs, tmp_path, quick, capsys, monkeypatch, undrawn):
    shutil.copytree(runs, tmp_path / "runs")
    line = ["post-train", "--runs", str(tmp_path / "runs"), "--data", str(made), "--workers", "1", "--json"]
    assert cli.main([*line, "--dry-run"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert len(told["runs"]) == 2
    assert 0 < told["seconds"] < 600
    assert not list((tmp_path / "runs").glob("*/measured/*"))
    assert cli.main(line) == 0
    found = json.loads(capsys.readouterr().out)
    assert {claim["outcome"] for claim in found["claims"]} == {"not resolved"}
    assert all("2 seeds" in claim["reason"] for claim in found["claims"])
    levels = {row["quantity"] for row in found["levels"]}
    assert {
        "rankme",
        "rankme_without",
        "alpha_req",
        "val_loss",
        "narrow_loss",
        "rest_loss",
        "pass@256",
    } <= levels
    assert "accuracy" not in levels
    text = (tmp_path / "runs" / "page" / "index.html").read_text(encoding="utf-8")
    assert "each 3-gram that ends in it" in text
    assert "Which directions" not in text
    # What was measured is kept; another order of n-grams, or other shards, are measured anew.
    monkeypatch.setattr(measured, "train_further", lambda *_: pytest.fail("trained twice"))
    items, _ = all_items(tmp_path / "runs", 3, None, TextOptions(made), [])
    kept = {row["quantity"]: row["value"] for row in measure_item(items[-1])}
    values = {row["quantity"]: row for row in found["levels"] if row["arm"] == "rlvr"}
    assert kept.keys() == values.keys()
    with pytest.raises(BaseException, match="trained twice"):
        cli.main([*line, "--order", "2"])


def test_a_folder_of_narrow_shards_that_is_not_there_is_named(made, runs, tmp_path):
    with pytest.raises(StoreError, match=r"gone does not exist; name by --narrow a folder of token shards"):
        all_items(runs, 3, None, TextOptions(made, tmp_path / "gone"), [])


def test_a_folder_of_narrow_shards_takes_the_place_of_chosen_documents(made, runs, tmp_path, quick):
    narrow = make_shards(tmp_path / "narrow", seed=5)
    text = TextOptions(made, narrow, 2)
    notes: list[str] = []
    (first, *_), _ = all_items(runs, 3, None, text, notes)
    numbers = {row["quantity"]: row["value"] for row in measure_item(first)}
    chosen = all_items(runs, 3, None, TextOptions(made, order=2), notes)[0][0]
    other = {row["quantity"]: row["value"] for row in measure_item(chosen)}
    assert numbers["narrow_loss"] != other["narrow_loss"]
    assert {name: numbers[name] for name in ("rankme", "val_loss", "pass@1")} == {
        name: other[name] for name in ("rankme", "val_loss", "pass@1")
    }
    (narrow / "data.json").write_text(json.dumps({"tokenizer": {"vocabulary": 101}}))
    with pytest.raises(MeasureError, match="vocabulary of 101"):
        all_items(runs, 3, None, TextOptions(made, narrow, 4), notes)


def test_what_does_not_fit_is_refused_before_any_work(made, runs, tmp_path, quick, capsys):
    assert cli.main(["post-train", "--runs", str(runs)]) == 2
    assert "is a language model; name by --data" in capsys.readouterr().err
    other = make_shards(tmp_path / "other", train=24_000, seed=3)
    with pytest.raises(MeasureError, match="trained on other shards"):
        all_items(runs, 3, None, TextOptions(other), [])
    (other / "data.json").write_text(json.dumps({"tokenizer": {"vocabulary": 99}}))
    with pytest.raises(Exception, match="vocabulary"):
        all_items(runs, 3, None, TextOptions(other), [])
    with pytest.raises(MeasureError, match="lower --order"):
        all_items(runs, 3, None, TextOptions(made, order=5), [])
    for bad in (["--order", "1"], ["--order", "4"], ["--narrow", str(made)]):
        with pytest.raises(SystemExit):
            raise SystemExit(cli.main(["post-train", "--runs", str(runs), *bad]))
        assert capsys.readouterr().err
    with pytest.raises(SystemExit):
        raise SystemExit(cli.main(["post-train", "--data", str(made)]))
    with pytest.raises(ConfigError, match="longer than the 17 tokens"):
        PostTraining("rlvr", length=15).check_length(16)


def test_short_texts_and_texts_of_one_document_are_refused(made, tmp_path):
    short = make_shards(tmp_path / "short", train=1_500, val=300)
    shutil.copy(made / "data.json", short)
    config = small_config("rope")
    with pytest.raises(MeasureError, match=r"narrow .*text, and 16 are needed"):
        texts_of(config, TextOptions(short))
    (short / "data.json").write_text(json.dumps({"tokenizer": {"vocabulary": VOCABULARY, "end": None}}))
    with pytest.raises(MeasureError, match="0 training and 0 validation documents"):
        texts_of(config, TextOptions(short, order=2))


@pytest.mark.slow
def test_runs_of_other_kinds_and_without_end_are_told_apart(made, runs, tmp_path):
    shutil.copytree(runs, tmp_path / "runs")
    first = run_folders(tmp_path / "runs")[0]
    (first.path / "done.json").unlink()
    notes: list[str] = []
    assert [folder.path.name for folder, _ in fit_runs(tmp_path / "runs", notes)] != [first.path.name]
    assert notes == [f"{first.path.name} was left out: it is not complete."]
    run_of(small_config("rope", seed=1, lr=1e-3, checkpoints=(1.0,)), made, tmp_path / "runs").go()
    with pytest.raises(MeasureError, match="several runs of stage rope, seed 1"):
        fit_runs(tmp_path / "runs", [])
    run_of(small_config("rope", seed=2, tokens=7_680, checkpoints=(1.0,)), made, tmp_path / "twice").go()
    shutil.copytree(
        RunFolder(run_folders(runs)[1].path).path, tmp_path / "twice" / run_folders(runs)[1].path.name
    )
    with pytest.raises(MeasureError, match="differ in lr"):
        fit_runs(tmp_path / "twice", [])


class Allowing:
    """A model whose rule is another one."""

    def __init__(self, model, possible, right):
        self.model, self.possible, self.answer = model, possible, right

    def __getattr__(self, name):
        return getattr(self.model, name)

    def impossible(self, sequences, others):
        return torch.full(others.shape, not self.possible)

    def right(self, tokens, prompt):
        # None: by the prompt alone.
        odd = tokens[:, :prompt].sum(axis=1) % 2 == 1
        return odd if self.answer is None else np.full(len(tokens), self.answer)


def test_preferences_and_rewards_that_would_train_nothing_are_refused(going, monkeypatch):
    monkeypatch.setattr(continued, "SAMPLES", 64)
    model, weights = going
    both = [PostTraining(kind, **OWN) for kind in ("dpo", "rlvr")]
    found = signal_of(model, weights, both)
    assert found == signal_of(model, weights, both)
    # Those that training has: 16 sequences with 16 positions; of which the first has read too little.
    assert found.pairs == 256
    assert found.counted == int(objective_of(model, weights, both[0]).pairs.counted.sum()) > 0  # pyright: ignore
    assert (found.samples, found.prompts) == (64, 16)
    assert 0 < found.mixed <= 16
    check_signals({"one": found}, 3)
    for possible, right, message in (
        (True, True, "0 of 256 pairs of one count: .* raise --order"),
        (False, True, "64 of 64 samples of one before .* raise --order"),
        (False, False, "0 of 64 samples of one before .* lower --order"),
        (False, None, "samples of one before .*, and 0 of 16 prompts have right and wrong ones; .* --order"),
    ):
        changed: Any = Allowing(model, possible, right)
        with pytest.raises(MeasureError, match=message):
            check_signals({"one": signal_of(changed, weights, both)}, 3)
    changed = Allowing(model, True, True)
    with pytest.raises(ConfigError, match="0 of 256 pairs of dpo count"):
        train_further(changed, weights, both[0])


def test_what_trains_nothing_is_refused_before_any_post_training(made, runs, quick, monkeypatch):
    items, own = all_items(runs, 3, None, TextOptions(made), [])
    monkeypatch.setattr(measured, "signal_item", lambda *_, **__: Signal(9, 0, 512, 99, 64, 40))
    monkeypatch.setattr(measured, "measure_item", lambda _: pytest.fail("worked"))
    with pytest.raises(MeasureError, match="0 of 9 pairs"):
        post_data(items, own, [], 1, lambda *_: None)


def test_runs_of_several_learning_rates_need_one_that_is_given(made, runs, quick, monkeypatch):
    fit = fit_runs(runs, [])
    (first, config), (second, other) = fit
    assert isinstance(other, LmConfig)
    unlike = [(first, config), (second, replace(other, lr=0.01))]
    monkeypatch.setattr(measured, "fit_runs", lambda *_: unlike)
    with pytest.raises(MeasureError, match=r"learning rate 0.005 and .* at 0.01; .* set it by --lr"):
        all_items(runs, 3, None, TextOptions(made), [])
    assert all_items(runs, 3, 1e-3, TextOptions(made), [])[1]


def test_settings_of_language_models_follow_their_learning_rate():
    config = small_config("rope", lr=2e-3)
    assert {own.lr for own in settings_of(5, None, config)} == {2e-4}
    assert {own.lr for own in settings_of(5, 1e-3, config)} == {1e-3}
    assert {own.steps for own in settings_of(5, None, config)} == {5}
