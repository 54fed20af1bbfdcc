"""Read checkpoint files: tensors and plain data only, code in them is never run."""

from __future__ import annotations

import json
import pickle
import re
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sims.system.errors import first_line
from sims.system.files import visible
from toymodel.errors import CheckpointError

TORCH_ENDINGS = (".pt", ".pth", ".bin", ".ckpt")
SAFETENSORS = ".safetensors"

# Training checkpoints hold states of numpy's random generators and losses that are numpy scalars. These rebuild arrays
# and scalars and nothing else; numpy 1 has them in numpy.core, numpy 2 in numpy._core.
_NUMPY = [
    (np.ndarray, "numpy.ndarray"),
    (np.dtype, "numpy.dtype"),
    *(
        (getattr(np._core.multiarray, name), f"numpy.{place}.multiarray.{name}")  # type: ignore[attr-defined]
        for name in ("_reconstruct", "scalar")
        for place in ("_core", "core")
    ),
    *(type(np.dtype(name)) for name in ("uint32", "int64", "float32", "float64")),
]


@dataclass(frozen=True)
class CheckpointSource:
    """A path that may be a checkpoint; its content is read on first use, and once.

    Args:
        path: file or folder.
        verify: compare the checksums of a torch file when its content is read; safetensors have none.
    """

    path: Path
    verify: bool = False

    @cached_property
    def metadata(self) -> Mapping[str, Any]:
        """Metadata of a safetensors file, read without its tensors; empty for any other path.

        Raises:
            CheckpointError: the file is truncated or damaged.
        """
        if self.path.suffix != SAFETENSORS or not self.path.is_file():
            return {}
        return {name: _from_json(text) for name, text in read_metadata(self.path).items()}

    @cached_property
    def content(self) -> Mapping[str, Any]:
        """Dictionary of a torch or safetensors file, its state under "model"; empty for any other path.

        Raises:
            CheckpointError: as `read_torch`.
        """
        if not self.path.is_file():
            return {}
        if self.path.suffix == SAFETENSORS:
            metadata, tensors = read_safetensors(self.path)
            return {"model": tensors, **{name: _from_json(text) for name, text in metadata.items()}}
        if self.path.suffix not in TORCH_ENDINGS:
            return {}
        data = read_torch(self.path, self.verify)
        bare = bool(data) and all(isinstance(value, Tensor) for value in data.values())
        return {"model": data} if bare else data


def checkpoint_files(folder: Path) -> list[Path]:
    """List torch and safetensors files of a folder that is not a run folder of this package.

    A run folder keeps states for resuming next to its checkpoints; token shards end in .bin, so such a file is a
    checkpoint only if it is named.
    """
    endings = {*TORCH_ENDINGS, SAFETENSORS} - {".bin"}
    if (folder / "run.json").exists():
        return []
    return [path for path in visible(folder) if path.suffix in endings]


def read_torch(path: Path, verify: bool = False) -> dict[str, Any]:
    """Read a file of `torch.save`; its tensors are mapped from the file, not loaded.

    Args:
        path: the file.
        verify: read all of it once and compare its checksums.

    Raises:
        CheckpointError: missing, truncated, damaged, not of torch, holding pickled objects (which would run code), or
            not a dictionary.
    """
    _check_file(path)
    try:
        zipped = zipfile.is_zipfile(path)
        if zipped and verify:
            _verify(path)
        if zipped:
            _refuse_script(path)
        with torch.serialization.safe_globals(_NUMPY):
            data = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except CheckpointError:
        raise
    except pickle.UnpicklingError as error:
        raise CheckpointError(_pickle_refused(path, str(error))) from error
    except Exception as error:
        # Of damaged bytes zipfile, pickle and torch raise whatever they stumble over (BadZipFile, AssertionError, …).
        raise CheckpointError(
            f"{path} cannot be read ({first_line(error)}); it is truncated, damaged or not a torch checkpoint: copy "
            "it again from where it came from"
        ) from error
    if not isinstance(data, dict):
        raise CheckpointError(
            f"{path} holds a {type(data).__name__}, not a dictionary of tensors; save model.state_dict()"
        )
    return data


def read_safetensors(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Read metadata and tensors of a safetensors file; a tensor of several names is there under each.

    Raises:
        CheckpointError: missing, truncated, damaged or foreign.
    """
    with opened(path) as file:
        metadata = file.metadata() or {}
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    # The library's save_model stores shared tensors once, and their other names as metadata.
    tensors |= {
        name: tensors[kept] for name, kept in metadata.items() if kept in tensors and name not in tensors
    }
    return metadata, tensors


def read_metadata(path: Path) -> dict[str, str]:
    """Read the metadata of a safetensors file without its tensors.

    Raises:
        CheckpointError: as `read_safetensors`.
    """
    with opened(path) as file:
        return file.metadata() or {}


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """Open a safetensors file.

    Raises:
        CheckpointError: as `read_safetensors`; what the body raises is taken for damage.
    """
    # A machine that only trains need not have it.
    from safetensors import safe_open

    _check_file(path)
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except Exception as error:
        # Of damaged bytes the library raises more than its own error.
        raise CheckpointError(
            f"{path} cannot be loaded ({first_line(error)}); it is truncated, damaged or not safetensors: copy it "
            "again from where it came from"
        ) from error


def whole_number(data: Mapping[str, Any], name: str) -> int | None:
    """Return an entry that counts something (an integer from 0, or a tensor of one), or None."""
    value = scalar(data.get(name))
    counts = isinstance(value, int | np.integer) and not isinstance(value, bool)
    return int(value) if counts and 0 <= value < 2**63 else None


def real_number(data: Mapping[str, Any], name: str) -> float | None:
    """Return an entry that is a real number, or a tensor of one, or None."""
    value = scalar(data.get(name))
    return float(value) if isinstance(value, float | np.floating) else whole_number(data, name)


def scalar(value: Any) -> Any:
    """Return the number in a tensor of one; anything else as it is."""
    return value.item() if isinstance(value, Tensor) and value.numel() == 1 and not value.is_meta else value


def _from_json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _check_file(path: Path) -> None:
    """Refuse what is no file, and an empty one, as an interrupted copy leaves it."""
    if not path.is_file():
        raise CheckpointError(f"{path} does not exist")
    if not path.stat().st_size:
        raise CheckpointError(f"{path} is empty (0 bytes); copy it again from where it came from")


def _refuse_script(path: Path) -> None:
    """Refuse an archive of TorchScript, whose weights lie beside its code."""
    with zipfile.ZipFile(path) as archive:
        if any(name.endswith("/constants.pkl") for name in archive.namelist()):
            raise CheckpointError(
                f"{path} is a TorchScript archive, which holds code; only tensors and plain data are read. If you "
                "trust it, load it with torch.jit.load and save its state_dict()"
            )


def _verify(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        if (damaged := archive.testzip()) is not None:
            raise ValueError(f"the record {damaged} fails its checksum")


def _pickle_refused(path: Path, message: str) -> str:
    # Torch's message advises to load the file with its code; it is not passed on.
    found = re.search(r"GLOBAL ([\w.]+)", message)
    if found is None:
        return f"{path} is damaged, or no torch checkpoint of tensors and plain data: copy it again or save it as one"
    return (
        f"{path} holds a pickled object of {found[1]}, which could run code when it is loaded; only tensors and plain "
        "data are read. If you trust it, load it where it was made and save {'step': …, 'model': model.state_dict()}"
    )
