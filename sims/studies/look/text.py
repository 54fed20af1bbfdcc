"""Text as tokens of one model, without shards: its own tokeniser, or GPT-2's byte pairs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sims.measure.activations import ACTIVATIONS
from sims.measure.engine import measure
from sims.measure.gradients import GRADIENTS
from sims.measure.lm import LmMeasurementData
from sims.measure.loss import LOSS
from sims.measure.rows import MeasurementRows
from sims.models.cuts import Family
from sims.models.subject import Subject
from sims.runs.lm_measure_config import LmMeasureConfig
from sims.studies.look.options import TextOptions
from sims.system.errors import MeasureError, StoreError
from sims.text.shards import GPT2_VOCABULARY
from sims.text.tokenizer import OWN, load_tokenizer, own_tokens
from toymodel.sequences import Rows

# GPT-2's vocabulary, and what models pad it to (multiples of 64 and of 128).
PADDED = (GPT2_VOCABULARY, 50304)
# Types of transformers with that tokeniser, and models of one's own; others of such a size (OPT, Pythia, OLMo) have
# another.
GPT2_KINDS = ("", "gpt2", "gpt_neo")
MEASURED = (LOSS, ACTIVATIONS, GRADIENTS)


def measure_text(
    subject: Subject,
    sequences: Tensor,
    options: TextOptions,
    progress: Callable[[str, int, int], None] | None,
) -> MeasurementRows:
    """Return loss, activation spectra at all sites and per-sample gradient spectra of a decoder on sequences.

    Args:
        subject: the model.
        sequences: (n, T+1) tokens.
        options: how many of them for gradients.
        progress: called after each batch.

    Raises:
        MeasureError: fewer than two sequences, or tokens that the model does not take.
    """
    data = text_data(subject, sequences, options)
    chosen = [measurement for measurement in MEASURED if measurement.wanted(data.config)]
    return measure(subject, data, measurements=chosen, progress=progress)


def text_data(subject: Subject, sequences: Tensor, options: TextOptions) -> LmMeasurementData:
    """Return what a decoder is measured with, or refuse sequences that it does not take.

    Raises:
        MeasureError: no (n, T+1) whole numbers, fewer than two sequences, longer ones than the model takes, or tokens
            outside its vocabulary.
    """
    whole = isinstance(sequences, Tensor) and not sequences.is_floating_point() and not sequences.is_complex()
    if not whole or sequences.dtype == torch.bool or sequences.ndim != 2 or sequences.shape[1] < 2:
        what = (
            f"of shape {tuple(sequences.shape)} and dtype {sequences.dtype}"
            if isinstance(sequences, Tensor)
            else f"a {type(sequences).__name__}"
        )
        raise MeasureError(
            f"the data are {what}; pass a text file, or a tensor (n, T+1) of whole numbers: T inputs and the token "
            "after each"
        )
    count, length = len(sequences), sequences.shape[1] - 1
    if count < 2:
        raise MeasureError(f"the data hold {count} sequence(s); a spectrum across samples needs two or more")
    if subject.longest is not None and length > subject.longest:
        raise MeasureError(
            f"sequences of {length} inputs are longer than the {subject.longest} that this model takes; cut them"
        )
    check_tokens(sequences, len(subject.head))
    # Of a model with other names, every matrix that has them.
    usual, found = LmMeasureConfig.gradient_matrices, subject.with_gradients
    named = any(matrix.endswith(usual) for matrix in found)
    config = LmMeasureConfig(
        tokens=count * length,
        length=length,
        batch=max(LmMeasureConfig.batch, length),
        gradient_sequences=min(options.gradients, count),
        gradient_matrices=usual if named else found,
        families=(),
        sites=tuple(subject.sites),
    )
    config.check(count)
    every = np.arange(count)
    rows = Rows(sequences.detach().cpu().to(torch.int64))
    device = str(subject.head.device)
    return LmMeasurementData(config, rows, every, every[: config.gradient_sequences], (), device)


def check_tokens(tokens: Tensor, vocabulary: int) -> None:
    """Raise a MeasureError for tokens that a vocabulary does not have."""
    low, high = int(tokens.min()), int(tokens.max())
    if low < 0 or high >= vocabulary:
        raise MeasureError(
            f"the text has token {low if low < 0 else high}, and this model knows 0 to {vocabulary - 1}: the tokens "
            "are of another tokeniser; use the model's own"
        )


def text_tokens(path: Path, folder: Path | None, subject: Subject) -> Tensor:
    """Return the tokens (m,) of a text file.

    Args:
        path: a text in UTF-8.
        folder: of the model, where its tokenizer.json may lie; None for a model in memory.
        subject: the model.

    Raises:
        MeasureError: no tokeniser, or tokens outside the vocabulary.
        StoreError: the text, or the tokeniser, cannot be read.
        MissingExtraError: the package `tokenizers` is not installed.
    """
    text, vocabulary = _read(path), len(subject.head)
    kind = Family.of(getattr(getattr(subject, "model", None), "config", None)).kind
    tokens = torch.tensor(_encoder(folder, vocabulary, kind)(text), dtype=torch.int64)
    if len(tokens):
        check_tokens(tokens, vocabulary)
    return tokens


def text_sequences(tokens: Tensor, path: Path, subject: Subject, options: TextOptions) -> Tensor:
    """Return the start of a text as sequences (n, T+1); the last token of each is the first input of the next.

    Args:
        tokens: (m,) of the text.
        path: where they come from, for messages.
        subject: the model, whose longest input counts.
        options: inputs per sequence, and how many tokens at most.

    Raises:
        MeasureError: a text shorter than two sequences.
    """
    length = options.length_for(subject.longest)
    if len(tokens) < 2 * length + 1:
        short = max((len(tokens) - 1) // 2, 0)
        remedy = (
            f"give a longer one, or shorten the sequences (--length {min(short, 32)})"
            if short
            else "give a longer one"
        )
        raise MeasureError(
            f"{path} has {len(tokens)} tokens, and two sequences of {length} inputs need {2 * length + 1}; {remedy}"
        )
    count = max(min((len(tokens) - 1) // length, options.tokens // length), 2)
    starts = torch.arange(count)[:, None] * length
    return tokens[starts + torch.arange(length + 1)]


def _read(path: Path) -> str:
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror}; name a text file") from error
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise StoreError(
            f"{path} is not UTF-8 text ({error.reason} at byte {error.start}); convert it (iconv -t UTF-8)"
        ) from error


def _encoder(folder: Path | None, vocabulary: int, kind: str) -> Callable[[str], list[int]]:
    """Return what turns a text into tokens of a model; no special tokens are added.

    Args:
        folder: of the model.
        vocabulary: rows of its head.
        kind: its type in transformers; "" for code of one's own.

    Raises:
        MeasureError: no tokeniser is known for it.
    """
    own = None if folder is None else folder / OWN
    if own is not None and own.is_file():
        return own_tokens(own)
    if PADDED[0] <= vocabulary <= PADDED[1] and kind in GPT2_KINDS:
        encoder = load_tokenizer().encoder
        return lambda text: encoder.encode(text, add_special_tokens=False).ids
    if folder is not None and (folder / "meta.pkl").is_file():
        raise MeasureError(
            f"the vocabulary of {vocabulary} tokens is that of {folder / 'meta.pkl'}, a pickle, which could run code "
            "and is not read; turn the text into tokens where it was made, and pass them: look(PATH, tensor) in Python"
        )
    where = "a model in memory has no tokeniser" if folder is None else f"{folder} has no {OWN}"
    why = (
        f"{vocabulary} tokens are not GPT-2's vocabulary ({PADDED[0]} to {PADDED[1]})"
        if kind in GPT2_KINDS
        else f"a model of type {kind} need not have GPT-2's"
    )
    raise MeasureError(
        f"{where}, and {why}; put the "
        f"{OWN} there (transformers: AutoTokenizer.from_pretrained(…).save_pretrained(FOLDER)), or pass tokens "
        "(n, T+1) in Python"
    )
