"""Use a model in training without a trace: modes, attributes, random numbers and buffers are put back."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sims.models.state import same_values


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Put a model into eval mode while the context lasts; afterwards, also after an exception, all is as before.

    Kept are the attributes of every module (its mode, a count of its calls, a loss that a forward pass leaves there,
    what it makes at its first call), the buffers, and the random numbers of torch (on every device in use), numpy and
    Python. Tensors and containers that are no buffers and that a pass changes in place are not. Modules that were
    compiled, in place or one by one, run uncompiled, so that hooks are called, and autocast is off: the model is
    measured in the precision of its weights.
    """
    modules = list(model.modules())
    # Those of a scripted module lie in its compiled code.
    before = [
        (own, dict(own))
        for module in modules
        for own in (vars(module), module._parameters, module._buffers, module._modules)
        if isinstance(own, dict)
    ]
    modes = [module.training for module in modules]
    buffers = [(buffer, _version(buffer), buffer.clone()) for buffer in model.buffers()]
    with ExitStack() as stack:
        stack.enter_context(same_random_numbers())
        for device in {parameter.device.type for parameter in model.parameters()} | {"cpu"}:
            stack.enter_context(torch.autocast(device, enabled=False))
        if any("_orig_mod" in module._modules for module in modules):
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        try:
            for module in modules:
                # train() and eval() may be overridden, and then do more than this.
                module.training = False
                if module._compiled_call_impl is not None:
                    module._compiled_call_impl = None
            yield
        finally:
            for own, entries in before:
                _same_entries(own, entries)
            for module, mode in zip(modules, modes, strict=True):
                module.training = mode
            _put_back(buffers)


def _same_entries(now: dict[str, Any], before: dict[str, Any]) -> None:
    """Put the entries of a dictionary back that are others than before."""
    for name in [name for name in now if name not in before]:
        del now[name]
    for name, value in before.items():
        if name not in now or now[name] is not value:
            now[name] = value


def _version(buffer: Tensor) -> int | None:
    """Return how often a tensor was changed in place; None where torch does not count it."""
    return None if buffer.is_inference() else buffer._version


def _put_back(buffers: list[tuple[Tensor, int | None, Tensor]]) -> None:
    """Put the numbers of buffers back; those that are as before are not touched: a graph may hold them."""
    with torch.no_grad():
        for buffer, version, before in buffers:
            # What is changed through .data is not counted as a version.
            dense = buffer.layout == torch.strided and not buffer.is_meta and not buffer.is_quantized
            if _version(buffer) != version or (dense and not same_values(buffer, before)):
                buffer.copy_(before)


@contextmanager
def same_random_numbers() -> Iterator[None]:
    """Put the random numbers of torch, numpy and Python back when the context ends."""
    python, numbers = random.getstate(), np.random.get_state()  # noqa: NPY002
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numbers)  # noqa: NPY002
