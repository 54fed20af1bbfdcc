"""Make token shards from documents: split by document, resumable, with a record of every source.

The order of documents is fixed by the sources, and a shard ends with the document that fills it. The existing shards
therefore show the progress, and the same command continues after the last of them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np

from sims.system.errors import StoreError
from sims.system.files import make_folder, read_object, remove_leftovers, write_json
from sims.system.hashing import sha256
from sims.system.locks import take_lock
from sims.text.documents import LEAST
from sims.text.shards import write_shard
from sims.text.sources import Source, keep_licences
from sims.text.tokenizer import Tokenizer

MANIFEST = "data.json"
Split = Literal["val", "train"]
# The small one first: it can be used before the other is complete.
SPLITS: tuple[Split, ...] = ("val", "train")
# Documents per call of the tokeniser, which encodes them in parallel threads.
BATCH = 64


@dataclass(frozen=True)
class BuildOptions:
    """Options of `build`.

    Args:
        shard_tokens: a shard ends with the document that brings it to this many tokens.
        val: share of documents used for validation.
        most_tokens: training tokens at which to stop; None takes all.
    """

    shard_tokens: int = 10_000_000
    val: float = 0.02
    most_tokens: int | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.shard_tokens < 2**30:
            raise StoreError(f"--shard-tokens is {self.shard_tokens}; it must be from 1 to {2**30 - 1}")
        if not 0 <= self.val < 1:
            raise StoreError(f"--val is {self.val}; it is a share of the documents, from 0 to below 1")
        if self.most_tokens is not None and self.most_tokens < 1:
            raise StoreError(f"--most-tokens is {self.most_tokens}; it must be at least 1")


def build(
    sources: Sequence[Source],
    tokenizer: Tokenizer,
    out: Path,
    options: BuildOptions | None = None,
    progress: Callable[[Split, int, int], None] = lambda split, documents, tokens: None,
) -> dict[str, Any]:
    """Make the shards of the sources in a folder, or resume.

    Each document begins with the end-of-text token. The first 32 bits of the SHA-256 of its text decide whether it is
    validation data, independently of other documents; duplicate texts are dropped, so none is in both splits.

    Args:
        sources: read in this order.
        out: folder for text_val_000000.bin, text_train_000001.bin, …, data.json and the licences.
        options: None for the defaults of `BuildOptions`.
        progress: called with the split, and its documents and tokens so far.

    Returns:
        Content of data.json: tokenizer, sources (SHA-256, licence), options, shards (file, split, tokens, documents,
        through, sha256), duplicates, complete.

    Raises:
        StoreError: the folder holds other data or damaged shards, or another process makes shards there; a source
            cannot be read, the disk is full, or no document is left for training.
    """
    options = options or BuildOptions()
    with making(out):
        manifest = _begun(sources, tokenizer, out, options)
        if manifest["complete"]:
            return manifest
        keep_licences(sources, out / "licences")
        for split in SPLITS:
            _split(sources, tokenizer, out, options, manifest, split, progress)
        if not manifest["shards"]:
            raise StoreError(f"the sources hold no document of {LEAST} or more characters; give other text")
        if not any(s["split"] == "train" for s in manifest["shards"]):
            raise StoreError(
                f"no document is left for training at --val {options.val}; delete {out}, and lower it or give more "
                "documents"
            )
        manifest["complete"] = True
        write_json(out / MANIFEST, manifest)
    return manifest


@contextmanager
def making(out: Path) -> Iterator[None]:
    """Create a folder of shards, and keep other processes from making shards there meanwhile.

    Raises:
        StoreError: another process does, or the folder cannot be written.
    """
    lock = take_lock(make_folder(out) / ".lock")
    if lock is None:
        raise StoreError(
            f"another process is making shards in {out}; wait for it or stop it, or choose another --out"
        )
    with lock:
        remove_leftovers(out)
        yield


def _begun(
    sources: Sequence[Source], tokenizer: Tokenizer, out: Path, options: BuildOptions
) -> dict[str, Any]:
    """Read the manifest and check its shards, or return a new one."""
    wanted: dict[str, Any] = {
        "tokenizer": {"vocabulary": tokenizer.vocabulary, "end": tokenizer.end, "sha256": tokenizer.digests},
        "sources": [{"name": s.name, "files": len(s.files), **s.facts} for s in sources],
        "options": asdict(options),
    }
    path = out / MANIFEST
    if not path.exists():
        if any(out.glob("*.bin")):
            raise StoreError(
                f"{out} holds shards that are not from here (no {MANIFEST}); choose another --out"
            )
        return {**wanted, "shards": [], "duplicates": {}, "complete": False}
    manifest = read_object(path)
    differing = [
        name for name, value in wanted.items() if manifest.get(name) != json.loads(json.dumps(value))
    ]
    if differing:
        raise StoreError(
            f"{out} holds data made with other {' and '.join(differing)}; choose another --out, or delete this one"
        )
    for shard in manifest["shards"]:
        file = out / shard["file"]
        if not file.exists() or sha256(file) != shard["sha256"]:
            raise StoreError(f"{file} is missing or damaged; delete {out} and make it again")
    return manifest


def _split(
    sources: Sequence[Source],
    tokenizer: Tokenizer,
    out: Path,
    options: BuildOptions,
    manifest: dict[str, Any],
    split: Split,
    progress: Callable[[Split, int, int], None],
) -> None:
    """Write the shards of one split that do not exist yet."""
    shards = [s for s in manifest["shards"] if s["split"] == split]
    through = shards[-1]["through"] if shards else 0
    total = closed = sum(s["tokens"] for s in shards)
    most = options.most_tokens if split == "train" else None
    part = _Part(sources, split, options.val)
    texts, held, before = iter(part), list[np.ndarray](), 0
    for _, duplicates in islice(texts, through):
        before = duplicates

    def close() -> None:
        nonlocal held, through, closed
        number = len(manifest["shards"])
        file = out / f"text_{split}_{number:06d}.bin"
        tokens = np.concatenate(held)
        if not manifest["shards"]:
            # A shard without its record would be one of somebody else.
            write_json(out / MANIFEST, manifest)
        write_shard(file, tokens)
        through += len(held)
        manifest["shards"].append(
            {
                "file": file.name,
                "split": split,
                "tokens": len(tokens),
                "documents": len(held),
                "through": through,
                "sha256": sha256(file),
            }
        )
        write_json(out / MANIFEST, manifest)
        held, closed = [], total

    while (most is None or total < most) and (batch := list(islice(texts, BATCH))):
        found = tokenizer.encode([text for text, _ in batch])
        for tokens, (_, duplicates) in zip(found, batch, strict=True):
            if most is not None and total >= most:
                break
            before = duplicates
            held.append(tokens)
            total += len(tokens)
            if total - closed >= options.shard_tokens:
                close()
        progress(split, through + len(held), total)
    if held:
        close()
    # Of a text that ends early those up to its last document, however far it was read.
    manifest["duplicates"][split] = part.duplicates if most is None or total < most else before


class _Part:
    """The documents of one split without duplicates, each with the number of duplicates before it."""

    def __init__(self, sources: Sequence[Source], split: Split, val: float) -> None:
        self.sources, self.split, self.val = sources, split, val
        self.duplicates = 0

    def __iter__(self) -> Iterator[tuple[str, int]]:
        seen: set[bytes] = set()
        for source in self.sources:
            for text in source.documents():
                digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
                side = "val" if int.from_bytes(digest[:4], "big") < self.val * 2**32 else "train"
                if side != self.split:
                    continue
                if digest in seen:
                    self.duplicates += 1
                    continue
                seen.add(digest)
                yield text, self.duplicates
