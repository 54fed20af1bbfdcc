"""Foreign checkpoint files: tensors and plain data are read from them, code never."""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from toymodel.errors import CheckpointError

TORCH_ENDINGS = (".pt", ".pth", ".bin", ".ckpt")
SAFETENSORS = ".safetensors"

# Training checkpoints hold states of numpy's random generators and losses that are numpy scalars. These rebuild arrays
# and scalars and nothing else; both places are named where numpy has kept them.
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
# What torch.compile and DistributedDataParallel put in front of names.
_WRAPPERS = re.compile(r"(^|(?<=\.))(_orig_mod|module)\.")


def read_torch(path: Path, verify: bool = False) -> dict[str, Any]:
    """What `torch.save` wrote, tensors mapped from the file and not read yet.

    Args:
        path: the file.
        verify: read all of it once and compare its checksums.

    Raises:
        CheckpointError: missing, truncated, damaged, not of torch, holding pickled objects (which would run code), or
            holding anything but a dictionary.
    """
    if not path.is_file():
        raise CheckpointError(f"{path} does not exist")
    zipped = zipfile.is_zipfile(path)
    try:
        if zipped and verify:
            _verify(path)
        with torch.serialization.safe_globals(_NUMPY):
            data = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except pickle.UnpicklingError as error:
        raise CheckpointError(_pickle_refused(path, str(error))) from error
    except (
        RuntimeError,
        OSError,
        EOFError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        IndexError,
    ) as error:
        raise CheckpointError(
            f"{path} cannot be read ({_first_line(error)}); it is truncated, damaged or not a torch checkpoint: copy "
            "it again from where it came from"
        ) from error
    if not isinstance(data, dict):
        raise CheckpointError(
            f"{path} holds a {type(data).__name__}, not a dictionary of tensors; save model.state_dict()"
        )
    return data


def read_safetensors(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Metadata and tensors of a safetensors file.

    Raises:
        CheckpointError: missing, truncated, damaged or foreign.
    """
    with _opened(path) as file:
        return file.metadata() or {}, {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118


def read_metadata(path: Path) -> dict[str, str]:
    """Metadata of a safetensors file, whose tensors stay unread.

    Raises:
        CheckpointError: as `read_safetensors`.
    """
    with _opened(path) as file:
        return file.metadata() or {}


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    if not path.is_file():
        raise CheckpointError(f"{path} does not exist")
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(
            f"{path} cannot be read ({_first_line(error)}); it is truncated, damaged or not safetensors: copy it again "
            "from where it came from"
        ) from error


def plain_state(state: Any, path: Path) -> dict[str, Tensor]:
    """A state dictionary without the marks of torch.compile and DistributedDataParallel.

    Its tensors are copied out of the file, which a training that goes on may overwrite.

    Raises:
        CheckpointError: something in it is no tensor, or nothing is in it.
    """
    if not isinstance(state, Mapping) or not state or not all(isinstance(v, Tensor) for v in state.values()):
        raise CheckpointError(
            f"{path}: its model state is not a dictionary of tensors; save model.state_dict()"
        )
    return {_WRAPPERS.sub("", str(name)): tensor.detach().clone() for name, tensor in state.items()}


def whole_number(data: Mapping[str, Any], name: str) -> int | None:
    """An entry that is a whole number, or None."""
    value = data.get(name)
    if isinstance(value, Tensor) and value.numel() == 1:
        value = value.item()
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _verify(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        if (damaged := archive.testzip()) is not None:
            raise ValueError(f"the record {damaged} fails its checksum")


def _pickle_refused(path: Path, message: str) -> str:
    # Torch's own words advise to load the file with its code; they are not passed on.
    found = re.search(r"GLOBAL ([\w.]+)", message)
    if found is None:
        return f"{path} is damaged, or no torch checkpoint of tensors and plain data: copy it again or save it as one"
    return (
        f"{path} holds a pickled object of {found[1]}, which could run code when it is loaded; only tensors and plain "
        "data are read. If you trust it, load it where it was made and save {'step': …, 'model': model.state_dict()}"
    )


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0].strip()}"
