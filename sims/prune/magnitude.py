"""Prune by magnitude: the smallest weights of a matrix become zero."""

from __future__ import annotations

import torch
from torch import Tensor

from sims.system.errors import MeasureError


def prune_magnitude(W: Tensor, gram: Tensor | None, zeros: int) -> Tensor:
    """Return a matrix without its smallest weights; of equal ones the earlier becomes zero.

    Args:
        W: (rows, cols).
        gram: not used; every method has the same arguments.
        zeros: how many weights become zero.

    Raises:
        MeasureError: more zeros than weights.

    >>> prune_magnitude(torch.tensor([[1.0, -3.0], [0.5, 2.0]]), None, 2)
    tensor([[ 0., -3.],
            [ 0.,  2.]])
    """
    return W.masked_fill(smallest(W.abs(), zeros), 0.0)


def smallest(scores: Tensor, count: int) -> Tensor:
    """Return a mask of the smallest scores, exactly as many as asked for; of equal ones the earlier.

    Args:
        scores: of any shape.
        count: how many.

    Raises:
        MeasureError: a count below 0 or above the number of scores.

    >>> smallest(torch.tensor([2.0, 1.0, 1.0]), 2)
    tensor([False,  True,  True])
    """
    check_zeros(scores, count)
    mask = torch.zeros(scores.numel(), dtype=torch.bool, device=scores.device)
    mask[torch.argsort(scores.flatten(), stable=True)[:count]] = True
    return mask.view(scores.shape)


def check_zeros(W: Tensor, zeros: int) -> None:
    """Refuse a number of zeros that a matrix cannot have.

    Raises:
        MeasureError: below 0, or more than weights.
    """
    if not 0 <= zeros <= W.numel():
        raise MeasureError(f"{zeros} zeros of {W.numel()} weights; give 0 to {W.numel()}")
