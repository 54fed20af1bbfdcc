"""Check torch.compile on this machine before it trains anything."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sims.system.errors import EngineError
from toymodel.parameters import ParameterBank

if TYPE_CHECKING:
    from sims.training.trainer import Trainer

_REMEDY = "leave out --compile, or use another version of torch"


def check_compiled(trainer: Trainer) -> None:
    """Compare loss and gradients of compiled and eager code in one micro-batch; the trainer stays as it is.

    A version of torch has lost the derivative of a part of the model, so that only its head was trained, while the
    losses looked plausible. Weights that start at zero would hide that: the comparison is made at random weights.
    It allows half of the digits of the dtype, √ε: compiled code rounds elsewhere.

    Args:
        trainer: with a compiled model; every process of its group makes this call.

    Raises:
        EngineError: a difference is larger, or the model cannot be compiled.
    """
    from torch._dynamo.exc import TorchDynamoException  # slow to import

    half = trainer.config.precision == "bfloat16"
    tolerance = math.sqrt(torch.finfo(torch.bfloat16 if half else torch.float32).eps)
    with _random_weights(trainer.trainable.banks):
        with torch.compiler.set_stance("force_eager"):
            expected = trainer.gradients(rounds=1)
        eager = [vector.to("cpu", copy=True) for vector in trainer.grads]
        try:
            loss = trainer.gradients(rounds=1)
        except TorchDynamoException as error:
            reason = " ".join(str(error).strip().partition("\n\n")[0].split())
            raise EngineError(
                f"torch.compile of torch {torch.__version__} fails on this model ({reason}); {_REMEDY}"
            ) from error
    errors = {"loss": abs(loss - expected) / abs(expected)}
    for bank, ours, theirs in zip(trainer.trainable.banks, trainer.grads, eager, strict=True):
        errors |= _errors(bank, ours, theirs)
    # A comparison with NaN is false.
    wrong = {name: error for name, error in errors.items() if not error <= tolerance}
    if trainer.group.agree(bool(wrong)):
        name = max(wrong, key=lambda n: math.inf if math.isnan(wrong[n]) else wrong[n], default="loss")
        what = name if name == "loss" else f"gradient of {name}"
        raise EngineError(
            f"torch.compile of torch {torch.__version__} computes this model wrongly on {trainer.execution.device}: "
            f"the {what} is {errors[name]:.2g} of its size from that of eager code, where {tolerance:.2g} may be "
            f"rounding ({len(wrong)} of {len(errors)} are further off); nothing was trained; {_REMEDY}"
        )


def _errors(bank: ParameterBank, compiled: Tensor, eager: Tensor) -> dict[str, float]:
    """Return the relative errors of gradients by name of their parameter.

    The gradient of a single number is a sum that can cancel: such parameters are compared to all of their kind.
    """
    pairs = {s.name: (bank.block(compiled, s.name), bank.block(eager, s.name)) for s in bank.specs}
    scalars = [s.name for s in bank.specs if s.role == "scalar"]
    sizes = {name: float(theirs.norm()) for name, (_, theirs) in pairs.items()}
    sizes |= dict.fromkeys(scalars, math.hypot(*(sizes[name] for name in scalars)))
    return {
        name: float((ours - theirs.to(ours.device)).norm()) / sizes[name] if sizes[name] else math.nan
        for name, (ours, theirs) in pairs.items()
    }


@contextmanager
def _random_weights(banks: tuple[ParameterBank, ...]) -> Iterator[None]:
    """Fill all parameters with normal numbers of variance 1/width, and restore them."""
    kept = [bank.vector.detach().to("cpu", copy=True) for bank in banks]
    try:
        for bank in banks:
            generator = torch.Generator(bank.vector.device).manual_seed(0)
            for spec in bank.specs:
                std = 1 / math.sqrt(spec.shape[-1])
                bank.block(bank.vector.detach(), spec.name).normal_(0.0, std, generator=generator)
        yield
    finally:
        for bank, vector in zip(banks, kept, strict=True):
            bank.vector.detach().copy_(vector)
