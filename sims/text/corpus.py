"""The text of a run: the sequences of each step, and a check that the files have not changed."""

from __future__ import annotations

import hashlib
import json
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sims.system.errors import StoreError
from sims.system.hashing import sha256_of_version
from sims.text.recorded import RecordedTokenizer
from sims.text.shards import GPT2_VOCABULARY, TokenSequences, shard_files

SPLITS = ("train", "val")
ORDER_STREAM = 2


def vocabulary_of(folder: Path) -> int:
    """Return the vocabulary size recorded in a folder of shards, GPT-2's if none is."""
    recorded = RecordedTokenizer.of(folder)
    return GPT2_VOCABULARY if recorded is None else recorded.vocabulary


class Corpus:
    """Training and validation sequences of a folder of shards.

    Each pass over the training sequences has its own random order. The sequences of a step depend only on seed and
    step, not on the number of ranks or on interruptions.

    Args:
        folder: has shards with "train" and with "val" in their names.
        length: inputs per sequence.
        seed: of the order.

    Raises:
        StoreError: shards are missing, not all made, damaged or of another vocabulary, or hold no sequence of this
            length.
    """

    def __init__(self, folder: Path, length: int, seed: int = 0) -> None:
        self.files = {split: shard_files(folder, split) for split in SPLITS}
        recorded = RecordedTokenizer.of(folder)
        if recorded is not None and not recorded.complete:
            raise StoreError(f"{folder} is not complete; repeat the command that makes it first")
        self.vocabulary = vocabulary_of(folder)
        self.train, self.val = (TokenSequences(self.files[s], length, self.vocabulary) for s in SPLITS)
        self.seed = seed
        self._seen = self._stats()
        self._order: tuple[int, np.ndarray] | None = None

    @cached_property
    def facts(self) -> list[dict[str, Any]]:
        """File, split, bytes and SHA-256 of every shard; each file is hashed once per process."""
        return [
            {
                "file": p.name,
                "split": split,
                "bytes": self._seen[p][0],
                "sha256": sha256_of_version(p, *self._seen[p]),
            }
            for split, files in self.files.items()
            for p in files
        ]

    @property
    def digest(self) -> str:
        """SHA-256 of `facts`."""
        return hashlib.sha256(json.dumps(self.facts, sort_keys=True).encode()).hexdigest()

    def _stats(self) -> dict[Path, tuple[int, int]]:
        try:
            found = {p: p.stat() for files in self.files.values() for p in files}
        except OSError as error:
            raise StoreError(
                f"{error.filename} is gone while a run reads it; put the shards back and run the same command again"
            ) from error
        return {p: (s.st_size, s.st_mtime_ns) for p, s in found.items()}

    def check(self) -> None:
        """Check that no shard has changed since it was opened.

        Raises:
            StoreError: one has; the message names the first.
        """
        for path, now in self._stats().items():
            if now != self._seen[path]:
                raise StoreError(
                    f"{path} has changed while a run reads it; put the old file back and run the same command again, "
                    "or begin a new run with another --out"
                )

    def batch(self, step: int, batch_size: int, part: slice) -> torch.Tensor:
        """Return the sequences (n, T+1) of one step.

        Args:
            step: index of the step, from 0.
            batch_size: sequences of a whole step.
            part: slice of them to return.
        """
        places = np.arange(batch_size)[part] + step * batch_size
        passes, within = np.divmod(places, len(self.train))
        chosen = np.empty(len(places), np.int64)
        for number in np.unique(passes):
            here = passes == number
            chosen[here] = self._pass(int(number))[within[here]]
        return self.train.take(chosen)

    def _pass(self, number: int) -> np.ndarray:
        """Return the order of all training sequences in one pass."""
        if self._order is None or self._order[0] != number:
            stream = np.random.SeedSequence(self.seed, spawn_key=(ORDER_STREAM, number))
            self._order = (number, np.random.default_rng(stream).permutation(len(self.train)))
        return self._order[1]


def changed(recorded: list[dict[str, Any]], found: list[dict[str, Any]]) -> str | None:
    """Describe the first difference between recorded and present shards; None if they are equal."""
    before, now = ({f["file"]: f for f in facts} for facts in (recorded, found))
    if missing := [name for name in before if name not in now]:
        return f"{missing[0]} is missing"
    if new := [name for name in now if name not in before]:
        return f"{new[0]} is new"
    for name, facts in before.items():
        if facts != now[name]:
            had, has = (f"{f['bytes']} bytes, SHA-256 {f['sha256'][:12]}…" for f in (facts, now[name]))
            return f"{name} had {had}, and has {has}"
    return None
