"""Compute eigenvalues of sample covariances in float64, through the smaller Gram matrix."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from spectra.arrays import to_float64, to_tensor
from spectra.errors import InputError
from spectra.spectrum import Spectrum

# Forming a Gram matrix squares the condition number: an eigenvalue below λ₁/1e12 keeps fewer than four digits
# in float64, so beyond this ratio the singular values of the data itself are taken instead.
GRAM_CONDITION_LIMIT = 1e12

# Entries beyond 2^±480 (about 1e±144) have squares, or sums of squares, outside the range of float64.
EXPONENT_LIMIT = 480

EPS = float(np.finfo(np.float64).eps)


def covariance_spectrum(x: Any, center: bool = True) -> Spectrum:
    """Return the eigenvalues of a sample covariance.

    Σ̂ = 1/(n−1) Σ_i (x_i − x̄)(x_i − x̄)ᵀ when centred, Σ̂ = 1/n Σ_i x_i x_iᵀ (second moment) when not.
    Data are centred in float64 before any product is taken, and the eigenvalues come from the smaller of
    the d×d and n×n Gram matrices; beyond λ₁/λ_min = 1e12 from a float64 SVD. A tensor on an accelerator is
    centred and multiplied there, in float64, and only the small Gram matrix is copied to the host.

    Args:
        x: (n, d) numpy array or torch tensor of any real dtype, one sample a row; never written to.
        center: subtract the mean of the rows first.

    Returns:
        Spectrum of min(n, d) eigenvalues, in squared units of x (the remaining d − n are zero by
        construction and left out). Directions that float64 cannot tell from rounding are exactly 0.

    Raises:
        InputError: fewer than two rows, no column, NaN or Inf, complex, not 2-D, no variation at all, or entries
            beyond 1e±144, whose energies float64 cannot hold.

    >>> covariance_spectrum([[1.0, 0.0], [-1.0, 0.0], [0.0, 2.0], [0.0, -2.0]]).values.round(6)
    array([2.666667, 0.666667])
    """
    data = to_rows(x, "x")
    n, d = int(data.shape[0]), int(data.shape[1])
    if n < 2:
        raise InputError(f"x has {n} row(s); a covariance needs at least two samples")
    if d < 1:
        raise InputError("x has no columns; a covariance needs at least one dimension")
    magnitude = largest(data)
    # torch's means over rows take a third of numpy's time.
    rows = to_tensor(data, name="x")
    if center:
        rows = rows - rows.mean(0)
        # The computed mean is off by rounding of order eps·|mean|; a second pass removes what it left, without
        # which a rank-deficient sample would seem to have one direction more.
        rows -= rows.mean(0)
    # What the rounding of the entries themselves could have put into a singular value of the centred rows.
    rounding = EPS * magnitude * float(np.sqrt(max(n, d)))
    rank = min(n - 1 if center else n, d)
    singular_squared = squared_singular_values(rows, rank=rank, magnitude=magnitude, rounding=rounding)
    if not singular_squared[0] > 0.0:
        what = "all rows are equal" if center else "all entries are zero"
        raise InputError(f"x has no variation: {what} to float64 precision, so it has no covariance spectrum")
    return Spectrum(singular_squared / (n - 1 if center else n), "eigenvalue", n=n, d=d, centred=center)


def squared_singular_values(rows: Any, *, rank: int, magnitude: float, rounding: float = 0.0) -> np.ndarray:
    """Return the squared singular values of a matrix, descending.

    min(n, d) values σ². Covariance and weight spectra both use this function.

    Args:
        rows: (n, d) float64 numpy array, or float64 torch tensor on any device.
        rank: the rank the matrix can have by construction (n − 1 after centring); what lies beyond is
            exactly 0.
        magnitude: size of the numbers that the rows were made of, max |entry| or a little more.
        rounding: absolute size of σ below which a value is rounding of the input, hence 0.

    Raises:
        InputError: a magnitude whose square float64 cannot hold.

    >>> squared_singular_values(np.diag([3.0, 4.0]), rank=2, magnitude=4.0).round(6)
    array([16.,  9.])
    """
    n, d = rows.shape
    if magnitude == 0.0:
        return np.zeros(min(n, d))
    if abs(np.frexp(magnitude)[1]) > EXPONENT_LIMIT:
        raise InputError(
            f"the largest entry is {magnitude:.3g} in size, and float64 cannot hold its energy; divide the data by it"
        )
    # torch's LAPACK, not numpy's, so that torch's thread count applies here too.
    matrix = to_tensor(rows, name="rows")
    gram = matrix.T @ matrix if d <= n else matrix @ matrix.T
    values = np.maximum(torch.linalg.eigvalsh(gram.cpu()).numpy()[::-1], 0.0)
    if values[rank - 1] * GRAM_CONDITION_LIMIT <= values[0]:
        sigma = torch.linalg.svdvals(matrix.cpu()).numpy()
        sigma[sigma <= max(EPS * max(n, d) * sigma[0], rounding)] = 0.0
        values = sigma**2
    values[rank:] = 0.0
    return values


def largest(x: Any) -> float:
    """Return max |x| without copying x."""
    return max(float(x.max()), -float(x.min()))


def to_rows(x: Any, name: str) -> Any:
    """Convert x to a checked float64 matrix (n, d).

    A numpy array on the host; a tensor on the accelerator where x is.
    """
    if not isinstance(x, torch.Tensor) or x.device.type in ("cpu", "mps", "meta"):
        array = to_float64(x, name=name, ndim=2)
        require_entries(array.shape, name)
        return array
    if x.is_complex():
        raise InputError(f"{name} is complex; pass real numbers")
    if x.ndim != 2:
        raise InputError(f"{name} has shape {tuple(x.shape)}; it must have 2 axes")
    require_entries(tuple(x.shape), name)
    data = x.detach().to(torch.float64)
    if not bool(torch.isfinite(data).all()):
        bad = int((~torch.isfinite(data)).sum())
        raise InputError(
            f"{name} has {bad} NaN or Inf among {data.numel()} entries; drop or repair these samples first"
        )
    return data


def require_entries(shape: tuple[int, ...], name: str) -> None:
    """Raise InputError for a matrix with no entries."""
    if 0 in shape:
        raise InputError(f"{name} is empty (shape {tuple(shape)}); pass at least two rows and one column")
