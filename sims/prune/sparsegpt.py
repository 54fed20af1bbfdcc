"""Prune and correct: weights become zero column by column, and the columns to the right make up for each.

The removal of a weight by the optimal brain surgeon changes the other weights of its row so that the outputs on the
inputs of calibration change least. SparseGPT does so from the left to the right, and lets only columns to the right of
the removed weight change: one factorisation then serves all rows. The result is not the best on its mask
(`sims.prune.least_squares`).

Source: Frantar & Alistarh, "SparseGPT: massive language models can be accurately pruned in one-shot", arXiv 2301.00774.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from sims.prune.allocation import zero_counts
from sims.prune.magnitude import check_zeros, smallest
from sims.system.errors import MeasureError

# Columns whose mask is chosen at once; each such block loses the same share.
BLOCK = 128
# Share of the mean of the diagonal that is added to it.
DAMPING = 0.01


def prune_sparsegpt(
    W: Tensor, gram: Tensor, zeros: int, *, block: int = BLOCK, damping: float = DAMPING
) -> Tensor:
    """Return a matrix with weights removed, and those to their right corrected.

    Args:
        W: (rows, cols).
        gram: (cols, cols) XᵀX of its inputs, up to a factor.
        zeros: how many weights become zero.
        block: columns whose mask is chosen together, by the smallest W²/U_jj². All blocks lose one share: with fewer
            columns than the inputs' scales vary over, that costs more than the correction wins.
        damping: share of the mean diagonal that is added to the diagonal.

    Returns:
        The matrix (rows, cols), in the type of W; computed in float64.

    Raises:
        MeasureError: more zeros than weights.
    """
    check_zeros(W, zeros)
    factor = inverse_factor(gram, damping)
    found = W.to(torch.float64).clone()
    starts = range(0, W.shape[1], block)
    sizes = [len(W) * (min(start + block, W.shape[1]) - start) for start in starts]
    share = zeros / W.numel()
    for start, count in zip(starts, zero_counts(np.full(len(sizes), share), sizes, share), strict=True):
        stop = min(start + block, W.shape[1])
        scores = (found[:, start:stop] / factor.diagonal()[start:stop]).square()
        remove(found, smallest(scores, int(count)), factor, start)
    return found.to(W)


def inverse_factor(gram: Tensor, damping: float = DAMPING) -> Tensor:
    """Return the upper triangular U with UᵀU = (G + damping·mean(diag G)·1)⁻¹, in float64.

    Inputs that are all zero leave every choice without an effect; G is then taken as the identity.

    Raises:
        MeasureError: G is not finite, or without damping singular.

    >>> inverse_factor(torch.tensor([[4.0]]), damping=0.0)
    tensor([[0.5000]], dtype=torch.float64)
    """
    damped = gram.to(torch.float64).clone()
    mean = damped.diagonal().mean()
    damped.diagonal().add_(damping * mean if mean > 0 else 1.0)
    try:
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped))
        return torch.linalg.cholesky(inverse, upper=True)
    except RuntimeError as error:
        raise MeasureError(
            f"the second moments of the inputs have no inverse with a damping of {damping:g} ({error}); raise it, or "
            "look for inputs that are not finite"
        ) from error


def remove(W: Tensor, mask: Tensor, factor: Tensor, start: int = 0) -> None:
    """Remove the masked weights of some adjacent columns, from the left to the right, and correct all to the right.

    The step of column j is that of the optimal brain surgeon on the columns from j on: with P the inverse of their
    second moments, w ← w − (w_j/P_jj) P_j for the rows that lose w_j.

    Args:
        W: (rows, cols) in float64; changed in place.
        mask: (rows, b) of columns start, …, start + b − 1.
        factor: of `inverse_factor`.
        start: the first of these columns.
    """
    width = mask.shape[1]
    stop = start + width
    errors = W.new_zeros(len(W), width)
    for j in range(width):
        column = start + j
        errors[:, j] = torch.where(mask[:, j], W[:, column], 0.0) / factor[column, column]
        W[:, column:stop] -= errors[:, j, None] * factor[column, column:stop]
        # Removed to the last bit, not up to rounding.
        W[:, column].masked_fill_(mask[:, j], 0.0)
    W[:, stop:] -= errors @ factor[start:stop, stop:]
