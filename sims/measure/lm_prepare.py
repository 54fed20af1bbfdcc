"""Prepare a measurement: the text, its tokeniser, and defaults that the model and the text allow."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from sims.measure.lm import LmMeasurementData, prepare_text
from sims.measure.ngram_laws import Training
from sims.measure.token_families import Encode, default_families, read_families
from sims.runs.lm_measure_config import LmMeasureConfig, LmOptions
from sims.system.errors import MeasureError, StoreError
from sims.text.recorded import RecordedTokenizer
from sims.text.shards import GPT2_VOCABULARY, TokenSequences, shard_files
from sims.text.tokenizer import OWN, load_tokenizer, own_tokens

# Words, numbers, spaces and the end of a line, in which tokenisers differ.
_SENTENCE = "Texts of 1984:  they're not   the same,\nwhich one sentence shows."


@dataclass(frozen=True)
class Text:
    """Hold token shards and their vocabulary.

    Attributes:
        shards: files.
        vocabulary: number of tokens of their tokeniser.
        encode: tokens of a text; None where it is not needed.
        training: files of the training split beside them; none where the shards are not those of validation.
        end: token that begins every document; None where that is not recorded.
    """

    shards: Sequence[Path]
    vocabulary: int
    encode: Encode | None
    training: Sequence[Path] = ()
    end: int | None = GPT2_VOCABULARY - 1

    @classmethod
    def of(cls, data: Path, split: str, families: bool, tokenizer: Path | None = None) -> Text:
        """Return the text of a shard, or of a folder of shards.

        Args:
            data: the shard or folder; a record there names the tokeniser, GPT-2's where there is none.
            split: part of the names of the shards.
            families: whether texts will be encoded; otherwise the tokeniser is not loaded.
            tokenizer: folder of its files; None takes GPT-2's.

        Raises:
            StoreError: no such shards, or a record that contradicts itself or the tokeniser.
            MissingExtraError: the tokeniser's package is not installed.
        """
        shards = shard_files(data, split)
        recorded = RecordedTokenizer.of(data)
        training = _training(data) if split == "val" else ()
        if not families and tokenizer is None:
            if recorded is None:
                return cls(shards, GPT2_VOCABULARY, None, training)
            return cls(shards, recorded.vocabulary, None, training, recorded.end)
        loaded = load_tokenizer(tokenizer) if recorded is None else recorded.load(tokenizer)
        return cls(
            shards, loaded.vocabulary, lambda text: loaded.encoder.encode(text).ids, training, loaded.end
        )

    def measurement_data(self, config: LmMeasureConfig, device: str, known: int) -> LmMeasurementData:
        """Return what a model with a vocabulary of `known` tokens is measured with.

        Raises:
            MeasureError, StoreError: see `sims.measure.lm.prepare_text`.
        """
        vocabulary = min(self.vocabulary, known)
        training = self._training(vocabulary) if config.ngrams else None
        return prepare_text(config, self.shards, self.encode, device, vocabulary, training)

    def check_tokens(self, folder: Path) -> None:
        """Compare the tokeniser of the text with that in the folder of a model, where both are known.

        Raises:
            MeasureError: they are not the same: the model would be measured on tokens that are not its own.
            StoreError, MissingExtraError: see `sims.text.tokenizer.own_tokens`.
        """
        own = folder / OWN
        if self.encode is None or not own.is_file():
            return
        found = (self.encode(_SENTENCE), own_tokens(own)(_SENTENCE))
        if found[0] != found[1]:
            ours, theirs = (f"{len(ids)} tokens ({', '.join(map(str, ids[:3]))}, …)" for ids in found)
            raise MeasureError(
                f"{self.shards[0]} is not in the vocabulary of {own}: {_SENTENCE!r} is {ours} of the one and {theirs} "
                f"of the other; use text in the tokens of the model, or take {OWN} away if it is not the model's"
            )

    def files(self, config: LmMeasureConfig) -> list[Path]:
        """Return all files that a measurement depends on."""
        return [*self.shards, *(self.training if config.ngrams else ())]

    def _training(self, vocabulary: int) -> Training:
        if not self.training:
            raise MeasureError(
                f"ngrams compares held-out positions with the n-grams of training text, and {self.shards[0]} is not "
                "measured as validation text with training shards beside it; give a folder of both, and measure its "
                "val shards"
            )
        return Training(tuple(self.training), vocabulary, self.end)


def _training(data: Path) -> Sequence[Path]:
    """Return the training shards of a folder, none of a file."""
    if not data.is_dir():
        return ()
    with suppress(StoreError):
        return shard_files(data, "train")
    return ()


def settle(
    options: LmOptions, text: Text, longest: int | None, known: int
) -> tuple[LmMeasureConfig, list[str]]:
    """Return the settings of a measurement, and a line for each default that was lowered.

    Args:
        options: the given settings; where families are given, or left to the default, the text must encode.
        text: the measured text.
        longest: inputs that the model takes at most; None where it has no limit.
        known: size of the vocabulary of the model.

    Raises:
        MeasureError: settings that do not fit the model or the text.
    """
    chosen, note = (), ""
    if options.families is not None:
        options = replace(options, families=read_families(options.families))
    elif text.encode is not None:
        chosen, note = default_families(text.encode, text.vocabulary, known)
    length = options.length_for(longest)
    available = len(TokenSequences(text.shards, length, min(text.vocabulary, known)))
    config = options.settled(length, available, chosen)
    return config, [*_lowered(options, config), *([note] if note else [])]


def _lowered(options: LmOptions, config: LmMeasureConfig) -> list[str]:
    default = LmMeasureConfig()
    names = ("length", "tokens", "gradient_sequences", *(["ngram_positions"] if config.ngrams else []))
    counts = {n: (getattr(config, n), getattr(default, n)) for n in names}
    less = [f"{n} {b} → {a}" for n, (a, b) in counts.items() if getattr(options, n) is None and a != b]
    return [f"defaults lowered to what the model takes and the text holds: {', '.join(less)}"] if less else []
