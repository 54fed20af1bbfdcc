"""Prune by weights and inputs: within each row the weights of the smallest |w|·‖x‖ become zero.

Source: Sun et al., "A simple and effective pruning approach for large language models", arXiv 2306.11695. The published
code rounds the zeros of every row down, so that narrow matrices keep more than asked for; here the remaining zeros are
those of the smallest scores that are left, at most one a row.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sims.prune.magnitude import check_zeros, smallest


def prune_wanda(W: Tensor, gram: Tensor, zeros: int) -> Tensor:
    """Return a matrix without the weights of the smallest |W_ij|·‖X_j‖ of each row.

    Args:
        W: (rows, cols).
        gram: (cols, cols) XᵀX of its inputs, up to a factor; only the diagonal is used.
        zeros: how many weights become zero; the numbers of two rows differ by at most one.

    Raises:
        MeasureError: more zeros than weights.

    >>> prune_wanda(torch.tensor([[1.0, 3.0], [1.0, 9.0]]), torch.diag(torch.tensor([16.0, 1.0])), 2)
    tensor([[1., 0.],
            [0., 9.]])
    """
    check_zeros(W, zeros)
    scores = W.to(gram).abs() * gram.diagonal().clamp(min=0).sqrt()
    # What is zero already comes before weights whose inputs are zero.
    scores.masked_fill_(W == 0, -1.0)
    each, rest = divmod(zeros, len(W))
    order = torch.argsort(scores, dim=1, stable=True)
    mask = torch.zeros(W.shape, dtype=torch.bool, device=W.device).scatter_(1, order[:, :each], True)
    if rest:
        column = order[:, each]
        rows = smallest(scores.gather(1, column[:, None])[:, 0], rest).nonzero()[:, 0]
        mask[rows, column[rows]] = True
    return W.masked_fill(mask, 0.0)
