"""Make null texts: token shards that lack one property of the shards they are made from, and keep the others.

shuffled: all tokens of a split are permuted, over all of its shards. Every token keeps its exact count, and no context
says anything about the next token. The end-of-text tokens move like all others, so that no documents are left.

balanced: every token is replaced by one of V labels that all have the same frequency. A type has an interval of [0, 1)
as long as its share of the training tokens; each occurrence draws a uniform point of it, and its label is the bucket of
length 1/V that holds the point. Contexts inform as before; which bucket of its type a token gets is noise. A rare type
shares its bucket with others.

Shards keep their names and lengths, and no token leaves its split.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from sims.system.errors import StoreError
from sims.system.files import read_object, write_json
from sims.system.hashing import sha256
from sims.text.making import MANIFEST, SPLITS, making
from sims.text.recorded import RecordedTokenizer
from sims.text.shards import GPT2_VOCABULARY, read_shard, shard_files, write_shard

NullText = Literal["shuffled", "balanced"]
NULLS: tuple[NullText, ...] = get_args(NullText)
LICENCES = "licences"
_STREAM = 7
_CHUNK = 2**22


@dataclass(frozen=True, eq=False)
class BalancedLabels:
    """Replace tokens by labels of equal frequency. Create it with `BalancedLabels.of`.

    Attributes:
        start: (V,) where the interval of each type begins in [0, 1].
        share: (V,) its length, the share of the type; 0 of a type that was not counted, whose label is always the same.
    """

    start: np.ndarray
    share: np.ndarray

    @classmethod
    def of(cls, counts: np.ndarray, rng: np.random.Generator) -> BalancedLabels:
        """Put the intervals of types (V,), by their counts, into a random order.

        Raises:
            StoreError: no token was counted.

        >>> labels = BalancedLabels.of(np.array([3, 1]), np.random.default_rng(0))
        >>> labels.share
        array([0.75, 0.25])
        """
        total = int(np.sum(counts))
        if total < 1:
            raise StoreError("there is no token to balance; give shards that have some")
        order = rng.permutation(len(counts))
        before = np.cumsum(counts[order]) - counts[order]
        start = np.empty(len(counts))
        start[order] = before / total
        return cls(start, counts / total)

    def apply(self, tokens: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return a label 0 … V−1 for each token (n,)."""
        vocabulary = len(self.start)
        found = np.empty(len(tokens), np.uint16)
        for i in range(0, len(tokens), _CHUNK):
            part = np.asarray(tokens[i : i + _CHUNK], np.int64)
            points = self.start[part] + rng.random(len(part)) * self.share[part]
            found[i : i + _CHUNK] = np.minimum(points * vocabulary, vocabulary - 1).astype(np.uint16)
        return found


def build_null(folder: Path, out: Path, kind: NullText, seed: int = 0) -> dict[str, Any]:
    """Make a null text of a folder of shards.

    A split is held in memory, at two bytes a token. After an interruption the same call makes the same shards again.

    Args:
        folder: has shards with "train" and with "val" in their names.
        out: folder for the shards, which have the same names and lengths, data.json and the licences.
        kind: "shuffled" or "balanced".
        seed: of the permutation, or of the order of the intervals and the points in them.

    Returns:
        Content of data.json: as that of the folder, and `null` (kind, seed, of: SHA-256 of the shards it is made from,
        null: what these were). Labels have no tokeniser: the record of a balanced text has the size only.

    Raises:
        StoreError: shards are missing, damaged, incomplete or of another vocabulary, the output folder is the same or
            holds other data, the disk is full, or the kind or the seed is none.
    """
    if kind not in NULLS:
        raise StoreError(f"there is no null text {kind!r}; choose {' or '.join(NULLS)}")
    if seed < 0:
        raise StoreError(f"the seed is {seed}; it must be 0 or positive")
    if out.resolve() == folder.resolve():
        raise StoreError(f"{out} is the folder of the text itself; choose another --out")
    files = {split: shard_files(folder, split) for split in SPLITS}
    record = _record(folder)
    vocabulary = int(record["tokenizer"]["vocabulary"])
    digests = {file.name: sha256(file) for own in files.values() for file in own}
    _check(record, digests, folder)
    tokens = {split: [read_shard(file, vocabulary) for file in own] for split, own in files.items()}
    earlier = {"null": record["null"]} if "null" in record else {}
    manifest = {**record, "null": {"kind": kind, "seed": seed, "of": digests, **earlier}}
    if kind == "balanced":
        manifest["tokenizer"] = {"vocabulary": vocabulary, "end": None, "sha256": {}}
    with making(out):
        if _made(out, manifest):
            return read_object(out / MANIFEST)
        write_json(out / MANIFEST, {**manifest, "shards": [], "complete": False})
        new = _balanced(tokens, vocabulary, seed) if kind == "balanced" else _shuffled(tokens, seed)
        documents = {s["file"]: s["documents"] for s in record["shards"]} if kind == "balanced" else {}
        shards = []
        for split, own in files.items():
            for file, held in zip(own, new[split], strict=True):
                write_shard(out / file.name, held)
                shards.append(
                    {
                        "file": file.name,
                        "split": split,
                        "tokens": len(held),
                        "documents": documents.get(file.name, 0),
                        "sha256": sha256(out / file.name),
                    }
                )
        if (folder / LICENCES).is_dir():
            shutil.copytree(folder / LICENCES, out / LICENCES, dirs_exist_ok=True)
        manifest |= {"shards": shards, "complete": True}
        write_json(out / MANIFEST, manifest)
    return manifest


def _record(folder: Path) -> dict[str, Any]:
    """Return data.json of a folder; for shards of others one that says what is known."""
    known = {
        "sources": [{"name": str(folder)}],
        "options": {},
        "shards": [],
        "duplicates": {},
        "complete": True,
    }
    said = RecordedTokenizer.of(folder)
    if said is None:
        return {"tokenizer": {"vocabulary": GPT2_VOCABULARY}, **known}
    return known | read_object(said.file)


def _check(record: dict[str, Any], digests: dict[str, str], folder: Path) -> None:
    """Refuse a folder that is not complete, or whose shards are not those of its record."""
    if not record["complete"]:
        raise StoreError(f"{folder} is not complete; repeat the command that makes it first")
    for shard in record["shards"]:
        if digests.get(shard["file"]) != shard["sha256"]:
            raise StoreError(f"{folder / shard['file']} is missing or damaged; make {folder} again")


def _made(out: Path, manifest: dict[str, Any]) -> bool:
    """Return whether the folder holds this null text, complete and undamaged; refuse one that holds other data."""
    path = out / MANIFEST
    if not path.exists():
        if any(out.glob("*.bin")):
            raise StoreError(
                f"{out} holds shards that are not from here (no {MANIFEST}); choose another --out"
            )
        return False
    found = read_object(path, "shards", "complete")
    if found.get("null") != manifest["null"]:
        raise StoreError(f"{out} holds other data; choose another --out, or delete this one")
    # A run may read them: what is there is not written again.
    return found["complete"] and all(
        (out / s["file"]).exists() and sha256(out / s["file"]) == s["sha256"] for s in found["shards"]
    )


def _rng(seed: int, *which: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(_STREAM, *which)))


def _shuffled(tokens: dict[str, list[np.ndarray]], seed: int) -> dict[str, list[np.ndarray]]:
    found = {}
    for i, (split, own) in enumerate(tokens.items()):
        whole = np.concatenate(own)
        _rng(seed, i).shuffle(whole)
        found[split] = np.split(whole, np.cumsum([len(held) for held in own])[:-1])
    return found


def _balanced(tokens: dict[str, list[np.ndarray]], vocabulary: int, seed: int) -> dict[str, list[np.ndarray]]:
    counts = sum(
        (np.bincount(held, minlength=vocabulary) for held in tokens["train"]), np.zeros(vocabulary, int)
    )
    labels = BalancedLabels.of(counts, _rng(seed))
    return {
        split: [labels.apply(held, _rng(seed, i, k)) for k, held in enumerate(own)]
        for i, (split, own) in enumerate(tokens.items())
    }
