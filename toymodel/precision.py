"""The arithmetic of matrix products: chosen for training, never less than that of the tensors elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

from toymodel.config import Precision
from toymodel.errors import ConfigError


def check_precision(precision: Precision, device: str) -> None:
    """Refuse an arithmetic that a device does not have.

    Raises:
        ConfigError: TF32 on anything but CUDA.

    >>> check_precision("bfloat16", "cpu")
    """
    if precision == "tf32" and not device.startswith("cuda"):
        raise ConfigError(f"precision is tf32, which {device} does not have; take float32, or --device cuda")


def autocast(precision: Precision, device: torch.device) -> torch.autocast:
    """Compute matrix products of a forward pass in bfloat16 if that is the precision; norms and sums are not.

    Converted weights are not kept: a CUDA graph would go on with those of its capture.
    """
    enabled = precision == "bfloat16"
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled, cache_enabled=False)


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Allow or forbid float32 products of a GPU to take 10 bits of their factors (TensorFloat-32)."""
    products = torch.backends.cuda.matmul
    before, products.allow_tf32 = products.allow_tf32, allowed
    try:
        yield
    finally:
        products.allow_tf32 = before


@contextmanager
def full_precision() -> Iterator[None]:
    """Compute products inside in the precision of their tensors, whatever is chosen outside: no TF32, no autocast.

    >>> with torch.autocast("cpu", torch.bfloat16), full_precision():
    ...     (torch.ones(2, 2) @ torch.ones(2, 2)).dtype
    torch.float32
    """
    with ExitStack() as stack:
        stack.enter_context(tf32(False))
        for kind in ("cpu", "cuda"):
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        yield
