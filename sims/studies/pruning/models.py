"""Find the models that are pruned, and the three disjoint texts of each: calibration, selection and test."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sims.measure.cache import file_digest
from sims.models.checkpoint_info import CheckpointInfo, CheckpointOptions
from sims.models.checkpoints import CheckpointRun, inspect, is_checkpoint, read
from sims.models.formats.own import LoadedTransformer
from sims.models.subject import Subject
from sims.runs.layout import WRITER
from sims.runs.store import RunFolder, run_folders
from sims.studies.stored import without_end
from sims.system.errors import MeasureError
from sims.text.corpus import vocabulary_of
from sims.text.shards import TokenSequences, shard_files
from toymodel.config import RunConfig
from toymodel.data import dataset
from toymodel.sequences import Rows, Sequences

SPLITS = ("calibration", "selection", "test")
# Of the order of the sequences: which of them are of which part.
SEED = 0
# Inputs of a sequence where neither the model nor the user limits them.
LONGEST = 2048


@dataclass(frozen=True)
class Sizes:
    """How many sequences calibrate, select the spread of ratios, and test; and their length."""

    calibration: int = 64
    selection: int = 64
    test: int = 256
    length: int | None = None


@dataclass(frozen=True, eq=False)
class Texts:
    """Three disjoint sets of sequences (n, T+1)."""

    calibration: Tensor
    selection: Tensor
    test: Tensor

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all tokens."""
        found = hashlib.sha256()
        for name in SPLITS:
            own: Tensor = getattr(self, name)
            found.update(str(tuple(own.shape)).encode())
            found.update(own.to(torch.int64).numpy().tobytes())
        return found.hexdigest()

    def to(self, device: torch.device) -> Texts:
        """Return them on a device."""
        return Texts(*(getattr(self, name).to(device) for name in SPLITS))


@dataclass(frozen=True, eq=False)
class PruneModel:
    """One model that is pruned.

    Attributes:
        name: in tables, and of its folder.
        info: its checkpoint.
        options: for reading it.
        spec: of a toy run, which has its own text.
        device: where it is pruned.
    """

    name: str
    info: CheckpointInfo
    options: CheckpointOptions
    spec: RunConfig | None = None
    device: str = "cpu"

    def load(self) -> Subject:
        """Read the model."""
        info = replace(self.info, step=self.info.step or 0)
        return read(self.info.path, self.options).subject(info, self.device)

    @cached_property
    def digest(self) -> list[str]:
        """Digests of the files of the checkpoint, and what it was read with."""
        path = self.info.path
        files = sorted(p for p in path.iterdir() if p.is_file()) if path.is_dir() else [path]
        return [*(f"{p.name} {file_digest(p)}" for p in files), repr(self.options)]


def prune_models(
    paths: Sequence[Path], options: CheckpointOptions, device: str, notes: list[str]
) -> Iterator[PruneModel]:
    """Yield the last model of each run or checkpoint.

    Args:
        paths: run folders of this package, folders of such runs, checkpoints, or folders of the checkpoints of one run.
        options: what a checkpoint may not record.
        device: where they are pruned.
        notes: gets why runs of a folder were left out.

    Raises:
        MeasureError: a run without the weights that it ended with, a folder without any, or two models of one name.
        CheckpointError: neither a run nor a checkpoint.
    """
    found = [model for path in paths for model in _in_path(path.resolve(), options, device, notes)]
    names = [model.name for model in found]
    if double := next((name for name in names if names.count(name) > 1), None):
        raise MeasureError(f"two models are named {double}; name each once, or rename one of their folders")
    yield from found


def _in_path(path: Path, options: CheckpointOptions, device: str, notes: list[str]) -> Iterator[PruneModel]:
    if (path / "run.json").exists():
        folder = RunFolder(path)
        if reason := without_end(folder):
            raise MeasureError(f"{path} cannot be pruned: {reason}")
        yield _of_run(folder, options, device)
        return
    if path.is_dir() and not is_checkpoint(path) and (runs := run_folders(path)):
        fit = []
        for run in runs:
            if reason := without_end(run):
                notes.append(f"{run.path.name} was left out: {reason}.")
            else:
                fit.append(run)
        if not fit:
            raise MeasureError(f"{path} holds no run that can be pruned: {notes[-1]}")
        yield from (_of_run(run, options, device) for run in fit)
        return
    info = inspect(path, options) if is_checkpoint(path) else CheckpointRun.of(path, options).found[-1]
    own = info.path
    name = own.name if own.is_dir() else f"{own.parent.name}-{own.stem}"
    # A file of this package names its run, and with it the task of a toy.
    loaded = read(own, options) if info.kind == WRITER else None
    spec = loaded.config if isinstance(loaded, LoadedTransformer) else None
    yield PruneModel(name, info, options, spec if isinstance(spec, RunConfig) else None, device)


def _of_run(folder: RunFolder, options: CheckpointOptions, device: str) -> PruneModel:
    spec = folder.spec
    info = inspect(folder.checkpoints()[-1], options)
    return PruneModel(folder.path.name, info, options, spec if isinstance(spec, RunConfig) else None, device)


def check_data(models: Sequence[PruneModel], data: Path | None) -> None:
    """Refuse language models without token shards.

    Raises:
        MeasureError: such a model.
    """
    if data is None and (others := [model.name for model in models if model.spec is None]):
        raise MeasureError(f"{others[0]} is a language model; name its token shards by --data")


def texts_of(model: PruneModel, subject: Subject, data: Path | None, sizes: Sizes) -> Texts:
    """Return the three texts of a model: of its shards, or of the task of a toy run.

    Calibration comes from the training part where there is one, selection and test from the validation part.

    Args:
        model: where it is from.
        subject: the model.
        data: token shards; None for toy runs.
        sizes: of the texts.

    Raises:
        MeasureError: no shards for a language model, shards of a larger vocabulary than the model's, or fewer sequences
            (of a toy: different ones) than asked for.
        StoreError: no shards there, or damaged ones.
    """
    if model.spec is not None:
        own = dataset(model.spec.task)
        return toy_texts(own.train.tokens, own.val.tokens, sizes, model.name)
    check_data([model], data)
    assert data is not None
    vocabulary, known = vocabulary_of(data), len(subject.head)
    if vocabulary > known:
        raise MeasureError(
            f"the text of {data} has {vocabulary} tokens and {model.name} knows {known}; name shards in the vocabulary "
            "of the model by --data"
        )
    length = min(sizes.length or LONGEST, subject.longest or LONGEST)
    parts = _shards(data)
    rows = [TokenSequences(files, length, vocabulary) for files in parts]
    return split_texts(rows[0], rows[-1], sizes, str(data))


def _shards(data: Path) -> list[list[Path]]:
    """Return training and validation shards, or all shards where the folder does not part them."""
    every = shard_files(data)
    own = [[p for p in every if split in p.stem.split("_")] for split in ("train", "val")]
    return own if data.is_dir() and all(own) else [every]


def toy_texts(train: np.ndarray, val: np.ndarray, sizes: Sizes, where: str) -> Texts:
    """Choose three sets of sequences of a toy without one in common: its splits repeat sequences, and share some.

    Args:
        train: (n, T+1) tokens; calibrates.
        val: (m, T+1) tokens; selects and tests.
        sizes: of the sets.
        where: they are from, for messages.

    Raises:
        MeasureError: fewer different sequences than asked for.
    """
    where = f"{where}, each sequence counted once,"
    (calibration,) = _spread(_different(train, train[:0]), [sizes.calibration], where)
    held_out = _different(val, calibration.numpy())
    return Texts(calibration, *_spread(held_out, [sizes.selection, sizes.test], where))


def _different(tokens: np.ndarray, earlier: np.ndarray) -> Rows:
    """Return each sequence once, in their order, without those of an earlier set."""
    _, first = np.unique(np.concatenate([earlier, tokens]), axis=0, return_index=True)
    kept = np.sort(first[first >= len(earlier)]) - len(earlier)
    return Rows(torch.as_tensor(tokens[kept]).long())


def split_texts(train: Sequences, held_out: Sequences, sizes: Sizes, where: str) -> Texts:
    """Choose three disjoint sets of sequences, evenly spread over the text.

    Args:
        train: calibrates; the same as `held_out` where there is one text alone.
        held_out: selects and tests.
        sizes: of the sets.
        where: the text is from, for messages.

    Raises:
        MeasureError: fewer sequences than asked for.
    """
    wanted = [sizes.selection, sizes.test]
    if train is held_out:
        chosen = _spread(held_out, [sizes.calibration, *wanted], where)
    else:
        chosen = _spread(train, [sizes.calibration], where) + _spread(held_out, wanted, where)
    return Texts(*chosen)


def _spread(rows: Sequences, counts: Sequence[int], where: str) -> list[Tensor]:
    total = sum(counts)
    if len(rows) < total:
        raise MeasureError(
            f"{where} holds {len(rows)} sequences, and {total} are asked for ({' + '.join(map(str, counts))}); lower "
            "--calibration, --selection or --test, or give more text"
        )
    places = np.linspace(0, len(rows) - 1, total).round().astype(int)
    places = np.random.default_rng(SEED).permutation(places)
    bounds = np.cumsum(counts)[:-1]
    return [rows.take(np.sort(own)) for own in np.split(places, bounds)]
