"""Compute singular values of weight matrices, and of products of two of them."""

from __future__ import annotations

import numpy as np
import torch

from spectra.arrays import Numbers, largest, require_squares, to_tensor, unit, whole
from spectra.blocks import blocked_squares, on_host
from spectra.covariance import (
    precision_of,
    rounding_floor,
    rounding_margin,
    squared_singular_values,
    to_rows,
)
from spectra.errors import InputError
from spectra.spectrum import Spectrum


def weight_spectrum(W: Numbers, *, precision: float | None = None, block: int | None = None) -> Spectrum:
    """Return the singular values of a weight matrix.

    Uncentred and unscaled.

    σ_j = √λ_j(WᵀW), from the smaller Gram matrix in float64, or a float64 SVD beyond σ₁²/σ_min² = 1e12.

    Args:
        W: (d_out, d_in) numpy array or torch tensor (parameters included); never written to. Flatten the
            input axes of a convolution first.
        precision: as in `covariance_spectrum`: bfloat16 weights that were loaded as float32 keep the precision of
            bfloat16.
        block: entries that are taken to float64 at a time, at least a square of the shorter side: memory is that of W,
            of one block and of the Gram matrix. None takes all of W, as does any W on an accelerator. The values agree
            to rounding; those of blocks come from numpy's BLAS and LAPACK, the others from torch's.

    Returns:
        Spectrum of kind "singular" with min(d_out, d_in) values, n = d_out, d = d_in, centred=False. Values that
        cannot be told from rounding of the entries as they were handed in (`covariance.rounding_floor`) are exactly 0.

    Raises:
        InputError: NaN or Inf, complex, not 2-D, empty, a single row, all zeros, or entries beyond 1e±144.

    >>> weight_spectrum([[3.0, 0.0], [0.0, 4.0]]).values.round(6)
    array([4., 3.])
    """
    if block is not None and on_host(W):
        n, d = (int(size) for size in W.shape)
        _require_rows(n, d)
        squares = blocked_squares(W, precision_of(W, precision), whole(block, "block", least=1))
        return Spectrum(np.sqrt(squares), "singular", n=n, d=d, centred=False)
    matrix = to_rows(W, "W")
    n, d = int(matrix.shape[0]), int(matrix.shape[1])
    _require_rows(n, d)
    require_squares(largest(matrix))
    floor = rounding_floor(to_tensor(matrix, name="W"), precision_of(W, precision))
    squares = squared_singular_values(matrix, rank=min(n, d), floor=floor)
    return Spectrum(squares**0.5, "singular", n=n, d=d, centred=False)


def _require_rows(n: int, d: int) -> None:
    if n < 2:
        raise InputError(
            f"W has shape {(n, d)}; one row has a single singular value, its norm, and no spectrum"
        )


def product_spectrum(left: Numbers, right: Numbers, *, precision: float | None = None) -> Spectrum:
    """Return the singular values of a product of two matrices whose inner side is short.

    Of LR as those of A Bᵀ, with L = Q_L A and Rᵀ = Q_R B: the product, which has rank r at most, is never formed, and
    its singular values are not squared on the way. A product W_qᵀW_k of one attention head, or W_o W_v, is what that
    head computes: q and k alone change with any invertible M (W_q → M W_q, W_k → M⁻ᵀ W_k) while the model does not.

    Args:
        left: (n, r) numpy array or torch tensor; never written to.
        right: (r, d), likewise.
        precision: as in `weight_spectrum`, of both.

    Returns:
        Spectrum of kind "singular" with min(n, r, d) values, n and d those of the product, centred=False. Values that
        cannot be told from rounding of the entries as they were handed in are exactly 0.

    Raises:
        InputError: what `weight_spectrum` rejects but for single rows, inner sides that differ, or a product that is
            all zeros.

    >>> product_spectrum([[1.0, 0.0], [0.0, 2.0], [0.0, 0.0]], [[3.0, 0.0], [0.0, 1.0]]).values.round(6)
    array([3., 2.])
    """
    first, second = (to_tensor(to_rows(m, name), name=name) for m, name in ((left, "left"), (right, "right")))
    if first.shape[1] != second.shape[0]:
        raise InputError(
            f"left is {tuple(first.shape)} and right {tuple(second.shape)}; columns of left must be rows of right"
        )
    units = [unit(largest(m)) for m in (first, second)]
    for size in units:
        require_squares(size)
    values = np.zeros(min(*first.shape, second.shape[1]))
    # Entries of about 1, whose products float64 holds; a division by a power of two is exact.
    a = torch.linalg.qr((first / units[0]).cpu(), mode="r").R
    b = torch.linalg.qr((second / units[1]).T.cpu(), mode="r").R
    found = torch.linalg.svdvals(a @ b.T).numpy()
    # ‖δL·R‖ + ‖L·δR‖, with errors of entries as in `rounding_floor`, are below this.
    own = max(precision_of(left, precision), precision_of(right, precision))
    floor = 2 * rounding_margin(own) * float(a.norm() * b.norm())
    values[: len(found)] = np.where(found > floor, found, 0.0)
    scale = units[0] * units[1]
    require_squares(float(values.max()) * scale, "the largest singular value of the product")
    return Spectrum(values * scale, "singular", n=first.shape[0], d=second.shape[1], centred=False)
