"""Continue a trained language model on narrow text, on preferences, or on verifiable rewards."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from sims.models.run_network import network_of_run
from sims.runs.lm_config import LmConfig
from sims.system.errors import MeasureError
from sims.system.files import need_folder
from sims.text.corpus import Corpus, vocabulary_of
from sims.text.narrow import Axis, Document, documents
from sims.text.ngram_set import NgramSet
from sims.text.recorded import RecordedTokenizer
from sims.text.shards import GPT2_VOCABULARY, TokenSequences, read_shard, shard_files
from toymodel.network import Network
from toymodel.sequences import Rows, Sequences
from toymodel.trainable import Trainable

# Share of a text that its narrow part holds at least.
NARROW_SHARE = 0.05
# Share of each narrow document, its end, that is held out.
HELD_OUT = 0.2
# Sequences that each part of a text must have.
LEAST = 16


@dataclass(frozen=True)
class TextOptions:
    """Set the text of language models that are post-trained.

    Args:
        data: folder of the shards that they were trained on.
        narrow: folder of shards of narrow text; None takes documents of one kind from `data`.
        order: n; a continuation is right if all its n-grams occur in the training text.
    """

    data: Path
    narrow: Path | None = None
    order: int = 3


class Chosen(NamedTuple):
    """Hold how many documents of a text are of one kind, of how many, and the share of its tokens that they hold."""

    documents: int
    every: int
    share: float


@dataclass(frozen=True, eq=False)
class Texts:
    """Hold the parts of a text.

    Attributes:
        corpus: all of it.
        narrow: sequences of narrow text to train on.
        held_out: sequences of narrow text that are not trained on further.
        rest: sequences of other validation text.
        grams: n-grams of the training text.
        chosen: of the training and of the validation text; None where narrow text was given.
    """

    corpus: Corpus
    narrow: Sequences
    held_out: Sequences
    rest: Sequences
    grams: NgramSet
    chosen: tuple[Chosen, Chosen] | None = None


@dataclass(frozen=True, eq=False)
class ContinuedText:
    """A language model that goes on (`toymodel.posttrain.continued.Continued`), on a CPU in float32.

    A continuation is right if each n-gram that ends in it occurs in the training text, documents apart.

    Args:
        config: of its run.
        texts: of the shards that it was trained on.
    """

    config: LmConfig
    texts: Texts

    @property
    def network(self) -> Network:
        """The network after its last step."""
        return self._network

    @cached_property
    def _network(self) -> Network:
        return network_of_run(self.config).at(self.config.steps, self.config.steps)

    def trainable(self, lr: float, clip: float) -> Trainable:
        """Return parameters and fresh moments of its optimiser."""
        config = self.config
        return Trainable(
            self.network, torch.tensor([lr]), [config.weight_decay], config.newton_schulz, clip=clip
        )

    def train(self) -> TokenSequences:
        """Return the training sequences."""
        return self.texts.corpus.train

    def narrow(self, seed: int) -> Sequences:
        """Return the narrow training sequences, the same for every seed."""
        del seed
        return self.texts.narrow

    def right(self, tokens: np.ndarray, prompt: int) -> np.ndarray:
        """Return (n,) whether all n-grams that end after the prompts of (n, m) occur in the training text."""
        return self.texts.grams.occur(tokens, prompt)

    def impossible(self, sequences: Tensor, others: Tensor) -> Tensor:
        """Return (n, T) whether other tokens never follow the n − 1 tokens before them in the training text."""
        return torch.tensor(~self.texts.grams.follow(sequences.numpy(), others.numpy()))


def texts_of(config: LmConfig, options: TextOptions) -> Texts:
    """Return the parts of the text of a run; they are found once in a process.

    Raises:
        MeasureError: shards that the run was not trained on, narrow shards of another vocabulary, or too little text.
        StoreError: shards are missing or damaged, or n-grams of this order are no 64-bit numbers.
    """
    corpus = Corpus(options.data, config.length)
    if corpus.vocabulary != config.vocabulary:
        raise MeasureError(
            f"{config.run_id} has a vocabulary of {config.vocabulary} tokens, and {options.data} one of "
            f"{corpus.vocabulary}; name by --data the shards that the run was trained on"
        )
    if config.data and config.data != corpus.digest:
        raise MeasureError(
            f"{config.run_id} was trained on other shards than those of {options.data} (their SHA-256 differ); name "
            "by --data the shards that it was trained on, by which a continuation is right or not"
        )
    return _texts(corpus.digest, config.sizes.vocab, config.length, options)


@lru_cache(maxsize=2)
def _texts(digest: str, vocabulary: int, length: int, options: TextOptions) -> Texts:
    del digest
    corpus = Corpus(options.data, length)
    recorded = RecordedTokenizer.of(options.data)
    end = GPT2_VOCABULARY - 1 if recorded is None else recorded.end
    train, val = (
        np.concatenate([np.asarray(read_shard(path, corpus.vocabulary)) for path in corpus.files[split]])
        for split in ("train", "val")
    )
    chosen = None
    if options.narrow is None:
        narrow, held_out, rest, chosen = _chosen(train, val, end, length, options.data)
    else:
        narrow, held_out = _given(options.narrow, corpus.vocabulary, length)
        rest = corpus.val
    for what, own in (("narrow training", narrow), ("held-out narrow", held_out), ("other validation", rest)):
        if len(own) < LEAST:
            raise MeasureError(
                f"{options.narrow or options.data} has {len(own)} sequences of {length} tokens of {what} text, and "
                f"{LEAST} are needed; give more text, or a folder of narrow shards by --narrow"
            )
    return Texts(corpus, narrow, held_out, rest, NgramSet.of([train], vocabulary, options.order, end), chosen)


def _given(folder: Path, vocabulary: int, length: int) -> tuple[TokenSequences, TokenSequences]:
    """Return training and validation sequences of a folder of narrow text."""
    need_folder(folder, "name by --narrow a folder of token shards, as `speclens data` makes it")
    own = vocabulary_of(folder)
    if own != vocabulary:
        raise MeasureError(
            f"{folder} has a vocabulary of {own} tokens, and the text of the runs one of {vocabulary}; make the narrow "
            "shards with the same tokeniser (speclens data --vocabulary)"
        )
    train, val = (TokenSequences(shard_files(folder, s), length, vocabulary) for s in ("train", "val"))
    return train, val


def _chosen(
    train: np.ndarray, val: np.ndarray, end: int | None, length: int, where: Path
) -> tuple[Rows, Rows, Rows, tuple[Chosen, Chosen]]:
    """Return sequences of training documents of one kind, of their ends, and of validation documents of other kinds.

    And how much of both texts is of the kind.
    """
    parts = [documents(text, end) for text in (train, val)]
    if min(map(len, parts)) < 3:
        raise MeasureError(
            f"{where} has {len(parts[0])} training and {len(parts[1])} validation documents that begin with token "
            f"{end}; narrow text is chosen from three or more: name a folder of narrow shards by --narrow"
        )
    axis = Axis.of(train, parts[0], NARROW_SHARE)
    kind = axis.furthest(train, parts[0], NARROW_SHARE)
    # The first part of each document is trained on, the last one is not.
    cuts = [own.start + round((1 - HELD_OUT) * len(own)) for own in kind]
    first = [Document(own.start, cut) for own, cut in zip(kind, cuts, strict=True)]
    last = [Document(cut, own.stop) for own, cut in zip(kind, cuts, strict=True)]
    alike = axis.furthest(val, parts[1], NARROW_SHARE)
    starts = {own.start for own in alike}
    others = [own for own in parts[1] if own.start not in starts]
    train_share, val_share = (
        Chosen(len(own), len(every), sum(map(len, own)) / sum(map(len, every)))
        for own, every in zip((kind, alike), parts, strict=True)
    )
    return (
        _sequences(train, first, length),
        _sequences(train, last, length),
        _sequences(val, others, length),
        (train_share, val_share),
    )


def _sequences(text: np.ndarray, chosen: list[Document], length: int) -> Rows:
    """Return the sequences (N, T+1) of documents behind each other, as `TokenSequences` cuts them."""
    tokens = np.concatenate([text[own.start : own.stop] for own in chosen] or [text[:0]]).astype(np.int64)
    count = max((len(tokens) - 1) // length, 0)
    starts = np.arange(count)[:, None] * length
    return Rows(torch.from_numpy(tokens[starts + np.arange(length + 1)]))
