"""Prepare the laws that a model is compared with on a text, and refuse what cannot be compared before any work."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from sims.measure.draft import BASE, check_draft, draft_rows
from sims.measure.rows import MeasurementRows
from sims.measure.text_laws import CountedLaw, TeacherLaw, TextLaw
from sims.measure.text_predictive import predictive_rows
from sims.models.subject import Subject
from sims.studies.look.text import text_tokens
from sims.system.errors import MeasureError
from sims.text.ngram import ORDERS, NgramLaw


@dataclass(frozen=True, eq=False)
class Teacher:
    """Another model whose predictions are a law.

    Attributes:
        name: shown with its numbers.
        subject: the model.
        folder: where its tokeniser may lie; None for a model in memory.
    """

    name: str
    subject: Subject
    folder: Path | None


@dataclass(frozen=True, eq=False)
class Laws:
    """What a model is compared with.

    Attributes:
        laws: n-grams and teachers.
        sequences: (n, T+1) tokens that are compared.
        vocabulary: tokens of the laws.
        base: bigram law of a draft head; None without one.
        notes: what a reader should know.
    """

    laws: Sequence[TextLaw]
    sequences: Tensor
    vocabulary: int
    base: NgramLaw | None
    notes: Sequence[str]

    def measure(self, subject: Subject, told: Callable[[str, int, int], None]) -> MeasurementRows:
        """Return the rows of a model against every law, and of a draft head."""
        sheet = MeasurementRows(subject.step, subject.tokens)
        if self.laws:
            predictive_rows(sheet, subject, self.laws, self.sequences, self.vocabulary, told)
        if self.base is not None:
            draft_rows(sheet, subject, self.base, self.sequences, told)
        return sheet


def prepare_laws(
    subject: Subject,
    given: Sequence[str | Path | nn.Module],
    load: Callable[[str | Path | nn.Module], Teacher],
    sequences: Tensor,
    tokens: Tensor | None,
    *,
    draft: bool,
    text: Path | None = None,
) -> Laws:
    """Return the laws that a model is compared with; teachers are loaded here.

    Args:
        subject: the model.
        given: "bigram", "trigram", or paths or modules of other models.
        load: loads such a model.
        sequences: (n, T+1) tokens that are measured.
        tokens: (m,) of the whole text: n-grams are counted behind the measured part. None: there is no text, and
            n-grams are counted in the later half of the sequences and compared on the earlier half.
        draft: whether a draft head is trained, whose base is counted too.
        text: the file of the tokens.

    Raises:
        MeasureError: a law that is not known or named twice, a text that is too short, or a teacher that is the model
            itself, has other tokens or takes shorter sequences.
    """
    _check_names(given)
    names = [name for name in given if isinstance(name, str) and name in ORDERS]
    others = [model for model in given if not (isinstance(model, str) and model in ORDERS)]
    measured, counted = _counted(sequences, tokens, text) if names or draft else (sequences, None)
    if draft:
        check_draft(measured)
    teachers = [load(model) for model in others]
    named = [*names, *(teacher.name for teacher in teachers)]
    if twice := sorted({name for name in named if named.count(name) > 1}):
        raise MeasureError(
            f"two laws are named {twice[0]}, and their numbers could not be told apart; name each once, and models in "
            "folders of different names"
        )
    vocabulary, notes = len(subject.head), []
    for teacher in teachers:
        _check_teacher(subject, teacher, measured, text)
        if text is not None and tokens is not None:
            _check_tokens(tokens, teacher, text)
        else:
            notes.append(
                f"that {teacher.name} means the same tokens by the same numbers is taken for granted"
            )
        size = len(teacher.subject.head)
        vocabulary = min(vocabulary, size)
        if size != len(subject.head):
            notes.append(
                f"{teacher.name} has {size} tokens and the model {len(subject.head)}: all laws are those of one of the "
                f"first {min(size, len(subject.head))}"
            )
    laws: list[TextLaw] = []
    base = None
    if counted is not None:
        rows = counted.cpu().numpy()
        notes.append(f"n-grams are counted in {rows.size:,} tokens that are not compared")
        laws += [CountedLaw(name, NgramLaw.of(rows, vocabulary, ORDERS[name])) for name in names]
        base = NgramLaw.of(rows, len(subject.head), ORDERS[BASE]) if draft else None
    laws += [TeacherLaw(teacher.name, teacher.subject, vocabulary) for teacher in teachers]
    return Laws(laws, measured, vocabulary, base, notes)


def _check_names(given: Sequence[str | Path | nn.Module]) -> None:
    for name in given:
        if isinstance(name, str) and name not in ORDERS and not (name and Path(name).exists()):
            raise MeasureError(
                f"{name!r} is no law of the next token: name {' or '.join(ORDERS)}, or a file or folder with a model"
            )


def _counted(sequences: Tensor, tokens: Tensor | None, text: Path | None) -> tuple[Tensor, Tensor]:
    """Return the sequences that are compared and the rows that n-grams are counted in, no token in both."""
    if tokens is None:
        half = len(sequences) // 2
        if half < 2:
            raise MeasureError(
                f"the data hold {len(sequences)} sequence(s); n-grams are counted in one half of them and compared on "
                "the other, so pass four or more"
            )
        return sequences[:half], sequences[half:]
    need = sequences[:, 1:].numel()
    rest = tokens[need + 1 :]
    if len(rest) < need:
        most = (need + len(rest)) // 2
        raise MeasureError(
            f"{text}: {need} tokens are measured, and {len(rest)} are left to count n-grams in, which must not be "
            f"fewer; give a longer text, or measure less of it (--tokens {most})"
        )
    return sequences, rest[None]


def _check_teacher(subject: Subject, teacher: Teacher, sequences: Tensor, text: Path | None) -> None:
    """Refuse a teacher whose predictions cannot be compared with those of the model.

    Raises:
        MeasureError: the same weights, other tokens, or shorter inputs.
    """
    other = teacher.subject
    if _same(subject, other):
        raise MeasureError(
            f"{teacher.name} holds the same weights as the model; name another one as its teacher"
        )
    length = sequences.shape[1] - 1
    if other.longest is not None and length > other.longest:
        raise MeasureError(
            f"sequences of {length} inputs are longer than the {other.longest} that {teacher.name} takes; shorten them "
            f"(--length {other.longest})"
        )
    sizes = len(subject.head), len(other.head)
    if text is None and sizes[0] != sizes[1]:
        raise MeasureError(
            f"the model has {sizes[0]} tokens and {teacher.name} {sizes[1]}: without a text file nothing shows that "
            "their tokens are the same; pass a text, or a model with the same vocabulary"
        )


def _check_tokens(tokens: Tensor, teacher: Teacher, text: Path) -> None:
    """Refuse a teacher whose tokeniser turns a text into other tokens than the model's.

    Raises:
        MeasureError: other tokens, or no tokeniser.
    """
    other = text_tokens(text, teacher.folder, teacher.subject)
    if len(other) == len(tokens) and torch.equal(other, tokens):
        return
    shared = min(len(other), len(tokens))
    differ = (other[:shared] != tokens[:shared]).nonzero()
    at = int(differ[0]) if len(differ) else shared
    raise MeasureError(
        f"{teacher.name} has another tokeniser: {text} is {len(other)} tokens for it and {len(tokens)} for the model, "
        f"which differ from token {at + 1} on; laws of different tokens cannot be compared, so name a teacher with the "
        "model's tokeniser"
    )


def _same(a: Subject, b: Subject) -> bool:
    """Return whether two models have the same matrices."""
    mine, others = a.matrices, b.matrices
    return set(mine) == set(others) and all(
        mine[name].shape == others[name].shape and torch.equal(mine[name].cpu(), others[name].cpu())
        for name in mine
    )
