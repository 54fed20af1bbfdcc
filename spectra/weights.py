"""Compute singular values of weight matrices."""

from __future__ import annotations

import numpy as np

from spectra.arrays import Numbers, largest, require_squares, to_tensor, whole
from spectra.blocks import blocked_squares, on_host
from spectra.covariance import precision_of, rounding_floor, squared_singular_values, to_rows
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
