"""Copy tensors from a device to the host in one transfer, and arrays to a device without waiting for it."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

Key = TypeVar("Key", bound=Hashable)


def to_host(tensors: Mapping[Key, Tensor]) -> dict[Key, Tensor]:
    """Return the tensors on the host, each that is named several times copied once.

    All that are on a device are copied together: a transfer waits for the device, and many small ones wait many times.
    Tensors that are on the host are returned as they are.

    >>> to_host({"x": torch.ones(2)})
    {'x': tensor([1., 1.])}
    """
    moved = {id(x): x.detach() for x in tensors.values() if x.device.type != "cpu"}
    if moved:
        # The widest numbers first, so that each part begins where its dtype may.
        order = sorted(moved, key=lambda key: -moved[key].element_size())
        flat = [moved[key].contiguous().flatten().view(torch.uint8) for key in order]
        parts = torch.cat(flat).cpu().split([len(part) for part in flat])
        for key, part in zip(order, parts, strict=True):
            x = moved[key]
            moved[key] = part.view(x.dtype).view(x.shape)
    return {key: moved.get(id(x), x) for key, x in tensors.items()}


def to_device(array: np.ndarray, like: Tensor) -> Tensor:
    """Return an array as a tensor with the dtype and on the device of another.

    >>> to_device(np.zeros(2), torch.ones(1))
    tensor([0., 0.])
    """
    tensor = torch.as_tensor(array, dtype=like.dtype)
    return tensor if like.device.type == "cpu" else tensor.pin_memory().to(like.device, non_blocking=True)
