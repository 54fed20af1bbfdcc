"""Copy tensors from a device to the host in one transfer."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import TypeVar

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
