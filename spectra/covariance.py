"""Compute eigenvalues of sample covariances in float64, through the smaller Gram matrix."""

from __future__ import annotations

import bisect
from collections.abc import Sequence

import numpy as np
import torch

from spectra.arrays import (
    EPS,
    Numbers,
    flag,
    largest,
    machine_epsilon,
    real,
    require_squares,
    require_strided,
    to_float64,
    to_tensor,
)
from spectra.errors import InputError, NotFiniteError
from spectra.spectrum import Spectrum

# Forming a Gram matrix squares the condition number: an eigenvalue below λ₁/1e12 keeps fewer than four digits
# in float64, so beyond this ratio the singular values of the data itself are taken instead.
GRAM_CONDITION_LIMIT = 1e12

# Rounding of the entries explains values up to this many times ε·(length of a column); see `rounding_floor`. Numbers in
# float32 are mostly sums taken in float32, narrower ones were rounded once or a few times.
ROUNDING_MARGIN, NARROW_MARGIN = 6.0, 2.0
NARROW = 1e-6
# Entries below its smallest normal number, 6e-5, are rounded like this one. Numbers in 8 bits have a scale besides.
HALF = torch.finfo(torch.float16)


def covariance_spectrum(x: Numbers, center: bool = True, *, precision: float | None = None) -> Spectrum:
    """Return the eigenvalues of a sample covariance.

    Σ̂ = 1/(n−1) Σ_i (x_i − x̄)(x_i − x̄)ᵀ when centred, Σ̂ = 1/n Σ_i x_i x_iᵀ (second moment) when not.
    Data are centred in float64 before any product is taken, and the eigenvalues come from the smaller of
    the d×d and n×n Gram matrices; beyond λ₁/λ_min = 1e12 from a float64 SVD. A tensor on an accelerator is
    centred and multiplied there, in float64, and only the small Gram matrix is copied to the host.

    Args:
        x: (n, d) numpy array or torch tensor of any real dtype, one sample a row; never written to.
        center: subtract the mean of the rows first.
        precision: machine epsilon of the numbers, where they were once rounded more coarsely than their dtype tells
            (bfloat16 states loaded as float32: ``torch.finfo(torch.bfloat16).eps``). None takes that of the dtype. That
            of float16 tells the range as well: pass numbers in the scale in which they were rounded.

    Returns:
        Spectrum of min(n, d) eigenvalues, in squared units of x (the remaining d − n are zero by
        construction and left out). Directions that cannot be told from rounding of the entries as they were
        handed in (`rounding_floor`: float32, float16 and bfloat16 included) are exactly 0.

    Raises:
        InputError: fewer than two rows, no column, NaN or Inf, complex, not 2-D, no variation at all, or entries
            beyond 1e±144, whose energies float64 cannot hold.

    >>> covariance_spectrum([[1.0, 0.0], [-1.0, 0.0], [0.0, 2.0], [0.0, -2.0]]).values.round(6)
    array([2.666667, 0.666667])
    """
    data, center = to_rows(x, "x"), flag(center, "center")
    n, d = int(data.shape[0]), int(data.shape[1])
    if n < 2:
        raise InputError(f"x has {n} row(s); a covariance needs at least two samples")
    magnitude = largest(data)
    require_squares(magnitude)
    # torch's means over rows take a third of numpy's time.
    rows = to_tensor(data, name="x")
    floor = rounding_floor(rows, precision_of(x, precision))
    if center:
        rows = rows - rows.mean(0)
        # The computed mean is off by rounding of order eps·|mean|; a second pass removes what it left, without
        # which a rank-deficient sample would seem to have one direction more.
        rows -= rows.mean(0)
    rank = min(n - 1 if center else n, d)
    singular_squared = squared_singular_values(rows, rank=rank, floor=floor)
    if not singular_squared[0] > 0.0:
        what = "all rows are equal" if center else "all entries are zero"
        raise InputError(f"x has no variation: {what} to the precision of its numbers, so it has no spectrum")
    return Spectrum(singular_squared / (n - 1 if center else n), "eigenvalue", n=n, d=d, centred=center)


def rounding_floor(rows: torch.Tensor, precision: float) -> np.ndarray:
    """Return what rounding of the entries can put into the 1st, 2nd, … singular value.

    (min(n, d),) descending: 6ε (2ε for float16 and bfloat16) times the lengths of the columns (of the rows where
    these are longer, d > n) of the matrix as it was stored, before centring.

    A stored entry x is off by up to ε|x|/2, at random: about .2 ε|x| in root mean square (below the smallest normal
    number of float16, 6e-5, as that number is, which then counts for |x|). The j-th singular value of
    such errors is at most the norm of what remains without the j − 1 longest columns (interlacing), and that is at most
    about the length of its longest column plus that of its longest row (Bandeira and van Handel, Ann. Probab. 44, 2016;
    √n + √d for equal entries). Measured in units of ε·(longest column): .25 to .4 for numbers rounded once in float32,
    float16 or bfloat16, 1.0 for 24 terms added up in bfloat16, 2.0 for tokens that repeat as in a text; for 64 and for
    1,024 to 8,192 terms summed in float32 up to 2.5 and 4.6 with AVX-512, 2.4 and 3.5 with AVX2.

    Args:
        rows: (n, d) as they were handed in.
        precision: ε, the machine epsilon of the dtype that they were stored in.

    >>> rounding_floor(torch.ones(4, 1, dtype=torch.float64), 2.0**-23) == 6 * 2.0**-23 * 2
    array([ True])
    """
    found = lengths(rows).cpu().numpy()
    return (
        rounding_margin(precision) * np.sort(np.hypot(found, least_length(max(rows.shape), precision)))[::-1]
    )


def least_length(count: int, precision: float) -> float:
    """Return the length of a column of so many entries as small as float16 holds without a loss of digits.

    0 for other precisions, whose range no entry leaves.

    >>> least_length(4, 2.0**-10) == 2 * 2.0**-14, least_length(4, 2.0**-23)
    (True, 0.0)
    """
    return count**0.5 * HALF.smallest_normal if precision == HALF.eps else 0.0


def lengths(rows: torch.Tensor) -> torch.Tensor:
    """Return the lengths (…, min(n, d)) of the columns of matrices (…, n, d), of the rows where d > n."""
    n, d = rows.shape[-2:]
    # Three times as fast as vector_norm; squares are in range (`require_squares`).
    return rows.square().sum(-2 if d <= n else -1).sqrt()


def rounding_margin(precision: float) -> float:
    """Return 6ε, or 2ε for float16 and bfloat16."""
    return precision * (NARROW_MARGIN if precision > NARROW else ROUNDING_MARGIN)


def resolved(sigma: np.ndarray, floor: np.ndarray) -> int:
    """Return the smallest rank that rounding allows.

    By Weyl's inequality a matrix of rank r, stored with errors of singular values up to floor_j, has
    σ_{r+j} ≤ floor_j for every j: the smallest such r.

    Args:
        sigma: (r,) descending singular values.
        floor: (r,) descending, see `rounding_floor`.

    >>> resolved(np.array([5.0, 1.0, 0.2]), np.array([0.3, 0.3, 0.3]))
    2
    """
    size = len(sigma)
    if sigma[-1] > floor[0]:
        return size
    ranks = range(size + 1)
    # Where r is allowed, so is r + 1.
    return bisect.bisect_left(ranks, True, key=lambda r: bool((sigma[r:] <= floor[: size - r]).all()))


def precision_of(x: object, stated: float | None) -> float:
    """Return the machine epsilon of numbers: that of their dtype, or a coarser one that is stated.

    Raises:
        InputError: a stated precision outside (0, 1).
    """
    if stated is None:
        return machine_epsilon(x)
    value = real(stated, "precision")
    if not 0 < value < 1:
        raise InputError(
            f"precision is {value}; pass a machine epsilon, for instance torch.finfo(torch.bfloat16).eps"
        )
    return max(value, machine_epsilon(x))


def squared_singular_values(rows: np.ndarray | torch.Tensor, *, rank: int, floor: np.ndarray) -> np.ndarray:
    """Return the squared singular values of a matrix, descending.

    min(n, d) values σ². Covariance and weight spectra both use this function.

    Args:
        rows: (n, d) float64 numpy array, or float64 torch tensor on any device.
        rank: the rank the matrix can have by construction (n − 1 after centring); what lies beyond is
            exactly 0.
        floor: (min(n, d),) what rounding of the entries can put into them (`rounding_floor`); values that it explains
            are exactly 0.

    >>> squared_singular_values(np.diag([3.0, 4.0]), rank=2, floor=np.zeros(2)).round(6)
    array([16.,  9.])
    """
    # torch's LAPACK, not numpy's, so that torch's thread count applies here too.
    matrix = to_tensor(rows, name="rows")
    values = torch.linalg.eigvalsh(_smaller_gram(matrix).cpu()).numpy()
    return _settled(values, matrix, rank, floor)


def stacked_squares(stack: torch.Tensor, precision: Sequence[float]) -> np.ndarray:
    """Return the squared singular values of K matrices of one shape, descending, in one decomposition where they are.

    Each row is what `squared_singular_values` gives for the matrix alone, to rounding of its largest value. Eigenvalues
    and lengths of columns leave the device in one transfer; only a matrix whose condition needs it follows.

    Args:
        stack: (K, n, d) float64 on any device.
        precision: machine epsilon of the entries of each matrix, see `rounding_floor`.

    Returns:
        (K, min(n, d)).

    >>> stacked_squares(torch.tensor([[[3.0, 0], [0, 4]], [[0, 1], [1, 0]]]).double(), [1e-16, 1e-16]).round(6)
    array([[16.,  9.],
           [ 1.,  1.]])
    """
    rank = min(stack.shape[1:])
    found = torch.cat((_eigenvalues(_smaller_gram(stack)), lengths(stack)), dim=1).cpu().numpy()
    values, columns = found[:, :rank], np.sort(found[:, rank:], axis=1)[:, ::-1]
    least = np.array([least_length(max(stack.shape[1:]), own) for own in precision])[:, None]
    floors = np.hypot(columns, least) * np.array([rounding_margin(own) for own in precision])[:, None]
    each = zip(values, stack, floors, strict=True)
    return np.array([_settled(own, matrix, rank, floor) for own, matrix, floor in each])


def _eigenvalues(grams: torch.Tensor) -> torch.Tensor:
    """Return the eigenvalues (K, r) of symmetric matrices, ascending, where these are."""
    try:
        return torch.linalg.eigvalsh(grams)
    except torch.linalg.LinAlgError:  # pyright: ignore[reportPrivateImportUsage]
        # Solvers of accelerators give up on some matrices that LAPACK decomposes.
        return torch.linalg.eigvalsh(grams.cpu()).to(grams.device)


def _smaller_gram(matrix: torch.Tensor) -> torch.Tensor:
    """Return the smaller Gram matrix of matrices (…, n, d)."""
    n, d = matrix.shape[-2:]
    return matrix.mT @ matrix if d <= n else matrix @ matrix.mT


def _settled(ascending: np.ndarray, matrix: torch.Tensor, rank: int, floor: np.ndarray) -> np.ndarray:
    """Return squared singular values, descending: not of the Gram matrix where its condition forbids, without noise."""
    values = np.maximum(ascending[::-1], 0.0)
    if values[rank - 1] * GRAM_CONDITION_LIMIT <= values[0]:
        sigma = torch.linalg.svdvals(matrix.cpu()).numpy()
        sigma[sigma <= EPS * max(matrix.shape) * sigma[0]] = 0.0
        values = sigma**2
    values[rank:] = 0.0
    values[resolved(np.sqrt(values), floor) :] = 0.0
    return values


def to_rows(x: Numbers, name: str, ndim: int = 2) -> np.ndarray | torch.Tensor:
    """Convert x to a checked float64 matrix (n, d), or a stack of them.

    A numpy array on the host; a tensor on the accelerator where x is.
    """
    if isinstance(x, torch.Tensor):
        require_strided(x, name)
    if not isinstance(x, torch.Tensor) or x.device.type in ("cpu", "mps"):
        array = to_float64(x, name=name, ndim=ndim)
        require_entries(array.shape, name)
        return array
    if x.is_complex():
        raise InputError(f"{name} has dtype {x.dtype}; pass real numbers")
    if x.ndim != ndim:
        raise InputError(f"{name} has shape {tuple(x.shape)}; it must have {ndim} axes")
    require_entries(tuple(x.shape), name)
    data = x.detach().to(torch.float64)
    if not bool(torch.isfinite(data).all()):
        bad = int((~torch.isfinite(data)).sum())
        raise NotFiniteError(
            f"{name} has {bad} NaN or Inf among {data.numel()} entries; drop or repair these samples first"
        )
    return data


def require_entries(shape: tuple[int, ...], name: str) -> None:
    """Raise InputError for a matrix with no entries."""
    if 0 in shape:
        raise InputError(f"{name} is empty (shape {tuple(shape)}); pass at least two rows and one column")
