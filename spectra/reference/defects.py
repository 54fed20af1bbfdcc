"""Compute the defect of two losses from their whole Hessians."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def defect(
    first: Callable[[list[Tensor]], Tensor], second: Callable[[list[Tensor]], Tensor], theta: Tensor
) -> float:
    """Return ‖H_B g_A − H_A g_B‖/(‖g_A‖‖g_B‖) of losses of one float64 tensor."""
    gradients, hessians = [], []
    for loss in (first, second):

        def flat(x: Tensor, loss: Callable[[list[Tensor]], Tensor] = loss) -> Tensor:
            return loss([x.reshape(theta.shape)])

        point = theta.flatten()
        gradients.append(torch.autograd.functional.jacobian(flat, point))
        hessians.append(torch.autograd.functional.hessian(flat, point))
    commutator = hessians[1] @ gradients[0] - hessians[0] @ gradients[1]
    return float(commutator.norm() / gradients[0].norm() / gradients[1].norm())
