"""Measure how far two gradient steps are from commuting: the defect of two losses at one point.

Step along the gradient of one batch, then of another; the order matters where the Hessians of the batches differ.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from spectra.arrays import EPS, brief, real, to_tensor
from spectra.errors import InputError, NotFiniteError
from spectra.results import Status
from spectra.shown import Shown

# A loss as a function of the parameters, in whatever dtype they come.
Loss: TypeAlias = Callable[[list[Tensor]], Tensor]

# Two figures for one defect that differ by more are two measurements.
AGREEMENT = 0.1
# Rounding errors that a gradient may gather, in units of the machine epsilon.
ROUNDINGS = 64
# What the published figure adds to its denominator.
PUBLISHED_FLOOR = 1e-12


@dataclass(frozen=True)
class Defect(Shown):
    """Hold the defect of two losses, exactly and by finite steps.

    Attributes:
        exact: ‖H_B g_A − H_A g_B‖/(‖g_A‖‖g_B‖) by Hessian-vector products in float64, the limit of small steps.
        finite: the same from four gradients in float64, at steps of the given rate.
        published: from positions subtracted in float32, as published; for comparison only.
        norms: ‖g_A‖ and ‖g_B‖.
        cosine: of g_A and g_B.
        status: "flagged" where ``published`` or ``finite`` measures something else than the defect.
        reason: which of them, and what it measures.
        rounded: whether ``published`` is more than 10 % off ``finite``: it measures rounding.
        curved: whether ``finite`` is more than 10 % off ``exact``: the step is too long.

    >>> Defect(exact=0.2, finite=0.2, published=0.2, norms=(1.0, 2.0), cosine=0.5).status
    'ok'
    """

    exact: float
    finite: float
    published: float
    norms: tuple[float, float]
    cosine: float
    status: Status = "ok"
    reason: str = ""
    rounded: bool = False
    curved: bool = False


@torch.inference_mode(False)
@torch.enable_grad()
def commutator_defect(
    first: Loss, second: Loss, parameters: Tensor | np.ndarray | Sequence[Tensor], *, rate: float = 1e-3
) -> Defect:
    """Measure the defect of two losses A and B at θ: how far their gradient steps are from commuting.

    With θ_AB the point after a step of rate η along −∇A and then one along −∇B, the defect is
    ‖θ_AB − θ_BA‖/(η²‖g_A‖‖g_B‖), which tends to ‖H_B g_A − H_A g_B‖/(‖g_A‖‖g_B‖) as η tends to 0. The limit needs no
    step: two Hessian-vector products in float64 give it. The finite difference is taken between gradients,
    ‖(g_B + ∇A(θ − ηg_B)) − (g_A + ∇B(θ − ηg_A))‖/(η‖g_A‖‖g_B‖). Between positions in float32, as published, it is
    mostly rounding once η‖g‖ is small against the spacing of the numbers θ.

    Args:
        first: A, a function of the list of parameters that returns one number as a tensor. It is called in float64 and
            in float32: cast data inside to the dtype of the parameters. For a module,
            ``lambda p: loss(torch.func.functional_call(model, dict(zip(names, p)), x.to(p[0].dtype)), y)``.
        second: B.
        parameters: θ, a tensor or a list of them; not changed.
        rate: η of the finite steps, positive.

    Returns:
        `Defect`, in inverse units of a parameter; factors of the losses cancel. Flagged where the published figure is
        more than 10 % off the finite difference (rounding), or this one off the limit (a step that leaves the quadratic
        range, or crosses kinks of a ReLU).

    Raises:
        InputError: parameters that are no finite real numbers, a rate that is not positive, a loss that is not one
            number of the parameters, or a gradient that is zero, NaN or Inf.

    >>> a, b = torch.tensor([[1.0, 0.0], [0.0, 3.0]]), torch.tensor([[2.0, 1.0], [1.0, 2.0]])
    >>> def quadratic(matrix):
    ...     return lambda p: p[0] @ matrix.to(p[0].dtype) @ p[0] / 2
    >>> round(commutator_defect(quadratic(a), quadratic(b), torch.tensor([1.0, 1.0])).exact, 6)
    0.210819
    """
    step = real(rate, "rate")
    if not 0 < step < math.inf:
        raise InputError(f"rate is {step}; pass a positive step size, for instance 1e-3")
    theta = _parameters(parameters)
    g_a, hessian_a = _gradient(first, theta, "first")
    g_b, hessian_b = _gradient(second, theta, "second")
    size_a, size_b = _norm(g_a), _norm(g_b)
    exact = _norm(_difference(hessian_b(g_a), hessian_a(g_b))) / size_a / size_b
    after_a = _gradient(second, _moved(theta, g_a, step), "second")[0]
    after_b = _gradient(first, _moved(theta, g_b, step), "first")[0]
    left, right = ([x + y for x, y in zip(*pair, strict=True)] for pair in ((g_b, after_b), (g_a, after_a)))
    finite = _norm(_difference(left, right)) / step / size_a / size_b
    published = _published(first, second, theta, step)
    cosine = sum(float((x * y).sum()) for x, y in zip(g_a, g_b, strict=True)) / size_a / size_b
    numbers = {"exact": exact, "finite": finite, "published": published, "cosine": cosine}
    for name, number in numbers.items():
        if not math.isfinite(number):
            raise NotFiniteError(
                f"the {name} defect is {number} at the rate {step:g}: float64 (float32 for the published one) cannot "
                "hold it; change the rate or the scale of the losses"
            )
    # What rounding of the gradients adds to their difference.
    least = ROUNDINGS * EPS * (1 / size_a + 1 / size_b) / step
    rounded = abs(published - finite) > AGREEMENT * finite + least
    curved = abs(finite - exact) > AGREEMENT * exact + least
    reasons = []
    if rounded:
        reasons.append(
            f"positions in float32 give {published:.3g} and gradients {finite:.3g} at the rate {step:g}: the published "
            "figure measures rounding"
        )
    if curved:
        reasons.append(
            f"steps of the rate {step:g} give {finite:.3g} and their limit is {exact:.3g}: they leave the quadratic "
            "range, or cross kinks"
        )
    status: Status = "flagged" if reasons else "ok"
    return Defect(
        exact, finite, published, (size_a, size_b), cosine, status, "; ".join(reasons), rounded, curved
    )


def _published(first: Loss, second: Loss, theta: list[Tensor], step: float) -> float:
    """Subtract the positions after two steps in both orders, in float32."""
    start = [part.float() for part in theta]
    g_a, g_b = _gradient(first, start, "first")[0], _gradient(second, start, "second")[0]
    ends = []
    for gradient, loss, name in ((g_a, second, "second"), (g_b, first, "first")):
        middle = _moved(start, gradient, step)
        ends.append(_moved(middle, _gradient(loss, middle, name)[0], step))
    apart = _norm(_difference(*ends))
    return apart / (step * _norm(g_a) * step * _norm(g_b) + PUBLISHED_FLOOR)


def _gradient(
    loss: Loss, theta: list[Tensor], name: str
) -> tuple[list[Tensor], Callable[[list[Tensor]], list[Tensor]]]:
    """Return the gradient of a loss, and its Hessian as a function of vectors."""
    leaves = [part.detach().clone().requires_grad_() for part in theta]
    value = loss(leaves)
    if not isinstance(value, Tensor) or value.numel() != 1 or not value.requires_grad:
        raise InputError(
            f"the {name} loss returned {brief(value)}; it must return one number as a tensor, computed from the "
            "parameters it is given"
        )
    graph = _derivative(value.reshape(()), leaves, create_graph=True)
    gradient = [part.detach() for part in graph]
    if not all(bool(torch.isfinite(part).all()) for part in gradient):
        raise NotFiniteError(f"the gradient of the {name} loss has NaN or Inf; it has no defect here")
    if not any(bool(part.any()) for part in gradient):
        raise InputError(f"the gradient of the {name} loss is zero; a step along it goes nowhere")

    def hessian(vector: list[Tensor]) -> list[Tensor]:
        product = sum((part * v).sum() for part, v in zip(graph, vector, strict=True))
        assert isinstance(product, Tensor)
        # The gradient of a linear loss depends on nothing.
        return (
            _derivative(product, leaves)
            if product.requires_grad
            else [torch.zeros_like(part) for part in leaves]
        )

    return gradient, hessian


def _derivative(value: Tensor, leaves: list[Tensor], *, create_graph: bool = False) -> list[Tensor]:
    return list(
        torch.autograd.grad(
            value,
            leaves,
            create_graph=create_graph,
            retain_graph=True,
            allow_unused=True,
            materialize_grads=True,
        )
    )


def _moved(theta: list[Tensor], gradient: list[Tensor], step: float) -> list[Tensor]:
    return [part - step * g for part, g in zip(theta, gradient, strict=True)]


def _difference(left: list[Tensor], right: list[Tensor]) -> list[Tensor]:
    return [x - y for x, y in zip(left, right, strict=True)]


def _norm(parts: list[Tensor]) -> float:
    """Return the norm of all entries together, added up in float64."""
    return math.hypot(*(float(torch.linalg.vector_norm(part.double())) for part in parts))


def _parameters(parameters: Tensor | np.ndarray | Sequence[Tensor]) -> list[Tensor]:
    """Return detached float64 copies, after the checks."""
    given = [parameters] if isinstance(parameters, Tensor | np.ndarray) else parameters
    if not isinstance(given, list | tuple):
        raise InputError(f"the parameters are {brief(given)}; pass a tensor, or a list of them")
    parts = [to_tensor(part, name="a parameter") for part in given]
    if sum(part.numel() for part in parts) == 0:
        raise InputError("the parameters have no entries")
    for index, part in enumerate(parts):
        if part.is_complex():
            raise InputError(f"parameter {index} is complex; pass real numbers")
        if not bool(torch.isfinite(part).all()):
            raise NotFiniteError(f"parameter {index} has NaN or Inf; the run has diverged here")
    return [part.double() for part in parts]
