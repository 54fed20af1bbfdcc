"""Which of several processes this one is, when torchrun started more than one."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from sims.system.errors import EngineError


@dataclass(frozen=True)
class ProcessGroup:
    """This process among those that share the work.

    Args:
        rank: from 0 on.
        size: how many there are.
    """

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the one that writes what all of them found."""
        return self.rank == 0

    def share(self, items: int) -> range:
        """Which of so many numbered pieces of work are this rank's: every size-th, from its own on."""
        return range(self.rank, items, self.size)

    def wait(self) -> None:
        """Go on when every rank has come this far."""
        if self.size > 1:
            dist.barrier()

    def lead(self, work: Callable[[], object]) -> None:
        """Do something on the first rank alone. Where it fails, the others leave without a word.

        Raises:
            Exception: whatever it raises, on the first rank.
            SystemExit: on the others.
        """
        failure: Exception | None = None
        if self.first:
            try:
                work()
            except Exception as error:
                failure = error
        if self.agree(failure is not None):
            raise failure or SystemExit(2)

    def agree(self, asked: bool) -> bool:
        """Whether any rank asks, on every rank."""
        return bool(self.sum(torch.tensor(float(asked))) > 0)

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over all ranks, on every rank; a tensor of one rank is returned as it is."""
        if self.size == 1:
            return tensor
        moved = tensor.to(_meeting_place(), copy=True)
        dist.all_reduce(moved)
        return moved.to(tensor.device)


# A process that shares its work with nobody.
SINGLE = ProcessGroup()


@contextmanager
def torchrun_group(device: str) -> Iterator[ProcessGroup]:
    """The ranks of torchrun, joined for as long as the context lasts; one rank where torchrun did not start this.

    Args:
        device: "cpu" meets over gloo, "cuda" over NCCL, each rank on the device of its own number.

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


def _meeting_place() -> torch.device:
    """NCCL reduces device memory alone; gloo takes the host's."""
    return (
        torch.device("cuda", torch.cuda.current_device())
        if dist.get_backend() == "nccl"
        else torch.device("cpu")
    )
