"""Check torch.compile on this machine before it trains a language model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from sims.system.errors import EngineError
from toymodel.compiled import Computed, fault, gradient_errors

if TYPE_CHECKING:
    from sims.training.trainer import Trainer


def check_compiled(trainer: Trainer) -> None:
    """Compare loss and gradients of compiled and eager code in one micro-batch; the trainer stays as it is.

    Args:
        trainer: with a compiled model; every process of its group makes this call.

    Raises:
        EngineError: a difference is larger than rounding, or the model cannot be compiled.
    """

    def compute() -> Computed:
        return torch.tensor(trainer.gradients(rounds=1)), trainer.grads

    half = trainer.config.precision == "bfloat16"
    place = str(trainer.execution.device)
    found = fault(lambda: gradient_errors(trainer.trainable.banks, compute), half, place)
    if trainer.group.agree(bool(found)):
        raise EngineError(
            found or "torch.compile computes this model wrongly on another process; leave out --compile"
        )
