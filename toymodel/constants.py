"""Tensors that follow from shapes alone: made once, not at every step."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


def constant(make: Callable[P, T]) -> Callable[P, T]:
    """Keep what a function of plain values returns, for every set of values; the tensors must never be changed.

    They are kept for good, because a captured CUDA graph reads them where they are. Not kept is what would outlive its
    purpose: what a compiler or a calculation of memory traces, and what lies in the memory of a graph.

    Args:
        make: takes hashable values, among them the device, and returns tensors without derivatives.

    >>> import torch
    >>> places = constant(lambda length, device: torch.arange(length, device=device))
    >>> places(3, "cpu") is places(3, "cpu"), places(4, "cpu")
    (True, tensor([0, 1, 2, 3]))
    """
    kept: dict[Any, T] = {}

    @wraps(make)
    def constant(*args: P.args, **kwargs: P.kwargs) -> T:
        # Stages are described without loading torch.
        import torch
        from torch._guards import detect_fake_mode

        if torch.compiler.is_compiling() or detect_fake_mode() is not None:
            return make(*args, **kwargs)
        key = (torch.get_default_dtype(), args, tuple(kwargs.items()))
        if key not in kept:
            with torch.inference_mode(False):
                made = make(*args, **kwargs)
            if torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing():
                return made
            kept[key] = made
        return kept[key]

    return constant
