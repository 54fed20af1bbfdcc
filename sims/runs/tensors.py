"""Read and write tensor files that record the configuration of their run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from sims.runs.layout import TEXT, TOY, WRITER
from sims.runs.spec import RunSpec
from sims.system.files import write_atomic
from toymodel.config import RunConfig, canonical_hash, canonical_json
from toymodel.errors import CheckpointError


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
    if metadata.get("writer") != WRITER:
        raise CheckpointError(
            f"{path} was not written by this package; toy checkpoints carry their configuration"
        )
    if metadata["config"] != canonical_hash(config):
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
    data = save({k: t.detach().cpu().contiguous() for k, t in tensors.items()}, metadata)
    write_atomic(path, lambda file: file.write(data))
