"""Read and write tensor files that record the configuration of their run, and a digest of all that they hold.

Files of earlier versions have no digest; they are read as they are.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from sims.runs.layout import TEXT, TOY, WRITER
from sims.runs.spec import RunSpec
from sims.system.files import write_atomic
from toymodel.config import RunConfig, as_dict, canonical_hash, canonical_json
from toymodel.errors import CheckpointError

# Key of the metadata.
DIGEST = "sha256"
# The other keys that are written, also by earlier versions: a digest under a damaged name must not pass for none.
_KEYS = frozenset({"writer", "step", "run_id", "config", "kind", "train", "seconds", "upto"})


def check_digest(path: Path, metadata: Mapping[str, str], tensors: Mapping[str, Tensor]) -> None:
    """Refuse a file whose content is not what was written; one of an earlier version says nothing of it.

    Args:
        path: the file.
        metadata, tensors: all that it holds.

    Raises:
        CheckpointError: the digest is not that of the content.
    """
    whole = (
        metadata[DIGEST] == _digest(metadata, tensors) if DIGEST in metadata else _KEYS.issuperset(metadata)
    )
    if not whole:
        raise CheckpointError(
            f"{path} is not what was written (its SHA-256 is another one): it was damaged or edited; restore it from a "
            "copy, or delete the run folder and run again"
        )


def _digest(metadata: Mapping[str, str], tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 (hex) of metadata other than the digest, and of names, types, shapes and bytes of tensors."""
    head = {name: text for name, text in metadata.items() if name != DIGEST}
    shapes = {name: [str(t.dtype), *t.shape] for name, t in tensors.items()}
    digest = hashlib.sha256(json.dumps([head, shapes], sort_keys=True).encode())
    for name in sorted(tensors):
        digest.update(tensors[name].reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def load_tensors(path: Path, config: RunSpec) -> tuple[int, dict[str, Tensor]]:
    """Read the step and the tensors of a checkpoint.

    Raises:
        CheckpointError: truncated, damaged, not written by this package, or of another configuration.
    """
    metadata, tensors = read_tensors(path, config)
    return int(metadata["step"]), tensors


def read_tensors(path: Path, config: RunSpec) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Read the metadata and the tensors of a file of this run.

    Raises:
        CheckpointError: truncated, damaged, not written by this package, or of another configuration.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(
            f"{path} cannot be read ({error}); it is truncated or damaged: delete it and run the same command again "
            "(a sweep also needs --retry-failed)"
        ) from error
    check_digest(path, metadata, tensors)
    if metadata.get("writer") != WRITER:
        raise CheckpointError(
            f"{path} was not written by this package; toy checkpoints carry their configuration"
        )
    # Earlier versions wrote equal numbers as they were given, 1 or 1.0.
    if metadata["config"] != canonical_hash(config) and json.loads(metadata.get("train", "{}")) != as_dict(
        config
    ):
        raise CheckpointError(
            f"{path} belongs to another configuration ({metadata['run_id']}, expected {config.run_id})"
        )
    return metadata, tensors


def write_tensors(path: Path, config: RunSpec, step: int, tensors: Mapping[str, Tensor], **more: str) -> None:
    """Write tensors with the configuration of their run.

    Args:
        path: the file, replaced atomically.
        config: the run.
        step: of the run.
        tensors: by name; copied to the CPU.
        more: further metadata.

    Raises:
        StoreError: the file cannot be written.
    """
    metadata = {
        "writer": WRITER,
        "step": str(step),
        "run_id": config.run_id,
        "config": canonical_hash(config),
        "kind": TOY if isinstance(config, RunConfig) else TEXT,
        "train": canonical_json(config),
        **more,
    }
    stored = {k: t.detach().cpu().contiguous() for k, t in tensors.items()}
    data = save(stored, {**metadata, DIGEST: _digest(metadata, stored)})
    write_atomic(path, lambda file: file.write(data))
