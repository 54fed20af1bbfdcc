"""Recordings of a device's work: to compare two of them, and to replay one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map


class Recording:
    """Record launched operations on their memory.

    Attributes:
        steps: the name and the arguments of each operation. A tensor is named by its memory: ("made", n) for the n-th
            that was allocated, ("held", address) for what was there before, with offset, shape and strides. A number
            of the host is named by its value, which is what a graph keeps of it.
    """

    def __init__(self) -> None:
        self.steps: list[tuple[str, Any]] = []
        self._made: dict[int, int] = {}
        self._count = 0
        self._replays: list[Callable[[], None]] = []
        # What the recording refers to; no other tensor gets this memory while it is kept.
        self._kept: list[Any] = []
        self._saved: dict[int, tuple[Any, Any]] = {}

    def add(
        self, name: str, kernel: Callable[..., Any], args: Any, kwargs: Any, out: Any, in_place: bool
    ) -> None:
        """Record an operation on tensors of the device that was executed, with its results on the host."""
        self.steps.append((name, tree_map(self._named, (tuple(args), dict(kwargs)))))
        results = [t for t in tree_leaves(out) if isinstance(t, Tensor)]
        if not in_place:
            self.allocated(results)
        args, kwargs = tree_map(_frozen, (tuple(args), dict(kwargs)))
        self._kept.append((args, kwargs, results))

        def replay() -> None:
            again = kernel(*args, **kwargs)
            if not in_place:
                for result, new in zip(results, tree_leaves(again), strict=True):
                    result.copy_(new)

        self._replays.append(replay)

    def allocated(self, results: Iterable[Tensor]) -> None:
        """Note memory of the host that was allocated."""
        for result in results:
            self._count += 1
            self._made[_address(result)] = self._count

    def _named(self, x: Any) -> Any:
        if not isinstance(x, Tensor):
            return repr(x)
        if not hasattr(x, "memory"):
            return repr(x.item())
        address = _address(x.memory)
        name = ("made", self._made[address]) if address in self._made else ("held", address)
        return (*name, x.storage_offset(), tuple(x.shape), x.stride(), x.dtype)

    def protect(self, tensors: Iterable[Any]) -> None:
        """Save memory that the recorded work would change: a capture changes nothing."""
        for tensor in tensors:
            storage = tensor.memory.untyped_storage()
            address = storage.data_ptr()
            if address not in self._made and address not in self._saved:
                self._saved[address] = (storage, storage.clone())

    def undo(self) -> None:
        """Restore the saved memory."""
        for storage, before in self._saved.values():
            storage.copy_(before)
        self._saved.clear()

    def replay(self) -> None:
        """Execute the recorded operations again, on the same memory."""
        for replay in self._replays:
            replay()


def _frozen(x: Any) -> Any:
    """Return the host memory of a tensor of the device, and a copy of a number of the host."""
    if not isinstance(x, Tensor):
        return x
    return x.memory if hasattr(x, "memory") else x.clone()


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
