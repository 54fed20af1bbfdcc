"""Token shards in the format of modded-nanogpt, and nanoGPT's own files without a header.

256 int32 of header (magic, version, number of tokens), then uint16 tokens, all little-endian. nanoGPT's ``train.bin``
and ``val.bin`` are uint16 tokens alone. Shards are memory-mapped: only the tokens that are used are read.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sims.system.errors import StoreError
from sims.system.files import need_folder, visible, write_atomic

if TYPE_CHECKING:
    import torch

MAGIC = 20240520
VERSION = 1
HEADER = 256
HEADER_BYTES = 4 * HEADER
LARGEST = 2**16
# Size of GPT-2's vocabulary; models pad it, but text has no higher token.
GPT2_VOCABULARY = 50257
# Files of nanoGPT, by name: nothing in them says what they are.
HEADLESS = ("train.bin", "val.bin")
# First numbers of files that have a header: of this format, and of llm.c's 32-bit tokens.
_HEADERS = (MAGIC, 20240801)
_CHUNK = 2**24


def write_shard(path: Path, tokens: np.ndarray) -> None:
    """Write one shard atomically.

    Args:
        path: the file, replaced if it exists.
        tokens: (n,) integers from 0 to 65,535, n ≥ 1.

    Raises:
        StoreError: invalid tokens, none or too many, or a file that cannot be written.
    """
    tokens = np.asarray(tokens)
    if tokens.ndim != 1 or tokens.size == 0 or not np.issubdtype(tokens.dtype, np.integer):
        raise StoreError(
            f"tokens of shape {tokens.shape} and type {tokens.dtype} are none; give (n,) integers, n ≥ 1"
        )
    if tokens.min() < 0 or tokens.max() >= LARGEST:
        raise StoreError(
            f"tokens run from {tokens.min()} to {tokens.max()}; a shard holds 0 to {LARGEST - 1}"
        )
    if tokens.size >= 2**31:
        raise StoreError(f"{tokens.size} tokens exceed the int32 of the header; write several shards")
    header = np.zeros(HEADER, "<i4")
    header[:3] = MAGIC, VERSION, tokens.size
    write_atomic(
        path, lambda file: (file.write(header.tobytes()), file.write(tokens.astype("<u2").tobytes()))
    )


def read_shard(path: Path, vocabulary: int = GPT2_VOCABULARY) -> np.ndarray:
    """Memory-map one shard; a file named as nanoGPT names its own has no header where it does not begin with one.

    Args:
        path: the file.
        vocabulary: size of the vocabulary; every token is below it.

    Returns:
        (n,) uint16, read-only and memory-mapped.

    Raises:
        StoreError: missing, truncated, too long, of another kind or version, or with a token outside the vocabulary.
    """
    try:
        found = path.stat()
        header = np.fromfile(path, "<i4", HEADER)
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror}") from error
    size = found.st_size
    if path.name in HEADLESS and not (len(header) and int(header[0]) in _HEADERS):
        return _in_vocabulary(_headless(path, size), path, found, vocabulary)
    if len(header) < HEADER:
        raise StoreError(
            f"{path} has {size} bytes; a token shard begins with {HEADER_BYTES}: it was cut, or is none"
        )
    magic, version, count = (int(v) for v in header[:3])
    if magic != MAGIC:
        raise StoreError(
            f"{path} is no token shard: it begins with {magic}, not {MAGIC}; make one with `speclens data`"
        )
    if version != VERSION:
        raise StoreError(f"{path} is a token shard of version {version}; only version {VERSION} is known")
    if count < 1:
        raise StoreError(f"{path} has {count} tokens by its header, and a shard has at least 1; get it again")
    expected = HEADER_BYTES + 2 * count
    if size != expected:
        what = "cut short" if size < expected else "longer than it says"
        raise StoreError(
            f"{path} is {what}: its header names {count} tokens, {expected} bytes, and it has {size}; get it again"
        )
    tokens = np.memmap(path, "<u2", "r", HEADER_BYTES, (count,))
    return _in_vocabulary(tokens, path, found, vocabulary)


def _headless(path: Path, size: int) -> np.memmap:
    """Map a file of uint16 tokens alone, or refuse one of wider numbers."""
    if size < 2 or size % 2:
        raise StoreError(
            f"{path} has {size} bytes, and begins with no header; nanoGPT's files are 16-bit tokens: it was cut, or is "
            "none"
        )
    tokens = np.memmap(path, "<u2", "r")
    start = tokens[: _CHUNK // 8 * 2].reshape(-1)
    # The upper halves of 32-bit tokens below 2**18.
    if len(start) >= 8 and int(start[1::2].max()) <= 3 < int(start[::2].max()):
        raise StoreError(
            f"{path} begins with no header, and every second of its 16-bit numbers is at most 3: these seem to be "
            "32-bit tokens, which are not read; write them as uint16, or make shards with `speclens data`"
        )
    return tokens


def _in_vocabulary(tokens: np.memmap, path: Path, found: os.stat_result, vocabulary: int) -> np.ndarray:
    """Return the tokens if every one is below the size of the vocabulary."""
    highest = _highest(path, tokens.offset, found.st_size, found.st_mtime_ns, found.st_ino)
    if highest >= vocabulary:
        raise StoreError(
            f"{path} holds token {highest}; the vocabulary has {vocabulary}: these tokens are of another tokeniser"
        )
    return tokens


@lru_cache(maxsize=4096)
def _highest(path: Path, start: int, *version: int) -> int:
    """Return the highest token of a file from a byte on; each version of a file is read once, whoever opens it."""
    tokens = np.memmap(path, "<u2", "r", start)
    return max(int(tokens[i : i + _CHUNK].max()) for i in range(0, len(tokens), _CHUNK))


def shard_files(path: Path, split: str = "") -> list[Path]:
    """Return the shards of a path: the file itself, or the .bin files of a folder ordered by name.

    Args:
        split: "train" or "val" selects files with that word in their name, as in text_val_000000.bin.

    Raises:
        StoreError: there are none.
    """
    if path.is_file():
        return [path]
    need_folder(path, "give a token shard, or a folder of shards as `speclens data` makes it")
    found = [p for p in visible(path, "*.bin") if not split or split in p.stem.split("_")]
    if not found:
        kind = f"{split} shard" if split else "shard"
        if others := visible(path, "*.bin"):
            raise StoreError(
                f"{path} holds no {kind}, only {', '.join(p.name for p in others[:3])}; make shards again in another "
                "folder from more documents or with a larger --val (`speclens measure` takes all with --split all)"
            )
        raise StoreError(f"{path} holds no {kind} (*.bin); make some with `speclens data --out {path}`")
    headless = [p.name for p in found if p.name in HEADLESS]
    if headless and len(found) > len(headless) and split:
        raise StoreError(
            f"{path} holds {headless[0]} beside {next(p.name for p in found if p.name not in HEADLESS)}, two sources "
            f"of {split} text; take one out, or name a file"
        )
    return found


class TokenSequences:
    """Sequences of equal length from shards, in a fixed order.

    Sequence i of a shard has its tokens iT … iT+T; the last one is a target only, and the first input of the next
    sequence. A sequence lies within one shard; the remainder of a shard is not used.

    Args:
        files: shards.
        length: T ≥ 1 inputs per sequence.
        vocabulary: as in `read_shard`.

    Raises:
        StoreError: as `read_shard`, or no shard is long enough for one sequence.
    """

    def __init__(self, files: Sequence[Path], length: int, vocabulary: int = GPT2_VOCABULARY) -> None:
        if length < 1:
            raise StoreError(f"the length of a sequence is {length}; it must be at least 1")
        self.length = length
        self.shards = [read_shard(path, vocabulary) for path in files]
        if not len(self):
            longest = max((len(s) for s in self.shards), default=0)
            raise StoreError(
                f"no sequence of {length} + 1 tokens fits into any of {len(self.shards)} shards, the longest of which "
                f"has {longest}; shorten the sequences"
            )

    @cached_property
    def _starts(self) -> np.ndarray:
        """Number of sequences before each shard, and in total."""
        return np.cumsum([0, *((len(shard) - 1) // self.length for shard in self.shards)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def take(self, which: Sequence[int] | np.ndarray) -> torch.Tensor:
        """Return the tokens (n, T+1) of sequences by index, int64: inputs, and targets one position later."""
        chosen = np.asarray(which, np.int64)
        if chosen.size and not (chosen.min() >= 0 and chosen.max() < len(self)):
            raise StoreError(
                f"sequences {chosen.min()} to {chosen.max()} are asked for; there are 0 to {len(self) - 1}"
            )
        owners = np.searchsorted(self._starts, chosen, side="right") - 1
        out = np.empty((len(chosen), self.length + 1), np.int64)
        for row, (i, shard) in enumerate(zip(chosen, owners, strict=True)):
            begin = int(i - self._starts[shard]) * self.length
            out[row] = self.shards[shard][begin : begin + self.length + 1]
        import torch  # shards are written, and shown by --help, without it

        return torch.from_numpy(out)

    def batches(
        self, size: int, *, seed: int | None = None, start: int = 0, rank: int = 0, ranks: int = 1
    ) -> Iterator[torch.Tensor]:
        """Yield batches (b, T+1) of all sequences; the last one may be smaller.

        Args:
            size: sequences per batch.
            seed: shuffles the sequences; None keeps their order.
            start: batches to skip, when resuming.
            rank, ranks: of the batches from `start`, yield number rank, rank + ranks, …

        Raises:
            StoreError: an invalid size, start or rank.
        """
        if size < 1 or start < 0 or not 0 <= rank < ranks:
            raise StoreError(
                f"batches of {size} from {start} for rank {rank} of {ranks}; need size ≥ 1, start ≥ 0, "
                "0 ≤ rank < ranks"
            )
        order = np.arange(len(self)) if seed is None else np.random.default_rng(seed).permutation(len(self))
        for begin in range((start + rank) * size, len(order), ranks * size):
            yield self.take(order[begin : begin + size])
