"""Look at one model: its weights, and on a text its activations and gradients too."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from dataclasses import replace as changed
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from torch import Tensor, nn

from sims.measure.rows import MeasurementRows
from sims.measure.watched import measure_watched
from sims.models.checkpoint_info import CheckpointOptions
from sims.models.layout import check_module
from sims.models.parts import find_parts, unwrapped
from sims.models.probe import Probe, first_batch
from sims.models.stored import stored_weights
from sims.models.subject import Subject
from sims.models.undisturbed import undisturbed
from sims.models.watched import WatchedSubject
from sims.models.weights import faulty_weights, not_finite
from sims.pages.number import counted
from sims.runs.layout import ROWS, SPECTRA
from sims.runs.watched_config import WatchedConfig
from sims.studies.look.options import TextOptions
from sims.studies.look.weights import LookRows, measure_matrix
from sims.system.errors import MeasureError

if TYPE_CHECKING:
    from sims.studies.look.predictive import Laws, Teacher

# Called with what is measured, pieces done and pieces in all.
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, eq=False)
class Look:
    """What one look at a model found.

    Attributes:
        name: of the model.
        kind: of its files, or its class.
        step: of training, where it is known.
        rows: one row a number: columns of a run's rows, and "null_low", the lower end of what noise gives.
        spectra: one row a spectrum.
        skipped: tensor of two or more axes → why it is no matrix that was measured.
        notes: what a reader should know.
        text: of what activations and gradients were measured; empty for weights alone.
        vocabulary: tokens that the model tells apart, where a text was measured.
    """

    name: str
    kind: str
    step: int | None
    rows: pd.DataFrame
    spectra: pd.DataFrame
    skipped: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()
    text: str = ""
    vocabulary: int | None = None

    def table(self) -> pd.DataFrame:
        """Return one row a weight matrix, in the order of the model, with the level of noise beside each number."""
        from sims.studies.look.tables import by_matrix

        return by_matrix(self.rows, self.spectra)

    @property
    def findings(self) -> list[str]:
        """Return what came out, in sentences; the first is the verdict."""
        from sims.studies.look.findings import findings

        return [finding.text for finding in findings(self)]

    def __repr__(self) -> str:
        said = "\n  ".join([*self.findings, *(f"note: {note}" for note in self.notes)])
        size = f"{counted(len(self.rows), 'number')}, spectra: {len(self.spectra)}"
        return f"Look at {self.name} ({self.kind}): {size}\n  {said}"

    def page(self, path: Path | str) -> Path:
        """Write a page (index.html) with pictures, findings and tables, and rows.csv, rows.parquet beside it.

        Args:
            path: folder, made if it does not exist.

        Returns:
            The page.

        Raises:
            StoreError: something cannot be written.
        """
        from sims.studies.look.page import write

        return write(self, Path(path))

    def _repr_html_(self) -> str:
        from sims.studies.look.page import notebook

        return notebook(self)


def look(
    model_or_path: nn.Module | Path | str,
    data: Any = None,
    *,
    layers: Sequence[str] = (),
    predictive: Sequence[str | Path | nn.Module] = (),
    draft: bool = False,
    text: TextOptions | None = None,
    checkpoint: CheckpointOptions | None = None,
    progress: Progress | None = None,
) -> Look:
    """Measure the spectra of a model: of its weights, and on data of its activations and per-sample gradients.

    Args:
        model_or_path: a torch module, or a path: Hugging Face folder, checkpoint of nanoGPT or modded-nanogpt,
            safetensors or torch file of a state. Weights need no configuration of the model.
        data: a text file in UTF-8, or tokens (n, T+1), for decoders; for any module in memory a batch as the probe of
            a `Monitor` (a pair (x, y), a mapping, a data loader, …); None measures weights alone.
        layers: names or patterns (``*``, ``?``) of matrices to measure; all if empty.
        predictive: approximate laws of the next token that a decoder is compared with on a text: "bigram" or "trigram"
            (counted in the text that is not measured), or a larger model, which must have the same tokens.
        draft: whether to train a draft head for the token after next, and measure how often its tokens are accepted.
        text: how much of a text is measured.
        checkpoint: what a checkpoint does not record and its model needs (number of heads, …).
        progress: called with a name, pieces done and pieces in all.

    Raises:
        CheckpointError: the path cannot be read, or its model not be built for the data.
        MeasureError: patterns that name nothing, no matrix, data that do not suit the model, or a law that cannot be
            compared with it.
        StoreError: the text cannot be read.

    >>> import torch
    >>> found = look(torch.nn.Linear(64, 32))
    >>> found.table()[["matrix", "rows", "columns"]].values.tolist()
    [['weight', 32, 64]]
    """
    options, told = text or TextOptions(), progress or _silent
    patterns = (layers,) if isinstance(layers, str) else tuple(layers)
    source = _source(model_or_path, patterns)
    given = [predictive] if isinstance(predictive, str | Path | nn.Module) else list(predictive)
    # Read before anything is measured, so that what it lacks is said at once.
    on = _Data()
    if data is not None and not isinstance(data, str | Path) and not _is_tokens(data):
        on.batch = _watched(model_or_path, data, patterns)
    elif data is not None:
        on = _text(source, data, options, checkpoint or CheckpointOptions(), given, draft)
    if (given or draft) and on.laws is None:
        raise MeasureError(
            "laws of the next token and draft heads are measured on text: pass a text file (--text), or tokens (n, T+1)"
        )
    step = source.step if checkpoint is None or source.step is not None else checkpoint.step
    sheet = _weights(source, step or 0, told)
    notes = [*source.notes, *_measure(sheet, on, options, told, source.notes)]
    return Look(
        source.name,
        source.kind,
        step,
        _frame(sheet, step),
        _frame(sheet, step, spectra=True),
        dict(source.skipped),
        tuple(notes),
        on.told,
        None if on.subject is None else len(on.subject.head),
    )


@dataclass(eq=False)
class _Data:
    """What a model is measured on; without any of it its weights alone are.

    Attributes:
        subject, sequences: a decoder and tokens (n, T+1).
        laws: of the next token, that it is compared with on them.
        batch: a module with a batch that it takes.
        told: what it is, in words.
    """

    subject: Subject | None = None
    sequences: Any = None
    laws: Laws | None = None
    batch: WatchedSubject | None = None
    told: str = ""


def _text(
    source: _Source,
    data: Any,
    options: TextOptions,
    checkpoint: CheckpointOptions,
    predictive: Sequence[str | Path | nn.Module],
    draft: bool,
) -> _Data:
    """Build the decoder, and read its tokens and the laws that it is compared with."""
    from sims.studies.look.text import text_data, text_sequences, text_tokens

    subject = _subject(source, checkpoint)
    path, tokens, sequences, laws = None, None, data, None
    if isinstance(data, str | Path):
        path = Path(data)
        tokens = text_tokens(path, source.folder, subject)
        sequences = text_sequences(tokens, path, subject, options)
    text_data(subject, sequences, options)
    _refuse_faults(source, not_finite(subject, sequences[:1]))
    if predictive or draft:
        from sims.studies.look.predictive import prepare_laws

        laws = prepare_laws(subject, predictive, _teacher, sequences, tokens, draft=draft, text=path)
    of = f" of {data}" if path is not None else ""
    return _Data(
        subject, sequences, laws, told=f"{len(sequences)} sequences of {sequences.shape[1] - 1} tokens{of}"
    )


def _measure(
    sheet: LookRows, on: _Data, options: TextOptions, told: Progress, known: Sequence[str]
) -> list[str]:
    """Add what data show to the rows of the weights, and return what a reader should know."""
    parts, notes = [], []
    if on.subject is not None:
        from sims.studies.look.text import measure_text

        parts.append(measure_text(on.subject, on.sequences, options, told))
        if on.laws is not None:
            parts.append(on.laws.measure(on.subject, told))
            notes += on.laws.notes
    if on.batch is not None and on.batch.probe is not None:
        found, failed = measure_watched(on.batch, WatchedConfig(), weights=False)
        parts.append(found)
        notes += [f"{name} left out: {why}" for name, why in {**on.batch.left_out, **failed}.items()]
        notes += [note for note in on.batch.parts.notes if note not in known]
        on.told = f"{on.batch.probe.samples} samples"
    for part in parts:
        sheet.rows += part.rows
        sheet.spectra += part.spectra
    return notes


def _teacher(given: str | Path | nn.Module) -> Teacher:
    """Load another model."""
    from sims.studies.look.predictive import Teacher

    source = _source(given, ())
    return Teacher(source.name, _subject(source, CheckpointOptions()), source.folder)


def _weights(source: _Source, step: int, told: Progress) -> LookRows:
    """Measure the matrices one after the other."""
    sheet = LookRows(step, None)
    for done, (name, matrix) in enumerate(source.matrices()):
        told("weights", done, source.count)
        measure_matrix(sheet, name, matrix)
    told("weights", source.count, source.count)
    if not sheet.rows:
        raise MeasureError(
            f"{source.name} has no weight matrix; give the file or the module that holds the weights"
        )
    return sheet


def _is_tokens(data: Any) -> bool:
    return isinstance(data, Tensor) and not data.is_floating_point()


def _watched(model: Any, data: Any, patterns: Sequence[str]) -> WatchedSubject:
    """Return a module in memory together with a batch that it is measured on."""
    if not isinstance(model, nn.Module):
        raise MeasureError(
            f"the data are a {type(data).__name__}; for a checkpoint pass a text file, or a tensor (n, T+1) of "
            "integers; a module in memory is measured on any batch that it takes"
        )
    check_module(model)
    with undisturbed(model):
        probe = Probe(first_batch(data))
    return WatchedSubject.of(model, probe, patterns)


@dataclass(frozen=True, eq=False)
class _Source:
    """The matrices of a model, one after the other, and how its model is built for a text.

    Attributes:
        name, kind, step, skipped, notes: as of `Look`.
        count: number of matrices.
        matrices: yields name and matrix.
        subject: builds the model that data are measured with.
        folder: where its tokeniser may lie.
    """

    name: str
    kind: str
    step: int | None
    count: int
    matrices: Callable[[], Iterator[tuple[str, Tensor]]]
    subject: Callable[[CheckpointOptions], Subject]
    folder: Path | None = None
    skipped: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()


def _subject(source: _Source, options: CheckpointOptions) -> Subject:
    """Build the model for a text, or name its weights with NaN and Inf."""
    subject = source.subject(options)
    _refuse_faults(source, faulty_weights(subject))
    return subject


def _refuse_faults(source: _Source, faults: str) -> None:
    if faults:
        raise MeasureError(
            f"{faults} in {source.name}, so that it has no activations and no loss; leave the data out to measure the "
            "other weights"
        )


def _source(given: Any, patterns: tuple[str, ...]) -> _Source:
    if isinstance(given, nn.Module):
        return _module(given, patterns)
    if isinstance(given, str | os.PathLike):
        return _path(Path(given), patterns)
    raise MeasureError(
        f"the model is a {type(given).__name__}; pass a torch.nn.Module, or the path of a file or folder with "
        "its weights"
    )


def _module(model: nn.Module, patterns: tuple[str, ...]) -> _Source:
    parts = find_parts(model, patterns)
    inner = unwrapped(model)

    def subject(options: CheckpointOptions) -> Subject:
        from sims.models.module import ModuleSubject
        from sims.models.parts import layout_of

        return ModuleSubject.of(inner, layout_of(inner), options.step or 0)

    def matrices() -> Iterator[tuple[str, Tensor]]:
        for name, place in parts.matrices.items():
            yield name, place.of(inner)

    name = type(inner).__name__
    return _Source(name, "module in memory", None, len(parts.matrices), matrices, subject, notes=parts.notes)


def _path(path: Path, patterns: tuple[str, ...]) -> _Source:
    stored = stored_weights(path)
    if patterns:
        stored = stored.matching(patterns)
    place = stored.path

    def matrices() -> Iterator[tuple[str, Tensor]]:
        for each in stored:
            yield each.name, each.tensor

    return _Source(
        path.resolve().name,
        stored.kind,
        stored.step,
        len(stored),
        matrices,
        lambda options: _loaded(place, options),
        place if place.is_dir() else place.parent,
        stored.skipped,
        stored.notes,
    )


def _loaded(path: Path, options: CheckpointOptions) -> Subject:
    """Load the model of a checkpoint, whose step need not be known."""
    from sims.models.checkpoints import inspect, read

    info = inspect(path, options)
    return read(path, options).subject(changed(info, step=info.step or 0), None)


def _frame(sheet: MeasurementRows, step: int | None, spectra: bool = False) -> pd.DataFrame:
    """Return rows or spectra as a data frame; the step is missing where it is not known."""
    rows, schema = (sheet.spectra, SPECTRA) if spectra else (sheet.rows, ROWS)
    columns = list(schema.names)
    if not spectra:
        columns.insert(columns.index("null_high"), "null_low")
    table = pd.DataFrame(rows, columns=columns)
    missing: Any = pd.NA
    table["step"] = pd.array([missing if step is None else step] * len(table), "Int64")
    table["tokens"] = table["tokens"].astype("Int64")
    return table.astype({"seen": "boolean"}) if "seen" in table else table


def _silent(part: str, done: int, total: int) -> None:
    """Show no progress."""
