"""How a run of a language model is computed: device, micro-batches, recomputation, compilation."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from sims.runs.lm_config import LmConfig
from toymodel.errors import ConfigError


@dataclass(frozen=True)
class Execution:
    """Set how a run is computed; its identity does not depend on it.

    Args:
        device: device of this process.
        micro_batch: sequences that a device takes at once; the gradients of all micro-batches of a step are summed.
        recompute: store only the inputs of each block for the backward pass, and run the blocks a second time.
        compile: use torch.compile.
    """

    device: torch.device
    micro_batch: int
    recompute: bool = False
    compile: bool = False

    def rounds(self, config: LmConfig, ranks: int) -> int:
        """Return the number of micro-batches per rank and step.

        Args:
            config: the run.
            ranks: number of processes that share each step.

        Raises:
            ConfigError: the step is not a whole number of micro-batches; several ranks would change their updates by
                directions that each finds by itself; or the stage has an attention window that moves during training,
                which torch.compile would compile again at every step.
        """
        if ranks > 1 and config.intervention.scales_updates:
            raise ConfigError(
                f"intervention.kind is {config.intervention.kind}: each of {ranks} processes would find the directions "
                "by itself, and rounding would part their weights; train in one process, or choose decay"
            )
        whole = self.micro_batch * ranks
        if self.micro_batch < 1 or config.batch_size % whole:
            remedy = (
                f"take a number of ranks that divides {config.batch_size}"
                if config.batch_size % ranks
                else f"take --micro-batch {fitting(config.batch_size, ranks, self.micro_batch)}"
            )
            raise ConfigError(
                f"a step of {config.batch_size} sequences is no whole number of rounds of {ranks} × "
                f"{self.micro_batch}; {remedy}"
            )
        if self.compile and config.transformer().stage.window is not None:
            raise ConfigError(
                f"stage {config.stage} has an attention window, which would be compiled anew whenever it moves; leave "
                "out --compile"
            )
        return config.batch_size // whole


def fitting(batch_size: int, ranks: int, most: int) -> int:
    """Return the most sequences, up to a number, by which each process takes its share of a step in whole rounds.

    >>> fitting(50, 1, 32), fitting(50, 2, 32), fitting(8, 1, 32), fitting(8, 1, 3)
    (25, 25, 8, 2)
    """
    share = max(1, batch_size // ranks)
    return max(m for m in range(1, min(max(most, 1), share) + 1) if share % m == 0)
