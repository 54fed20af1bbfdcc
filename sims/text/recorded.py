"""The tokeniser recorded in a folder of shards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sims.system.errors import StoreError
from sims.system.files import read_json
from sims.text.making import MANIFEST
from sims.text.tokenizer import BYTES, FILES, Tokenizer, load_tokenizer


@dataclass(frozen=True)
class RecordedTokenizer:
    """The record of a tokeniser in data.json.

    Attributes:
        file: data.json.
        vocabulary: number of tokens.
        said: the whole record: vocabulary, end, sha256.
        complete: whether all shards have been made.
    """

    file: Path
    vocabulary: int
    said: Mapping[str, Any]
    complete: bool

    @classmethod
    def of(cls, data: Path) -> RecordedTokenizer | None:
        """Read the record in a folder of shards, or next to a shard; None if there is none.

        Raises:
            StoreError: the record is damaged, or has no vocabulary.
        """
        file = (data if data.is_dir() else data.parent) / MANIFEST
        if not file.exists():
            return None
        found = read_json(file)
        said = found.get("tokenizer") if isinstance(found, dict) else None
        vocabulary = said.get("vocabulary") if isinstance(said, dict) else None
        if not isinstance(said, dict) or not isinstance(vocabulary, int) or vocabulary < 1:
            raise StoreError(
                f"{file} says no number of tokens (tokenizer, vocabulary), which every record of shards does; make the "
                "shards again, or take the file away if it is none"
            )
        return cls(file, vocabulary, said, found.get("complete") is not False)

    @property
    def end(self) -> int | None:
        """Return the token that begins every document; None where the record does not have it."""
        end = self.said.get("end")
        return end if isinstance(end, int) else None

    def load(self, folder: Path | None = None) -> Tokenizer:
        """Load the recorded tokeniser.

        Args:
            folder: has encoder.json and vocab.bpe; None for GPT-2's.

        Raises:
            MissingExtraError: as `load_tokenizer`.
            StoreError: these files are not the recorded ones, or do not give the recorded vocabulary; or the tokens are
                labels of a null text, which have no tokeniser.
        """
        if "end" in self.said and self.said["end"] is None:
            raise StoreError(
                f"{self.file} records labels of a null text in place of tokens, and no text can be encoded in them; "
                "leave out what needs it: give --families without names"
            )
        tokenizer = load_tokenizer(folder)
        remedy = f"pass --vocabulary with the folder of {' and '.join(FILES)} that the shards were made with"
        recorded = self.said.get("sha256") or {}
        for name, digest in tokenizer.digests.items():
            if recorded.get(name) != digest:
                raise StoreError(
                    f"{self.file} records {name} with SHA-256 {str(recorded.get(name))[:12]}…, and that of "
                    f"{folder or 'GPT-2'} has {digest[:12]}…; text must be encoded as the shards were: {remedy}"
                )
        # The vocabulary is bytes, merges and the end of text.
        if BYTES < self.vocabulary < tokenizer.vocabulary:
            tokenizer = load_tokenizer(folder, self.vocabulary - BYTES - 1)
        made = {"vocabulary": tokenizer.vocabulary, "end": tokenizer.end}
        for name, value in made.items():
            if self.said.get(name) != value:
                raise StoreError(
                    f"{self.file} records {name} {self.said.get(name)}, and the tokeniser of {folder or 'GPT-2'} has "
                    f"{value}; they must agree: {remedy}, or make the shards again"
                )
        return tokenizer
