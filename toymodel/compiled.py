"""torch.compile for training, compared with eager code on this machine before it trains anything."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import wraps
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor

from toymodel.parameters import ParameterBank

P = ParamSpec("P")
T = TypeVar("T")

BACKEND = "inductor"
# Shapes for which one function is compiled in one process; torch gives up after eight. A sweep has more.
SHAPES = 10_000
# Loss, and for each bank the vector of gradients in its layout.
Computed = tuple[Tensor, Sequence[Tensor]]


def compiled(function: Callable[P, T]) -> Callable[P, T]:
    """Return the function compiled as one piece, anew for every shape; it is never run as it is without a word."""
    from torch._dynamo import config  # slow to import

    fast = torch.compile(function, backend=BACKEND, fullgraph=True, dynamic=False)

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        with config.patch(recompile_limit=SHAPES, accumulated_recompile_limit=SHAPES):
            return fast(*args, **kwargs)

    return call


def tolerance(half: bool) -> float:
    """Return how far results of compiled code may be from those of eager code: half of the digits of the dtype, √ε.

    Compiled code rounds elsewhere, and sums that cancel show it.

    >>> round(tolerance(half=False), 6)
    0.000345
    """
    return math.sqrt(torch.finfo(torch.bfloat16 if half else torch.float32).eps)


def gradient_errors(banks: Sequence[ParameterBank], compute: Callable[[], Computed]) -> dict[str, float]:
    """Return the relative errors of loss and gradients of compiled code, by what is compared; nothing is changed.

    A version of torch has lost the derivative of a part of the model, so that only its head was trained, while the
    losses looked plausible. Weights that start at zero would hide that: the comparison is made at random weights.

    Args:
        banks: all parameters.
        compute: computes at the present parameters, by compiled code.
    """
    with _random_weights(banks):
        with torch.compiler.set_stance("force_eager"):
            loss, grads = compute()
            expected, eager = loss.clone(), [vector.to("cpu", copy=True) for vector in grads]
        loss, grads = compute()
    errors = {"loss": float((loss - expected).norm() / expected.norm())}
    for bank, ours, theirs in zip(banks, grads, eager, strict=True):
        errors |= _errors(bank, ours, theirs)
    return errors


def update_errors(state: Sequence[Tensor], update: Callable[[], None]) -> dict[str, float]:
    """Return the relative errors of an update by compiled code; nothing is changed.

    Args:
        state: the parameters, and what else is updated in place.
        update: applies it, by compiled code.
    """
    before = [x.detach().clone() for x in state]

    def updated() -> list[Tensor]:
        update()
        after = [x.detach().clone() for x in state]
        for x, old in zip(state, before, strict=True):
            x.detach().copy_(old)
        return after

    with torch.compiler.set_stance("force_eager"):
        expected = updated()
    found = updated()
    root = tolerance(half=False)
    errors = {}
    for i, (ours, theirs, old) in enumerate(zip(found, expected, before, strict=True)):
        # Where a number changes little, what counts is the rounding of the number itself.
        size = (theirs - old).norm() + root * theirs.norm()
        errors[f"update ({i})"] = float((ours - theirs).norm() / size) if bool(size) else math.nan
    return errors


def fault(compare: Callable[[], Mapping[str, float]], half: bool, place: str) -> str:
    """Return why compiled code must not train, with the remedy; empty where it agrees with eager code.

    Args:
        compare: returns relative errors by what is compared.
        half: whether products are in half precision.
        place: name of the device.
    """
    from torch._dynamo.exc import TorchDynamoException  # slow to import

    remedy = "leave out --compile, or use another version of torch"
    try:
        errors = compare()
    except TorchDynamoException as error:
        reason = " ".join(str(error).strip().partition("\n\n")[0].split())
        return f"torch.compile of torch {torch.__version__} fails on this model ({reason}); {remedy}"
    allowed = tolerance(half)
    # A comparison with NaN is false.
    wrong = {name: error for name, error in errors.items() if not error <= allowed}
    if not wrong:
        return ""
    name = max(wrong, key=lambda n: math.inf if math.isnan(wrong[n]) else wrong[n])
    what = name if name == "loss" or name.startswith("update") else f"gradient of {name}"
    return (
        f"torch.compile of torch {torch.__version__} computes this model wrongly on {place}: the {what} is "
        f"{errors[name]:.2g} of its size from that of eager code, where {allowed:.2g} may be rounding ({len(wrong)} of "
        f"{len(errors)} are further off); nothing was trained by it; {remedy}"
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
def _random_weights(banks: Sequence[ParameterBank]) -> Iterator[None]:
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
