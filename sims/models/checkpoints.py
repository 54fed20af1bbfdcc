"""Checkpoints of any format, and runs of them in the order of training."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from sims.models.checkpoint_info import CheckpointInfo, CheckpointOptions, check_recorded
from sims.models.formats import formats
from sims.models.formats.format import Format, LoadedModel
from sims.models.reading import CheckpointSource
from sims.models.subject import Subject
from sims.system.plain import some
from toymodel.errors import CheckpointError

_DEFAULT = CheckpointOptions()


def inspect(path: Path | str, options: CheckpointOptions = _DEFAULT) -> CheckpointInfo:
    """Return the format, step and tokens of a checkpoint without loading its model.

    A step that is not recorded is tokens over `CheckpointOptions.tokens_per_step`, if both are known.

    Raises:
        CheckpointError: missing, damaged, or of no known format.
    """
    source = CheckpointSource(_path(path))
    return _inspect(_format(source), source, options)


def read(path: Path | str, options: CheckpointOptions = _DEFAULT) -> LoadedModel:
    """Load the model of a checkpoint, with or without a known step.

    The checksums of a torch file are compared; safetensors have none.

    Raises:
        CheckpointError: missing, truncated, damaged, of no known format, or of other sizes than it says.
        MissingExtraError: its format needs a package that is not installed.
    """
    source = CheckpointSource(_path(path), verify=True)
    return _format(source).load(source, options)


def load(
    path: Path | str, options: CheckpointOptions = _DEFAULT, device: torch.device | str | None = None
) -> Subject:
    """Load the subject of a checkpoint, in float32.

    Args:
        path: file or folder.
        options: what it may not record.
        device: where it is measured, by default the CPU.

    Raises:
        CheckpointError: as `read`; or the step is neither recorded nor in the options.
        MissingExtraError: as `read`.
    """
    source = CheckpointSource(_path(path), verify=True)
    form = _format(source)
    info = _inspect(form, source, options)
    if info.step is None:
        raise CheckpointError(f"{path} does not say at which step it was taken; pass step")
    return form.load(source, options).subject(info, device)


@dataclass(frozen=True)
class CheckpointRun:
    """The checkpoints of one training run, ordered by step; each is loaded when it is read.

        for subject in CheckpointRun.of(Path("logs/run")):
            measure(subject)

    Args:
        found: the checkpoints, by step.
        options, device: as for `load`.
        folder: that they were found in; None where they were named one by one.
    """

    found: tuple[CheckpointInfo, ...]
    options: CheckpointOptions = _DEFAULT
    device: torch.device | str | None = None
    folder: Path | None = None

    @classmethod
    def of(
        cls,
        paths: Path | str | Iterable[Path | str],
        options: CheckpointOptions = _DEFAULT,
        device: torch.device | str | None = None,
    ) -> CheckpointRun:
        """Find the checkpoints of a file, of a folder (which may be one checkpoint), or of several.

        Raises:
            CheckpointError: nothing found, an unknown format, several formats, an unknown step, or two checkpoints of
                one step.
        """
        given: Any = paths
        several = isinstance(given, Iterable) and not isinstance(given, str | Mapping)
        chosen = [_path(path) for path in (given if several else [given])]
        candidates = [inner for path in chosen for inner in _candidates(path)]
        if not candidates:
            raise CheckpointError("no checkpoints were named; pass files or folders")
        if options.step is not None and len(candidates) > 1:
            raise CheckpointError(
                f"step is one number and cannot be that of all {len(candidates)} checkpoints"
            )
        found = [inspect(path, options) for path in candidates]
        if len(kinds := {f.kind for f in found}) > 1:
            raise CheckpointError(
                f"one run is of one format, and here are {', '.join(sorted(kinds))}; pass one of them"
            )
        if unplaced := [str(f.path) for f in found if f.step is None]:
            raise CheckpointError(
                f"nothing says at which step {some(unplaced)} were taken; name them step<N>, or pass step for a single "
                "one, or tokens_per_step where tokens are known"
            )
        ordered = sorted(found, key=lambda f: f.step or 0)
        for one, other in pairwise(ordered):
            if one.step == other.step:
                raise CheckpointError(
                    f"{one.path} and {other.path} are both of step {one.step}; take one of them out of the run"
                )
        whole = len(chosen) == 1 and not is_checkpoint(chosen[0])
        return cls(tuple(ordered), options, device, chosen[0] if whole else None)

    @property
    def steps(self) -> tuple[int, ...]:
        """Optimiser steps, ascending."""
        return tuple(f.step for f in self.found if f.step is not None)

    @property
    def gaps(self) -> tuple[tuple[int, int], ...]:
        """Consecutive steps further apart than the most common distance, if that occurs twice or more."""
        distances = Counter(b - a for a, b in pairwise(self.steps))
        usual, times = distances.most_common(1)[0] if distances else (0, 0)
        return tuple((a, b) for a, b in pairwise(self.steps) if times > 1 and b - a > usual)

    @property
    def beside(self) -> list[str]:
        """Say which checkpoints lie in the folder of the one that is read, as a Trainer leaves them, and are not."""
        path = self.found[-1].path
        if len(self) > 1 or not path.is_dir():
            return []
        inside = sorted({p.name for form in formats() for p in form.checkpoints(path) if p.is_dir()})
        found = f"{path} is one checkpoint, and {some(inside)} inside it are not read"
        return [f"{found}; for a run move them into a folder of their own"] if inside else []

    def __len__(self) -> int:
        return len(self.found)

    def __getitem__(self, i: int) -> Subject:
        return load(self.found[i].path, self.options, self.device)

    def __iter__(self) -> Iterator[Subject]:
        return self.subjects(range(len(self)))

    def subjects(self, which: Sequence[int]) -> Iterator[Subject]:
        """Yield subjects one by one, each loaded when it is reached.

        Args:
            which: indices into `found`.

        Raises:
            CheckpointError: as `load`; or one has other matrices than the first one.
        """
        first: dict[str, torch.Size] | None = None
        for i in which:
            subject = self[i]
            shapes = {name: matrix.shape for name, matrix in subject.matrices.items()}
            first = first or shapes
            if shapes != first:
                raise CheckpointError(
                    f"{self.found[i].path} has other matrices than {self.found[which[0]].path}; they are not of one "
                    "run: measure them one by one"
                )
            yield subject


def _path(path: Any) -> Path:
    """Return a path, or refuse what is none: a model, or its state."""
    if isinstance(path, str | os.PathLike):
        return Path(path)
    raise CheckpointError(
        f"a checkpoint is a path, and this is a {type(path).__name__}; save it and name the file, or measure a module "
        "that is there by naming its sites (sims.models.module)"
    )


def is_checkpoint(path: Path) -> bool:
    """Return whether a path is read as one checkpoint: a file, or a folder that a format recognises."""
    return path.is_file() or _recognised(CheckpointSource(path)) is not None


def _candidates(path: Path) -> list[Path]:
    """Return the path itself, or what looks like a checkpoint in it."""
    if is_checkpoint(path):
        return [path]
    if not path.is_dir():
        raise CheckpointError(f"{path} does not exist")
    inside = sorted({p for form in formats() for p in form.checkpoints(path)})
    if not inside:
        runs = [file.parent.name for file in sorted(path.glob("*/run.json"))]
        remedy = f"it is a folder of runs: name one of them ({some(runs)})" if runs else _known()
        raise CheckpointError(f"{path} holds no checkpoint; {remedy}")
    return inside


def _inspect(form: Format, source: CheckpointSource, options: CheckpointOptions) -> CheckpointInfo:
    info = form.inspect(source, options)
    if options.step is not None and info.step != options.step:
        raise CheckpointError(
            f"{source.path} is of step {info.step}, and --step is {options.step}; leave --step out, or correct it"
        )
    if info.step and info.tokens is not None:
        check_recorded(options, {"tokens_per_step": round(info.tokens / info.step)}, source.path)
    if info.step is None and info.tokens is not None and options.tokens_per_step is not None:
        return replace(info, step=round(info.tokens / options.tokens_per_step))
    return info


def _recognised(source: CheckpointSource) -> Format | None:
    return next((form for form in formats() if form.recognises(source)), None)


def _format(source: CheckpointSource) -> Format:
    """Return the first format that recognises a checkpoint, or refuse it."""
    path = source.path
    if not path.exists():
        raise CheckpointError(f"{path} does not exist")
    form = _recognised(source)
    if form is None:
        content, ending = source.content, repr(path.suffix) if path.suffix else "nothing"
        # A state of tensors alone, which is read as one under "model", has no other keys.
        state = content["model"] if list(content) == ["model"] else None
        tensors = isinstance(state, Mapping)
        keys = ", ".join(map(str, list(state if tensors else content)[:6]))
        what = f"its {'tensors' if tensors else 'keys'}: {keys}" if keys else f"it ends in {ending}"
        raise CheckpointError(
            f"{path} is no checkpoint that is known ({what}); {_known()}; the weights of any other model are measured "
            "by `speclens look`, and in Python its activations too: sims.look(model, batch) of the module in memory"
        )
    return form


def _known() -> str:
    return f"known are {'; '.join(form.looks_like for form in formats())}"
