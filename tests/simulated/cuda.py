"""The functions of `torch.cuda`, as far as the project asks them, for the simulated device."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
import torch
import torch.nn.functional as F

from simulated.counts import line
from simulated.device import Functions, Operations, SimulatedDevice, SimulatedTensor, attention
from simulated.graph import Recording

PACKAGES = ("spectra", "toymodel", "theory", "sims")


class _Stream:
    def __init__(self, *_: Any, **__: Any) -> None: ...

    def wait_stream(self, stream: Any) -> None: ...

    def synchronize(self) -> None:
        assert SimulatedTensor.device_of is not None
        SimulatedTensor.device_of.waits("synchronize")


class _Graph:
    """A CUDA graph that replays recorded operations."""

    recording: Recording | None = None

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def replay(self) -> None:
        device = SimulatedTensor.device_of
        assert device is not None
        if self.recording is None:
            raise RuntimeError("a graph that was not captured cannot be replayed")
        self.recording.replay()
        for counts in device.active:
            # The whole graph is one launch.
            counts.operations["graph"] += 1
            counts.lines[line()] += 1

    def reset(self) -> None:
        self.recording = None

    def pool(self) -> tuple[int, int]:
        return (0, 0)


@contextmanager
def _captured(graph: _Graph, *_: Any, **__: Any) -> Iterator[None]:
    """Record operations into a graph; nothing that exists is changed."""
    device = SimulatedTensor.device_of
    assert device is not None
    recording = device.recording = Recording()
    try:
        yield
    finally:
        device.recording = None
        recording.undo()
    graph.recording = recording


@contextmanager
def simulated_device() -> Iterator[SimulatedDevice]:
    """Let "cuda" be a simulated device inside; skip the test where this PyTorch cannot be used so."""
    device = SimulatedDevice()
    # What a build of PyTorch without CUDA needs to accept "cuda" as a name, and lists as contents of its tensors.
    needs = ("_ensureCUDADeviceGuardSet", "_only_lift_cpu_tensors", "_set_only_lift_cpu_tensors")
    missing = [name for name in needs if not hasattr(torch._C, name)]
    if missing:
        pytest.skip(f"torch {torch.__version__} has no {', '.join(missing)}: a device cannot be simulated")
    torch._C._ensureCUDADeviceGuardSet()
    before = torch._C._only_lift_cpu_tensors()
    with ExitStack() as stack:
        stack.callback(_forget)
        torch._C._set_only_lift_cpu_tensors(True)
        stack.callback(torch._C._set_only_lift_cpu_tensors, before)
        stack.enter_context(mock.patch.multiple(torch.cuda, **_functions(device)))
        stack.enter_context(mock.patch.object(SimulatedTensor, "device_of", device))
        # C++ would choose the kernel by the device before anything is dispatched. A mode is not asked where a block is
        # run a second time in a backward pass, so the function itself is exchanged.
        stack.enter_context(mock.patch.object(F, "scaled_dot_product_attention", partial(attention, device)))
        stack.enter_context(Functions(device))
        stack.enter_context(Operations(device))
        yield device


def _forget() -> None:
    """Empty the caches of the packages: what was computed inside, operations taken apart, has other last bits."""
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] in PACKAGES:
            for cached in vars(module).values():
                if callable(getattr(cached, "cache_clear", None)):
                    cached.cache_clear()


def _functions(device: SimulatedDevice) -> dict[str, Any]:
    memory = 80 * 2**30
    properties = SimpleNamespace(
        name="simulated", total_memory=memory, major=9, minor=0, multi_processor_count=1
    )
    return {
        "_lazy_init": lambda: None,
        "is_available": lambda: True,
        "is_initialized": lambda: True,
        "is_bf16_supported": lambda *_: True,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "get_device_name": lambda *_: "simulated",
        "get_device_capability": lambda *_: (9, 0),
        "get_device_properties": lambda *_: properties,
        "mem_get_info": lambda *_: (memory, memory),
        "empty_cache": lambda: None,
        "max_memory_allocated": lambda *_: 0,
        "memory_allocated": lambda *_: 0,
        "reset_peak_memory_stats": lambda *_: None,
        "synchronize": lambda *_: device.waits("synchronize"),
        "is_current_stream_capturing": lambda: device.recording is not None,
        "Stream": _Stream,
        "current_stream": lambda *_: _Stream(),
        "stream": lambda *_: nullcontext(),
        "device": lambda *_: nullcontext(),
        "CUDAGraph": _Graph,
        "graph": _captured,
        "graph_pool_handle": lambda: (0, 0),
    }
