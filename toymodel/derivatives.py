"""Choose whose derivatives the network has: those written out for speed, or autograd's, which can be taken again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch

_TWICE: ContextVar[bool] = ContextVar("twice", default=False)


@contextmanager
def twice_differentiable() -> Iterator[None]:
    """Compute the network in this context by plain operations, so that second derivatives exist.

    Functions with a derivative written out (`rms_norm`, `head_cross_entropy`, …) and fused attention have the first one
    only: what they keep for it has no derivative. Values and first derivatives agree up to rounding; time and memory
    are larger, since all logits and all attention weights exist at once.

    >>> from toymodel.elementwise import squared_relu
    >>> x = torch.tensor([3.0], requires_grad=True)
    >>> with twice_differentiable():
    ...     y = squared_relu(x).sum()
    >>> (slope,) = torch.autograd.grad(y, x, create_graph=True)
    >>> torch.autograd.grad(slope.sum(), x)[0]
    tensor([2.])
    """
    token = _TWICE.set(True)
    try:
        yield
    finally:
        _TWICE.reset(token)


def plainly() -> bool:
    """Return whether operations are to be plain ones. A compiler is not asked: it finds derivatives itself."""
    return not torch.compiler.is_compiling() and _TWICE.get()
