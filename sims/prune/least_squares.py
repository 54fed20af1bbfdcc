"""The best weights on a given mask, and how much the outputs of a pruned matrix differ: the bound for every method."""

from __future__ import annotations

import torch
from torch import Tensor


def best_on_mask(W: Tensor, mask: Tensor, gram: Tensor) -> Tensor:
    """Return the matrix with zeros on a mask whose outputs differ least from those of W, row by row.

    Args:
        W: (rows, cols).
        mask: (rows, cols), True where weights are zero.
        gram: (cols, cols) XᵀX of the inputs, up to a factor. Where it does not determine the weights, the smallest
            change of them is taken.

    Returns:
        The matrix (rows, cols) in float64.

    >>> gram = torch.tensor([[1.0, 0.5], [0.5, 1.0]])
    >>> best_on_mask(torch.tensor([[1.0, 1.0]]), torch.tensor([[True, False]]), gram)
    tensor([[0.0000, 1.5000]], dtype=torch.float64)
    """
    own, moments = W.to(torch.float64), gram.to(torch.float64)
    found = torch.zeros_like(own)
    for row, gone in enumerate(mask):
        kept = ~gone
        removed = moments[kept][:, gone] @ own[row, gone]
        correction = torch.linalg.lstsq(moments[kept][:, kept], removed[:, None], driver="gelsd").solution[
            :, 0
        ]
        found[row, kept] = own[row, kept] + correction
    return found


def output_error(W: Tensor, pruned: Tensor, gram: Tensor) -> float:
    """Return ‖(W − Ŵ)X‖², in the unit of the second moments.

    Args:
        W, pruned: (rows, cols).
        gram: (cols, cols) XᵀX of the inputs, up to a factor.

    >>> output_error(torch.ones(1, 2), torch.tensor([[0.0, 1.0]]), torch.eye(2))
    1.0
    """
    change = W.to(torch.float64) - pruned.to(torch.float64)
    return float(((change @ gram.to(torch.float64)) * change).sum())
