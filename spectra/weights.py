"""Compute singular values of weight matrices, and of products of two of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from spectra.arrays import Numbers, largest, require_squares, to_tensor, unit, whole
from spectra.blocks import blocked_squares, on_host
from spectra.covariance import (
    least_length,
    lengths,
    precision_of,
    rounding_floor,
    rounding_margin,
    squared_singular_values,
    stacked_squares,
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


def weight_spectra(W: Numbers, *, precision: Sequence[float] | float | None = None) -> tuple[Spectrum, ...]:
    """Return the singular values of weight matrices of one shape, in one decomposition where they are.

    On an accelerator one matrix after the other leaves most of it idle, and each waits for the host.

    Args:
        W: (K, d_out, d_in) numpy array or torch tensor; never written to. Memory is that of a copy in float64.
        precision: as in `weight_spectrum`, of all or of each.

    Returns:
        K spectra, as `weight_spectrum` gives them for each matrix alone, to rounding of the largest energy.

    Raises:
        InputError: what `weight_spectrum` rejects in any of the matrices, not 3-D, or another number of precisions.

    >>> [s.values.round(6).tolist() for s in weight_spectra([[[3.0, 0.0], [0.0, 4.0]], [[1.0, 1.0], [0.0, 0.0]]])]
    [[4.0, 3.0], [1.414214, 0.0]]
    """
    stack = to_tensor(to_rows(W, "W", ndim=3), name="W")
    count, n, d = stack.shape
    _require_rows(n, d)
    _magnitudes(stack)
    given = precision if isinstance(precision, Sequence) else [precision] * count
    if len(given) != count:
        raise InputError(f"precision has {len(given)} numbers for {count} matrices; pass one of each, or one")
    own = [precision_of(W, stated) for stated in given]
    squares = stacked_squares(stack, own)
    return tuple(Spectrum(row**0.5, "singular", n=n, d=d, centred=False) for row in squares)


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
        cannot be told from rounding of the entries as they were handed in are exactly 0. Its noise is the product of
        two Gaussian matrices, which spreads more than one of its shape (`noise_quantiles`, ``plot``).

    Raises:
        InputError: what `weight_spectrum` rejects but for single rows, inner sides that differ, or a product that is
            all zeros.

    >>> product_spectrum([[1.0, 0.0], [0.0, 2.0], [0.0, 0.0]], [[3.0, 0.0], [0.0, 1.0]]).values.round(6)
    array([3., 2.])
    """
    first, second = (to_tensor(to_rows(m, name), name=name) for m, name in ((left, "left"), (right, "right")))
    own = max(precision_of(left, precision), precision_of(right, precision))
    return _products(first[None], second[None], own)[0]


def product_spectra(left: Numbers, right: Numbers, *, precision: float | None = None) -> tuple[Spectrum, ...]:
    """Return the singular values of products of pairs of matrices of one shape, in one decomposition.

    Args:
        left: (K, n, r) numpy array or torch tensor; never written to.
        right: (K, r, d), likewise.
        precision: as in `weight_spectrum`, of all.

    Returns:
        K spectra, as `product_spectrum` gives them for each pair alone.

    Raises:
        InputError: what `product_spectrum` rejects in any pair, not 3-D, or different numbers of matrices.

    >>> [s.values.round(6).tolist() for s in product_spectra([[[1.0], [0.0]], [[0.0], [2.0]]], [[[3.0]], [[4.0]]])]
    [[3.0], [8.0]]
    """
    pair = ((left, "left"), (right, "right"))
    first, second = (to_tensor(to_rows(m, name, ndim=3), name=name) for m, name in pair)
    if len(first) != len(second):
        raise InputError(f"left holds {len(first)} matrices and right {len(second)}; pass as many of both")
    return _products(first, second, max(precision_of(left, precision), precision_of(right, precision)))


def _products(first: torch.Tensor, second: torch.Tensor, own: float) -> tuple[Spectrum, ...]:
    """Return the spectra of products (K, n, r) @ (K, r, d) of entries of one precision."""
    n, inner, d = (int(size) for size in (*first.shape[1:], second.shape[2]))
    if inner != second.shape[1]:
        raise InputError(
            f"left is {(n, inner)} and right {(int(second.shape[1]), d)}; columns of left must be rows of right"
        )
    # Entries of about 1, whose products float64 holds; a division by a power of two is exact.
    units = _units(first), _units(second)
    sides = (first, second.mT)
    scaled = [(side / size.to(side)[:, None, None]).cpu() for side, size in zip(sides, units, strict=True)]
    a, b = (torch.linalg.qr(side, mode="r").R for side in scaled)
    found = torch.linalg.svdvals(a @ b.mT).numpy()
    # Errors δL and δR of the entries, as in `rounding_floor`, change no value by more than ‖δL‖‖R‖ + ‖L‖‖δR‖.
    errors = [_error(side, size, own) for side, size in zip(scaled, units, strict=True)]
    norms = [torch.linalg.svdvals(triangle)[:, 0] for triangle in (a, b)]
    floors = (errors[0] * norms[1] + norms[0] * errors[1]).numpy()[:, None]
    values = np.zeros((len(first), min(n, inner, d)))
    values[:, : found.shape[1]] = np.where(found > floors, found, 0.0)
    scales = (units[0] * units[1]).numpy()
    for largest_value, scale in zip(values.max(axis=1), scales, strict=True):
        require_squares(float(largest_value) * scale, "the largest singular value of the product")
    return tuple(Spectrum(row, "singular", n=n, d=d, centred=False) for row in values * scales[:, None])


def _error(stack: torch.Tensor, units: torch.Tensor, precision: float) -> torch.Tensor:
    """Return the largest entry of `rounding_floor` of each matrix (K, n, d) that was divided by its unit."""
    longest = lengths(stack).amax(dim=1)
    return rounding_margin(precision) * torch.hypot(
        longest, least_length(max(stack.shape[1:]), precision) / units
    )


def _units(stack: torch.Tensor) -> torch.Tensor:
    """Return a power of two near the largest entry of each matrix (K, n, d), on the host.

    Raises:
        InputError: entries whose squares float64 cannot hold.
    """
    magnitudes = _magnitudes(stack)
    return torch.tensor([unit(size) for size in magnitudes], dtype=torch.float64)


def _magnitudes(stack: torch.Tensor) -> list[float]:
    """Return the largest |entry| of each matrix (K, n, d).

    Raises:
        InputError: entries whose squares float64 cannot hold.
    """
    found = torch.stack(stack.flatten(1).aminmax(dim=1)).abs().amax(dim=0).tolist()
    for magnitude in found:
        require_squares(magnitude)
    return found
