"""Explain failures of devices and processes, with their remedy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist

from sims.system.errors import EngineError, first_line
from sims.system.process_group import ProcessGroup
from sims.training.execution import Execution, fitting

_OUT_OF_MEMORY = "can't allocate memory"
_LOST = ("gloo", "NCCL", "Connection closed", "Connection reset", "Broken pipe", "Socket Timeout")


@contextmanager
def explained(execution: Execution, group: ProcessGroup, stored: Callable[[], int]) -> Iterator[None]:
    """Turn failures of devices and processes into errors with a remedy.

    Args:
        execution: how the run is computed.
        group: processes that share the run.
        stored: returns the step from which the same command would continue.

    Raises:
        EngineError: out of memory, or another process was lost.
    """
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise EngineError(_out_of_memory(execution)) from error
    except RuntimeError as error:
        if _OUT_OF_MEMORY in str(error):
            raise EngineError(_out_of_memory(execution)) from error
        if group.size > 1 and (isinstance(error, dist.DistError) or any(w in str(error) for w in _LOST)):
            raise EngineError(
                f"rank {group.rank} of {group.size} has lost another one ({first_line(error)}); start all ranks again "
                f"with the same command, which goes on from step {stored()}, also with another number of ranks"
            ) from error
        raise


def _out_of_memory(execution: Execution) -> str:
    ways = [] if execution.recompute else ["pass --recompute"]
    if execution.micro_batch > 1:
        smaller = fitting(execution.micro_batch, 1, execution.micro_batch // 2)
        ways.insert(0, f"lower --micro-batch from {execution.micro_batch} to {smaller}")
    if not ways:
        ways = ["take a smaller tier, or a shorter --length"]
    return (
        f"out of memory on {execution.device}; {', or '.join(ways)}. The batch of a step stays what it is, and the "
        "same command goes on from the last stored state"
    )
