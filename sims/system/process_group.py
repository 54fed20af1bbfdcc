"""Processes that share the work, started by torchrun."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor

from sims.system.errors import EngineError

T = TypeVar("T")


@dataclass(frozen=True)
class ProcessGroup:
    """This process in a group of processes that share the work.

    Args:
        rank: index of this process, from 0.
        size: number of processes.
    """

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this process writes the results of all."""
        return self.rank == 0

    def share(self, items: int) -> range:
        """Return the indices of the items of this rank: rank, rank + size, …"""
        return range(self.rank, items, self.size)

    def wait(self) -> None:
        """Wait until every rank has reached this call."""
        if self.size > 1:
            dist.barrier()

    def lead(self, work: Callable[[], object]) -> None:
        """Call `work` on the first rank only; if it fails, all ranks end.

        Raises:
            Exception: the error of `work`, on the first rank.
            SystemExit: on the other ranks, which print nothing.
        """
        failure: Exception | None = None
        if self.first:
            try:
                work()
            except Exception as error:
                failure = error
        if self.agree(failure is not None):
            raise failure or SystemExit(2)

    def from_first(self, make: Callable[[], T]) -> T:
        """Return, on every rank, what `make` returns on the first one.

        Raises:
            Exception: the error of `make`, on every rank.
        """
        if self.size == 1:
            return make()
        found: list[Any] = [None, None]
        if self.first:
            try:
                found[0] = make()
            except Exception as error:
                found[1] = error
        dist.broadcast_object_list(found, src=0)
        if found[1] is not None:
            raise found[1]
        return found[0]

    def together(self, make: Callable[[], T]) -> T:
        """Return what `make` returns on this rank; where it fails on one rank, it fails on all of them.

        Raises:
            Exception: the error of `make`, on its rank.
            EngineError: on the other ranks.
        """
        try:
            found, failure = make(), None
        except Exception as error:
            found, failure = None, error
        if self.agree(failure is not None):
            raise failure or EngineError("another process of the group failed")
        return cast("T", found)

    def first_says(self, value: int) -> int:
        """Return, on every rank, a whole number of the first one."""
        if self.size == 1:
            return value
        return int(self.sum(torch.tensor(float(value if self.first else 0), dtype=torch.float64)))

    def agree(self, asked: bool) -> bool:
        """Return, on every rank, whether any rank passed True."""
        return bool(self.sum(torch.tensor(float(asked))) > 0)

    def sum(self, tensor: Tensor) -> Tensor:
        """Return the sum over all ranks, on every rank; for one rank the tensor itself."""
        if self.size == 1:
            return tensor
        moved = tensor.to(_reduction_device(), copy=True)
        dist.all_reduce(moved)
        return moved.to(tensor.device)


# A single process.
SINGLE = ProcessGroup()


def present_group() -> ProcessGroup:
    """Return the processes of torch.distributed, where they train together; otherwise a group of one."""
    if dist.is_available() and dist.is_initialized():
        return ProcessGroup(dist.get_rank(), dist.get_world_size())
    return SINGLE


@contextmanager
def torchrun_group(device: str) -> Iterator[ProcessGroup]:
    """Join the processes of torchrun while the context lasts; without torchrun, a group of one.

    Args:
        device: "cpu" communicates over gloo, "cuda" over NCCL, each rank on the GPU with its local index.

    Raises:
        EngineError: more ranks on a machine than it has GPUs.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield ProcessGroup()
        return
    on_gpu = device.startswith("cuda")
    if on_gpu:
        local = int(os.environ.get("LOCAL_RANK", "0"))
        if local >= torch.cuda.device_count():
            raise EngineError(
                f"rank {local} of this machine has no GPU of its own; there are {torch.cuda.device_count()}: start as "
                "many ranks with --nproc-per-node, or pass --device cpu"
            )
        torch.cuda.set_device(local)
    dist.init_process_group("nccl" if on_gpu else "gloo")
    try:
        yield ProcessGroup(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()


def _reduction_device() -> torch.device:
    """Return where tensors are reduced: NCCL needs GPU memory, gloo the memory of the host."""
    return (
        torch.device("cuda", torch.cuda.current_device())
        if dist.get_backend() == "nccl"
        else torch.device("cpu")
    )
