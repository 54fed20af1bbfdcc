"""State dictionaries of foreign checkpoints: every tensor is used, known to carry no weight, or refused by name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from sims.system.plain import some
from toymodel.errors import CheckpointError

# Prefixes that torch.compile, DistributedDataParallel, FSDP and activation checkpointing add to names.
_WRAPPERS = re.compile(r"(^|(?<=\.))(_orig_mod|module|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
# Buffers of older versions: the causal mask (1, 1, T, T), and the number that it puts in place of a score.
_MASK = re.compile(r"(^|\.)(attn|attention)\.bias$")
_MASKED = re.compile(r"(^|\.)(attn|attention)\.masked_bias$")
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def unwrapped(name: object) -> str:
    """Return the name of a tensor without the prefixes of wrappers.

    >>> unwrapped("module._orig_mod.transformer.wte.weight")
    'transformer.wte.weight'
    """
    return _WRAPPERS.sub("", str(name))


def plain_state(state: Any, path: Path) -> dict[str, Tensor]:
    """Copy the weights of a state dictionary, without the prefixes of wrappers (`unwrapped`).

    The tensors are copied out of the mapped file, which a running training may overwrite. Causal masks are left out.

    Raises:
        CheckpointError: it is empty, an entry is not a dense tensor of real floating-point numbers, two entries have
            one name without these prefixes, or a mask is not causal.
    """
    if not isinstance(state, Mapping) or not state:
        raise CheckpointError(
            f"{path}: its model state is not a dictionary of tensors ({_kind(state)}); save model.state_dict()"
        )
    found: dict[str, Tensor] = {}
    for given, tensor in state.items():
        name = unwrapped(given)
        if not isinstance(tensor, Tensor):
            raise CheckpointError(
                f"{path}: its model state is not a dictionary of tensors ({name} is {_kind(tensor)}); save "
                "model.state_dict()"
            )
        if name in found:
            raise CheckpointError(
                f"{path} has {name} twice, with and without a prefix of a wrapper; which one the model used is not "
                "known: save the state of one model"
            )
        found[name] = tensor
    kept = {name: tensor for name, tensor in found.items() if not _is_mask(name, tensor, path)}
    if wrong := [f"{name} is {why}" for name, tensor in kept.items() if (why := not_weights(tensor))]:
        raise CheckpointError(
            f"{path}: {some(wrong)}; weights are dense real floating-point tensors ({_names(_FLOATS)}): save the model "
            "in one of these"
        )
    return {name: tensor.detach().clone() for name, tensor in kept.items()}


def same_values(a: Tensor, b: Tensor) -> bool:
    """Return whether two tensors are equal in shape, type and every entry; NaN equals NaN.

    >>> same_values(torch.tensor([1.0, float("nan")]), torch.tensor([1.0, float("nan")]))
    True
    """
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    return torch.equal(a, b) or bool(((a == b) | (a.isnan() & b.isnan())).all())


def not_weights(tensor: Tensor) -> str:
    """Return what a tensor is, if it is not a dense one of real floating-point numbers; "" if it is.

    >>> not_weights(torch.ones(2, dtype=torch.int8)), not_weights(torch.ones(2))
    ('of int8', '')
    """
    if is_lazy(tensor):
        return "of a lazy module that has not seen a batch yet"
    if tensor.is_nested:
        return "nested (ragged)"
    if tensor.is_quantized or tensor.layout != torch.strided:
        return str(tensor.layout if tensor.layout != torch.strided else tensor.dtype).removeprefix("torch.")
    if tensor.is_meta:
        return "on the meta device, which has shapes and no numbers"
    if tensor.dtype not in _FLOATS:
        return f"of {_names([tensor.dtype])}"
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        return f"expanded: {tuple(tensor.shape)} from fewer numbers"
    return "" if tensor.numel() else f"empty {tuple(tensor.shape)}"


def _is_mask(name: str, tensor: Tensor, path: Path) -> bool:
    if _MASKED.search(name) and tensor.numel() == 1:
        return True
    if not _MASK.search(name):
        return False
    size = tensor.shape[-1] if tensor.ndim else 0
    causal = torch.ones(size, size, dtype=torch.bool).tril().expand(1, 1, size, size)
    if tensor.is_meta or tensor.shape != causal.shape or not torch.equal(tensor != 0, causal):
        raise CheckpointError(
            f"{path}: {name} {tuple(tensor.shape)} is not the causal mask (1, 1, T, T) that such a buffer holds; build "
            "the model with its own code and name its sites (sims.models.module)"
        )
    return True


def _names(dtypes: Any) -> str:
    return ", ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)


def _kind(value: Any) -> str:
    return "empty" if isinstance(value, Mapping) else f"a {type(value).__name__}"
