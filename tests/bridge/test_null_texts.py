"""Null texts: what they keep of their shards, what they take away, and which folders are refused."""

import json
import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from training_runs import arguments, make_shards

from sims import cli
from sims.runs.store import run_folders
from sims.system.errors import StoreError
from sims.text.corpus import Corpus, vocabulary_of
from sims.text.nulls import BalancedLabels, build_null
from sims.text.recorded import RecordedTokenizer
from sims.text.shards import read_shard, shard_files, write_shard

V = 64
# Bigrams say much: the next token is, nine times of ten, the same function of the present one.
TRAIN, VAL = (40_000, 20_000), (8_000,)


def made(folder, seed=0, vocabulary=V):
    """Skewed tokens with informative contexts, in two shards of training and one of validation."""
    rng = np.random.default_rng(seed)
    law = np.arange(1, vocabulary + 1) ** -1.0
    follows = rng.permutation(vocabulary)
    folder.mkdir(parents=True)
    for name, n in (*((f"train_{i:06d}", n) for i, n in enumerate(TRAIN, 1)), ("val_000000", VAL[0])):
        tokens = rng.choice(vocabulary, n, p=law / law.sum())
        keeps = rng.random(n) < 0.5
        tokens[1:] = np.where(keeps[1:], follows[tokens[:-1]], tokens[1:])
        write_shard(folder / f"text_{name}.bin", tokens)
    record = {"tokenizer": {"vocabulary": vocabulary, "end": 0, "sha256": {}}}
    (folder / "data.json").write_text(json.dumps(record))
    return folder


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return made(tmp_path_factory.mktemp("text") / "shards")


def tokens_of(folder, split):
    return np.concatenate([read_shard(file, vocabulary_of(folder)) for file in shard_files(folder, split)])


def information(tokens, vocabulary):
    """Mutual information of neighbours in nats, less its bias in independent tokens."""
    joint = np.zeros((vocabulary, vocabulary))
    np.add.at(joint, (tokens[:-1].astype(int), tokens[1:].astype(int)), 1)
    p = joint / joint.sum()
    product = p.sum(1, keepdims=True) * p.sum(0)
    seen = p > 0
    cells = np.count_nonzero(joint.sum(1)) - 1
    return float((p[seen] * np.log(p[seen] / product[seen])).sum()) - cells**2 / (2 * joint.sum())


@pytest.mark.parametrize("kind", ["shuffled", "balanced"])
def test_shards_keep_names_lengths_splits_and_vocabulary_and_are_reproducible(kind, shards, tmp_path):
    build_null(shards, tmp_path / "one", kind, seed=3)
    build_null(shards, tmp_path / "two", kind, seed=3)
    build_null(shards, tmp_path / "other", kind, seed=4)
    for file in shard_files(shards):
        one, two, other = (read_shard(tmp_path / name / file.name, V) for name in ("one", "two", "other"))
        assert len(one) == len(read_shard(file, V))
        np.testing.assert_array_equal(one, two)
        assert (one != other).any()
    record = json.loads((tmp_path / "one" / "data.json").read_text())
    assert (record["null"]["kind"], record["null"]["seed"], record["complete"]) == (kind, 3, True)
    assert set(record["null"]["of"]) == {file.name for file in shard_files(shards)}
    assert vocabulary_of(tmp_path / "one") == V
    assert Corpus(tmp_path / "one", 16).digest != Corpus(shards, 16).digest
    assert Corpus(tmp_path / "one", 16).digest == Corpus(tmp_path / "two", 16).digest


def test_shuffling_keeps_the_counts_of_each_split_and_leaves_no_context(shards, tmp_path):
    build_null(shards, tmp_path / "null", "shuffled")
    for split in ("train", "val"):
        before, after = tokens_of(shards, split), tokens_of(tmp_path / "null", split)
        np.testing.assert_array_equal(np.bincount(before, minlength=V), np.bincount(after, minlength=V))
    train = tokens_of(tmp_path / "null", "train")
    assert information(tokens_of(shards, "train"), V) > 0.3
    assert abs(information(train, V)) < 0.01
    # Over all shards: the first of them has the law of the whole, within five standard errors.
    first = read_shard(shard_files(tmp_path / "null", "train")[0], V)
    p = np.bincount(train, minlength=V) / len(train)
    error = np.sqrt(p * (1 - p) / len(first))
    assert (np.abs(np.bincount(first, minlength=V) / len(first) - p) < 5 * error).all()
    # Nothing of the record says that there are documents.
    record = json.loads((tmp_path / "null" / "data.json").read_text())
    assert {s["documents"] for s in record["shards"]} == {0}


def test_balancing_makes_frequencies_uniform_and_contexts_still_inform(shards, tmp_path):
    build_null(shards, tmp_path / "null", "balanced")
    train, val = (tokens_of(tmp_path / "null", split) for split in ("train", "val"))
    # Five standard errors of a share of 1/V; those of the text itself differ by a factor of 64.
    error = np.sqrt(1 / V / len(train))
    assert np.abs(np.bincount(train, minlength=V) / len(train) - 1 / V).max() < 5 * error
    assert np.abs(np.bincount(val, minlength=V) / len(val) - 1 / V).max() < 0.02
    assert information(train, V) > 0.3
    recorded = RecordedTokenizer.of(tmp_path / "null")
    assert recorded is not None
    assert recorded.said["end"] is None
    with pytest.raises(StoreError, match=r"labels of a null text.*--families without names"):
        recorded.load()


def test_train_and_val_have_the_same_map(shards, tmp_path):
    build_null(shards, tmp_path / "null", "balanced")
    labels = {}
    for split in ("train", "val"):
        before, after = tokens_of(shards, split), tokens_of(tmp_path / "null", split)
        labels[split] = {(a, b) for a, b in zip(before.tolist(), after.tolist(), strict=True)}
    assert labels["val"] <= labels["train"]


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.integers(0, 50), min_size=2, max_size=40).filter(lambda counts: sum(counts) > 0),
    st.integers(0, 2**31),
)
def test_intervals_fill_the_line_and_a_label_overlaps_the_interval_of_its_type(counts, seed):
    labels = BalancedLabels.of(np.array(counts), np.random.default_rng(seed))
    ends = sorted(zip(labels.start, labels.start + labels.share, strict=True))
    assert ends[0][0] == 0
    assert ends[-1][1] == pytest.approx(1)
    covered = 0.0
    for low, high in ends:
        assert low == pytest.approx(covered, abs=1e-12)
        covered = max(covered, high)
    tokens = np.repeat(np.arange(len(counts)), counts)
    found = labels.apply(tokens, np.random.default_rng(seed))
    v = len(counts)
    assert (found < v).all()
    low, high = labels.start[tokens], labels.start[tokens] + labels.share[tokens]
    assert ((found + 1) / v >= low - 1e-9).all()
    assert (found / v <= high + 1e-9).all()
    # A type that was not counted has one label.
    absent = np.flatnonzero(np.array(counts) == 0)
    for token in absent[:2]:
        assert len(set(labels.apply(np.full(5, token), np.random.default_rng(1)).tolist())) == 1


def test_an_interrupted_command_is_repeated_and_a_null_of_a_null_is_recorded(shards, tmp_path):
    build_null(shards, tmp_path / "null", "balanced")
    file = shard_files(tmp_path / "null", "val")[0]
    whole = file.read_bytes()
    file.unlink()
    build_null(shards, tmp_path / "null", "balanced")
    assert file.read_bytes() == whole
    # What is complete is not written again: a run may read it.
    written = file.stat().st_mtime_ns
    assert build_null(shards, tmp_path / "null", "balanced")["complete"]
    assert file.stat().st_mtime_ns == written
    manifest = build_null(tmp_path / "null", tmp_path / "again", "shuffled", seed=1)
    assert manifest["null"]["null"]["kind"] == "balanced"


def refused(tmp_path, message, folder, **more):
    with pytest.raises(StoreError, match=message):
        build_null(folder, more.pop("out", tmp_path / "out"), more.pop("kind", "shuffled"), **more)


def test_folders_that_are_damaged_incomplete_or_foreign_are_refused(shards, tmp_path):
    refused(tmp_path, "does not exist", tmp_path / "nowhere")
    refused(tmp_path, "choose another --out", shards, out=shards)
    refused(tmp_path, "choose shuffled or balanced", shards, kind="uniform")
    refused(tmp_path, "seed is -1", shards, seed=-1)
    cut = shutil.copytree(shards, tmp_path / "cut")
    file = shard_files(cut, "train")[1]
    file.write_bytes(file.read_bytes()[:-100])
    refused(tmp_path, "cut short", cut)
    alone = shutil.copytree(shards, tmp_path / "alone")
    shard_files(alone, "val")[0].unlink()
    refused(tmp_path, "holds no val shard", alone)
    narrow = shutil.copytree(shards, tmp_path / "narrow")
    (narrow / "data.json").write_text(json.dumps({"tokenizer": {"vocabulary": V - 1}}))
    refused(tmp_path, "another tokeniser", narrow)
    begun = shutil.copytree(shards, tmp_path / "begun")
    (begun / "data.json").write_text(json.dumps({"tokenizer": {"vocabulary": V}, "complete": False}))
    refused(tmp_path, "is not complete", begun)
    build_null(shards, tmp_path / "one", "balanced")
    changed = shard_files(tmp_path / "one", "val")[0]
    write_shard(changed, np.zeros(VAL[0], int))
    refused(tmp_path, "missing or damaged", tmp_path / "one")
    # The output folder has another text.
    build_null(shards, tmp_path / "two", "shuffled")
    refused(tmp_path, "holds other data", shards, out=tmp_path / "two", kind="balanced")
    refused(tmp_path, "not from here", shards, out=_bare(shards, tmp_path / "bare"))


def _bare(shards, folder):
    shutil.copytree(shards, folder)
    (folder / "data.json").unlink()
    return folder


def test_shards_of_others_have_the_vocabulary_of_gpt2(shards, tmp_path):
    manifest = build_null(_bare(shards, tmp_path / "bare"), tmp_path / "null", "shuffled")
    assert manifest["tokenizer"] == {"vocabulary": 50_257}


def test_the_command_makes_null_texts_that_train(tmp_path, capsys):
    shards = make_shards(tmp_path / "shards")
    for kind in ("shuffled", "balanced"):
        out = tmp_path / kind
        made_by = [
            "data",
            str(shards),
            "--source",
            "shards",
            "--null",
            kind,
            "--out",
            str(out),
            "--seed",
            "1",
        ]
        assert cli.main(made_by) == 0
        assert "tokens in" in capsys.readouterr().out
    assert cli.main(arguments(tmp_path / "balanced", tmp_path / "runs", "--stage", "rope")) == 0
    assert len(run_folders(tmp_path / "runs")) == 1


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("--source shards", "no --null"),
        ("--source shards --null shuffled --merges 5", "--merges: not for --source shards"),
        ("--source shards --null shuffled --val 0.5", "--val: not for --source shards"),
        ("--null shuffled", "--null: only for --source shards"),
        ("--source shards --null shuffled --seed -1", "--seed is -1"),
        ("other --source shards --null shuffled", "2 folders are given"),
    ],
)
def test_options_that_say_nothing_of_null_texts_are_refused(more, message, shards, capsys):
    assert cli.main(["data", str(shards), *more.split()]) == 2
    assert message in capsys.readouterr().err.replace("\n", " ")
