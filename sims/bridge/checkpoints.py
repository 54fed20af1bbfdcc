"""Checkpoints of any known format, and runs of them in the order of training."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sims.bridge import modded, nanogpt
from sims.bridge.foreign import Built, Found, Hints
from sims.bridge.module import ModuleSubject
from sims.bridge.reading import SAFETENSORS, TORCH_ENDINGS, read_safetensors, read_torch
from toymodel.errors import CheckpointError

_NO_HINTS = Hints()
_FORMATS = (nanogpt, modded)


def look(path: Path, hints: Hints = _NO_HINTS) -> Found:
    """What a file is and where in its training it was taken; the tensors are not read.

    Raises:
        CheckpointError: missing, damaged, or nothing that is known.
    """
    data = _read(path)
    return _format(data, path).look(data, path, hints)


def load(path: Path, hints: Hints = _NO_HINTS, device: torch.device | str | None = None) -> ModuleSubject:
    """The subject of one checkpoint, in float32, after its checksums were compared.

    Args:
        path: file.
        hints: what the file may not say.
        device: where it is measured, by default the processor.

    Raises:
        CheckpointError: missing, truncated, damaged, of no known format, of other sizes than it says, or of a step that
            neither the file nor the hints say.
    """
    data = _read(path, verify=True)
    form = _format(data, path)
    found, built = form.look(data, path, hints), form.build(data, path, hints)
    return subject_of(found, built, device)


def subject_of(found: Found, built: Built, device: torch.device | str | None) -> ModuleSubject:
    """The subject of a model that was built.

    Raises:
        CheckpointError: nothing says its step.
    """
    if found.step is None:
        raise CheckpointError(f"{found.path} does not say at which step it was taken; pass step")
    about = {"kind": found.kind, "path": str(found.path), **built.facts}
    return ModuleSubject.of(built.model, built.layout, found.step, found.tokens, device, about)


def _format(data: Mapping[str, Any], path: Path) -> Any:
    for form in _FORMATS:
        if form.recognises(data):
            return form
    raise CheckpointError(
        f"{path} is no checkpoint that is known (its keys: {', '.join(map(str, list(data)[:6]))}); known are nanoGPT's "
        "(model, model_args), states of the GPT-2 shape (transformer.wte, transformer.h) and folders of Hugging Face; "
        "any other model can be measured by naming its sites (sims.bridge.module)"
    )


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
