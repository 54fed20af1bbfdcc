"""Checkpoints of any known format, and runs of them in the order of training."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sims.models.checkpoint_info import CheckpointInfo, CheckpointOptions, LoadedModel
from sims.models.formats import huggingface, modded, nanogpt
from sims.models.formats import own as trained
from sims.models.gpt import some
from sims.models.module import ModuleSubject
from sims.models.reading import SAFETENSORS, TORCH_ENDINGS, read_metadata, read_safetensors, read_torch
from sims.models.subject import Subject
from toymodel.errors import CheckpointError

_NO_HINTS = CheckpointOptions()
_FORMATS = (nanogpt, modded)


def look(path: Path, hints: CheckpointOptions = _NO_HINTS) -> CheckpointInfo:
    """What a file or a folder of Hugging Face is and where in its training it was taken; no tensor is read.

    A step that only tokens tell is their quotient by `Hints.tokens_per_step`.

    Raises:
        CheckpointError: missing, damaged, or nothing that is known.
    """
    if huggingface.recognises(path):
        found = huggingface.look(path, hints)
    elif trained.recognises(said := _metadata(path)):
        found = trained.look(said, path)
    else:
        data = _read(path)
        found = _format(data, path).look(data, path, hints)
    if found.step is None and found.tokens is not None and hints.tokens_per_step is not None:
        return replace(found, step=round(found.tokens / hints.tokens_per_step))
    return found


def build(path: Path, hints: CheckpointOptions = _NO_HINTS) -> LoadedModel:
    """The model of one checkpoint of another project, after the checksums of its file were compared.

    Safetensors have none. A checkpoint of this package is no module: `load` it.

    Raises:
        CheckpointError: missing, truncated, damaged, of no known format, or of other sizes than it says.
        MissingExtraError: a folder of Hugging Face without the extra `hf`.
    """
    if huggingface.recognises(path):
        return huggingface.build(path)
    data = _read(path, verify=True)
    return _format(data, path).build(data, path, hints)


def load(
    path: Path, hints: CheckpointOptions = _NO_HINTS, device: torch.device | str | None = None
) -> Subject:
    """The subject of one checkpoint, in float32.

    Args:
        path: file, or folder of Hugging Face.
        hints: what it may not say.
        device: where it is measured, by default the processor.

    Raises:
        CheckpointError: as `look` and `build`; or neither the checkpoint nor the hints say its step.
        MissingExtraError: as `build`.
    """
    found = look(path, hints)
    if found.step is None:
        raise CheckpointError(f"{path} does not say at which step it was taken; pass step")
    if found.kind == trained.KIND:
        return trained.load(_read(path), path, device or "cpu")
    built = build(path, hints)
    about = {"kind": found.kind, "path": str(path), **built.facts}
    return ModuleSubject.of(built.model, built.layout, found.step, found.tokens, device, about)


@dataclass(frozen=True)
class CheckpointRun:
    """The checkpoints of one training run, in the order of their steps; each is loaded when it is asked for.

        for subject in CheckpointRun.of(Path("logs/run")):
            measure(subject)

    Args:
        found: the checkpoints, by step.
        hints, device: as for `load`.
    """

    found: tuple[CheckpointInfo, ...]
    hints: CheckpointOptions = _NO_HINTS
    device: torch.device | str | None = None

    @classmethod
    def of(
        cls,
        paths: Path | Sequence[Path],
        hints: CheckpointOptions = _NO_HINTS,
        device: torch.device | str | None = None,
    ) -> CheckpointRun:
        """The run of a file, of a folder (its checkpoints, or the folder itself where it is one), or of several.

        Raises:
            CheckpointError: nothing there, something unknown among it, formats mixed, a step that nothing says, or two
                checkpoints of one step.
        """
        chosen = [paths] if isinstance(paths, Path) else list(paths)
        candidates = [inner for path in chosen for inner in _candidates(path)]
        if not candidates:
            raise CheckpointError("no checkpoints were named; pass files or folders")
        if hints.step is not None and len(candidates) > 1:
            raise CheckpointError(
                f"step is one number and cannot be that of all {len(candidates)} checkpoints"
            )
        found = [look(path, hints) for path in candidates]
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
        return cls(tuple(ordered), hints, device)

    @property
    def steps(self) -> tuple[int, ...]:
        """Optimiser steps, ascending."""
        return tuple(f.step for f in self.found if f.step is not None)

    @property
    def gaps(self) -> tuple[tuple[int, int], ...]:
        """Neighbouring steps that lie further apart than the commonest distance, where one occurs twice or more."""
        distances = Counter(b - a for a, b in pairwise(self.steps))
        usual, times = distances.most_common(1)[0] if distances else (0, 0)
        return tuple((a, b) for a, b in pairwise(self.steps) if times > 1 and b - a > usual)

    def __len__(self) -> int:
        return len(self.found)

    def __getitem__(self, i: int) -> Subject:
        return load(self.found[i].path, self.hints, self.device)

    def __iter__(self) -> Iterator[Subject]:
        return self.subjects(range(len(self)))

    def subjects(self, which: Sequence[int]) -> Iterator[Subject]:
        """Subjects one after the other, each loaded when its turn comes.

        Args:
            which: places in `found`.

        Raises:
            CheckpointError: as `load`; or one has other matrices than the first of them.
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


def is_checkpoint(path: Path) -> bool:
    """Whether the path is to be read as one checkpoint: a file, or a folder with a model's configuration."""
    return path.is_file() or huggingface.recognises(path)


def _candidates(path: Path) -> list[Path]:
    """The path itself, or what lies in it and looks like a checkpoint."""
    if is_checkpoint(path):
        return [path]
    if not path.is_dir():
        raise CheckpointError(f"{path} does not exist")
    if (path / "run.json").exists():
        # A run folder of this package.
        path = path / "checkpoints"
    # Token shards end in .bin as well: those are taken only when they are named.
    endings = {*TORCH_ENDINGS, SAFETENSORS} - {".bin"}
    inside = [p for p in sorted(path.iterdir()) if huggingface.recognises(p) or p.suffix in endings]
    if not inside:
        raise CheckpointError(
            f"{path} holds no checkpoint: no folder with a {huggingface.CONFIG} and no file ending in "
            f"{', '.join(sorted(endings))}"
        )
    return inside


def _format(data: Mapping[str, Any], path: Path) -> Any:
    for form in _FORMATS:
        if form.recognises(data):
            return form
    raise CheckpointError(
        f"{path} is no checkpoint that is known (its keys: {', '.join(map(str, list(data)[:6]))}); known are those of "
        "this package, nanoGPT's (model, model_args), states of the GPT-2 shape (transformer.wte, transformer.h) and "
        "folders of Hugging Face; "
        "any other model can be measured by naming its sites (sims.models.module)"
    )


def _metadata(path: Path) -> dict[str, Any]:
    """What a safetensors file says of itself, without its tensors; nothing of any other."""
    if path.suffix != SAFETENSORS or not path.is_file():
        return {}
    return {name: _from_json(text) for name, text in read_metadata(path).items()}


def _read(path: Path, verify: bool = False) -> Mapping[str, Any]:
    """The dictionary of a file, with its state under "model"."""
    if path.suffix == SAFETENSORS:
        metadata, tensors = read_safetensors(path)
        return {"model": tensors, **{name: _from_json(text) for name, text in metadata.items()}}
    if path.suffix not in TORCH_ENDINGS:
        raise CheckpointError(
            f"{path} ends in {path.suffix or 'nothing'!r}; checkpoints end in "
            f"{', '.join((*TORCH_ENDINGS, SAFETENSORS))}, or are folders with a config.json"
        )
    data = read_torch(path, verify)
    bare = bool(data) and all(isinstance(value, Tensor) for value in data.values())
    return {"model": data} if bare else data


def _from_json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
