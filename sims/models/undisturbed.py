"""Use a model in training without a trace: modes, random numbers, buffers and compiled calls are put back."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import numpy as np
import torch
from torch import Tensor, nn


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Put a model into eval mode while the context lasts; afterwards, also after an exception, all is as before.

    Kept are the mode of every module, buffers that the passes change, and the random numbers of torch (on every device
    in use), numpy and Python. Modules that were compiled, in place or one by one, run uncompiled, so that hooks are
    called, and autocast is off: the model is measured in the precision of its weights.
    """
    modules = list(model.modules())
    modes = [module.training for module in modules]
    compiled = [(module, call) for module in modules if (call := module._compiled_call_impl) is not None]
    buffers = [(buffer, buffer._version, buffer.clone()) for buffer in model.buffers()]
    with ExitStack() as stack:
        stack.enter_context(_same_random_numbers())
        for device in {parameter.device.type for parameter in model.parameters()} | {"cpu"}:
            stack.enter_context(torch.autocast(device, enabled=False))
        if any("_orig_mod" in module._modules for module in modules):
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        try:
            for module in modules:
                # train() and eval() may be overridden, and then do more than this.
                module.training = False
            for module, _ in compiled:
                module._compiled_call_impl = None
            yield
        finally:
            for module, mode in zip(modules, modes, strict=True):
                module.training = mode
            for module, call in compiled:
                module._compiled_call_impl = call
            _put_back(buffers)


def _put_back(buffers: list[tuple[Tensor, int, Tensor]]) -> None:
    with torch.no_grad():
        for buffer, version, before in buffers:
            if buffer._version != version:
                buffer.copy_(before)


@contextmanager
def _same_random_numbers() -> Iterator[None]:
    python, numbers = random.getstate(), np.random.get_state()  # noqa: NPY002
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numbers)  # noqa: NPY002
