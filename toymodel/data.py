"""Data sets of a task: its splits, checked, and how far they overlap."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from typing import cast

import numpy as np

from toymodel.errors import ConfigError
from toymodel.task import Split, Task


@dataclass(frozen=True, eq=False)
class Dataset:
    """Hold the three splits of one task.

    Args:
        config: the task.
        train, val, test: the splits, of exactly the configured sizes.
        overlap: share of validation sequences that occur in training, token for token.
        test_overlap: the same for test sequences.

    >>> from toymodel import TaskConfig
    >>> data = make_dataset(TaskConfig(vocab=11, length=8, train=64, val=16, test=16))
    >>> data.config.vocab, len(data.val.tokens)
    (11, 16)
    """

    config: Task
    train: Split
    val: Split
    test: Split
    overlap: float
    test_overlap: float

    @property
    def metadata(self) -> dict[str, int | float | str]:
        """Return sizes, overlaps, share of distinct training sequences, and a SHA-256 over all tokens."""
        digest = hashlib.sha256()
        for split in (self.train, self.val, self.test):
            digest.update(str((split.tokens.shape, split.tokens.dtype.str)).encode())
            digest.update(split.tokens.tobytes())
            if split.labels is not None:
                digest.update(split.labels.tobytes())
        return {
            "vocab": self.config.vocab,
            "length": self.config.length,
            "train": len(self.train),
            "val": len(self.val),
            "test": len(self.test),
            "overlap": self.overlap,
            "test_overlap": self.test_overlap,
            "train_distinct": len(set(sequence_keys(self.train.tokens))) / len(self.train),
            "sha256": digest.hexdigest(),
        }


def make_dataset(task: Task) -> Dataset:
    """Draw the training, validation and test split of a task.

    Raises:
        ConfigError: the task cannot be drawn, or its splits do not have the sizes that it states.

    >>> from toymodel import TaskConfig
    >>> data = make_dataset(TaskConfig(vocab=11, length=8, train=64, val=16, test=16))
    >>> data.train.tokens.shape, data.val.inputs.shape
    ((64, 9), (16, 8))
    """
    train, val, test = task.splits()
    for name, split, size in (
        ("train", train, task.train),
        ("val", val, task.val),
        ("test", test, task.test),
    ):
        _check(task, name, split, size)
    for part, name in (("mask", "a mask"), ("labels", "labels")):
        if len({getattr(split, part) is None for split in (train, val, test)}) > 1:
            raise ConfigError(
                f"some splits of {task.kind} have {name} and others none; give one to all or none"
            )
    seen = set(sequence_keys(train.tokens))
    return Dataset(task, train, val, test, _share(val, seen), _share(test, seen))


@lru_cache(maxsize=16)
def dataset(task: Task) -> Dataset:
    """Return the data set of a task, drawn once for each process."""
    return make_dataset(task)


def split_generators(seed: int) -> tuple[np.random.Generator, np.random.Generator, np.random.Generator]:
    """Return independent generators for training, validation and test: the size of one never changes another.

    >>> train, val, test = split_generators(seed=0)
    >>> float(train.random()) == float(val.random())
    False
    """
    train, val, test = (
        np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(key,))) for key in range(3)
    )
    return train, val, test


def sequence_keys(tokens: np.ndarray) -> list[bytes]:
    """Return each (T+1,) sequence of (n, T+1) contiguous tokens as bytes, for exact comparison."""
    row = np.dtype((np.void, tokens.shape[1] * tokens.itemsize))
    return cast("list[bytes]", tokens.view(row).ravel().tolist())


def _share(split: Split, seen: set[bytes]) -> float:
    return sum(key in seen for key in sequence_keys(split.tokens)) / len(split)


def _check(task: Task, name: str, split: Split, size: int) -> None:
    tokens, shape = split.tokens, (size, task.length + 1)
    if tokens.shape != shape or not np.issubdtype(tokens.dtype, np.integer):
        raise ConfigError(
            f"the {name} split of {task.kind} has {tokens.dtype} tokens of shape {tokens.shape}; the task promises "
            f"integers of shape {shape}"
        )
    for what, values in (("tokens", tokens), ("labels", split.labels)):
        if values is not None and (values.min() < 0 or values.max() >= task.vocab):
            raise ConfigError(
                f"the {name} split of {task.kind} has {what} {values.min()}..{values.max()}; the vocabulary is "
                f"0..{task.vocab - 1}"
            )
