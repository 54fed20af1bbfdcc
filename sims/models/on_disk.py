"""Tensors of checkpoint files, read one by one: shapes without numbers, and each tensor when it is asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sims.models.reading import SAFETENSORS, opened, read_torch, scalar
from sims.models.state import unwrapped
from toymodel.errors import CheckpointError

# Bytes of a mapped torch file that are read before it is mapped anew: pages that were read stay in memory until then.
_MAPPED = 256 * 2**20

# Where training scripts put the state of the model.
_STATES = (
    "model",
    "state_dict",
    "model_state_dict",
    "module",
    "model_state",
    "net",
    "network",
    "weights",
    "params",
)

_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "U16": torch.uint16,
    "U32": torch.uint32,
    "BOOL": torch.bool,
}


@dataclass(frozen=True)
class Form:
    """Shape and type of a tensor; `dtype` is the name of a type that torch need not know ("F8_E4M3")."""

    shape: tuple[int, ...]
    dtype: torch.dtype | str


class TensorsOnDisk(Mapping[str, Tensor]):
    """The tensors of one file by their own names; each is read when it is asked for, and not kept.

    Args:
        path: safetensors or torch file.
        verify: compare the checksums of a torch file once.

    Raises:
        CheckpointError: as `read_safetensors` and `read_torch`; no state of a model in a torch file.
    """

    def __init__(self, path: Path, verify: bool = True) -> None:
        self.path = path
        self.metadata: Mapping[str, Any] = {}
        # Other name → name of a tied weight.
        self.aliases: dict[str, str] = {}
        # Keys of further states in a torch file, such as averaged weights, that are not read.
        self.unread: tuple[str, ...] = ()
        self._state: Mapping[str, Tensor] | None = None
        self._read = 0
        if path.suffix == SAFETENSORS:
            with opened(path) as file:
                self.metadata = file.metadata() or {}
                # The library's save_model keeps tied weights once, and their other names here.
                self.aliases = {n: kept for n, kept in self.metadata.items() if kept in file.keys()}  # noqa: SIM118
                parts = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
                self.forms = {n: Form(tuple(p.get_shape()), _dtype(p.get_dtype())) for n, p in parts.items()}
        else:
            data = read_torch(path, verify)
            self._state = model_state(data, path)
            beside = {name: scalar(value) for name, value in data.items() if name not in self._state}
            self.metadata = {n: value for n, value in beside.items() if not isinstance(value, Tensor)}
            self.forms = {name: Form(tuple(t.shape), t.dtype) for name, t in self._state.items()}
            self.unread = _further_states(data, self._state)
            first: dict[tuple[Any, ...], str] = {}
            for name, tensor in self._state.items():
                kept = first.setdefault(_place(tensor), name)
                if kept != name:
                    self.aliases[name] = kept

    def __getitem__(self, name: str) -> Tensor:
        if name not in self.forms:
            raise KeyError(name)
        if self.path.suffix == SAFETENSORS:
            with opened(self.path) as file:
                return file.get_tensor(name)
        if self._state is None or self._read > _MAPPED:
            self._state, self._read = model_state(read_torch(self.path), self.path), 0
        tensor = self._state[name]
        self._read += tensor.numel() * tensor.element_size()
        # Out of the mapped file, which can then be closed, and which a running training may overwrite.
        return tensor.detach().clone()

    def __iter__(self) -> Iterator[str]:
        return iter(self.forms)

    def __len__(self) -> int:
        return len(self.forms)

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        """Return some rows of a tensor."""
        if self.path.suffix == SAFETENSORS:
            with opened(self.path) as file:
                return file.get_slice(name)[start:stop]
        assert self._state is not None
        return self._state[name][start:stop].clone()


def model_state(data: Mapping[str, Any], path: Path) -> dict[str, Tensor]:
    """Return the tensors of the model in the content of a torch file, by name.

    >>> list(model_state({"state_dict": {"w": torch.ones(2)}, "epoch": 3}, Path("last.ckpt")))
    ['w']

    Raises:
        CheckpointError: there are none, or the file is the state of an optimiser.
    """
    if {"state", "param_groups"} <= data.keys():
        raise CheckpointError(f"{path} is the state of an optimiser alone; name the file with the weights")
    for key in _STATES:
        inner = data.get(key)
        if isinstance(inner, Mapping):
            nested = next((inner[k] for k in _STATES if isinstance(inner.get(k), Mapping)), inner)
            if found := _tensors(nested):
                return found
    if found := _tensors(data):
        return found
    keys = ", ".join(map(str, list(data)[:6]))
    raise CheckpointError(
        f"{path} holds no state of a model that is known (its keys: {keys or 'none'}); save model.state_dict()"
    )


def _tensors(state: Mapping[Any, Any]) -> dict[str, Tensor]:
    return {str(name): value for name, value in state.items() if isinstance(value, Tensor)}


def _further_states(data: Mapping[str, Any], state: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Return the keys of states with weight matrices that are not the one that was found.

    >>> model = {"w": torch.ones(2, 2)}
    >>> _further_states({"model": model, "ema": {"w": torch.zeros(2, 2)}, "seen": {"n": torch.ones(1)}}, model)
    ('ema',)
    >>> _further_states({"model": model, "ema": {"module": {"module.w": torch.zeros(2, 2)}, "decay": 0.9}}, model)
    ('ema',)
    """
    own, names = {id(tensor) for tensor in state.values()}, {unwrapped(name) for name in state}
    found = []
    for key, inner in data.items():
        parts = list(inner.values()) if isinstance(inner, Mapping) else []
        read = any(id(t) in own for p in (inner, *parts) for t in _all_tensors(p))
        if read or str(key).startswith("optim"):
            continue
        # Averaged weights may lie one level deeper, under the names of the model.
        deeper = [p for p in parts if isinstance(p, Mapping) and names & {unwrapped(name) for name in p}]
        if any(t.ndim > 1 and t.is_floating_point() for p in (inner, *deeper) for t in _all_tensors(p)):
            found.append(str(key))
    return tuple(found)


def _all_tensors(state: Any) -> list[Tensor]:
    return list(_tensors(state).values()) if isinstance(state, Mapping) else []


def _place(tensor: Tensor) -> tuple[Any, ...]:
    """Return what tells a tensor from all others of its file."""
    if tensor.layout != torch.strided or not tensor.numel():
        return (id(tensor),)
    return tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype


def _dtype(name: str) -> torch.dtype | str:
    return _DTYPES.get(name, name)
