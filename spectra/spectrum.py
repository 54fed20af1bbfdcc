"""Define the spectrum, the value that every estimator takes or returns.

A spectrum is either the eigenvalues λ of a covariance or the singular values σ of a matrix. Every
summary uses *energies* λ (λ = σ² for singular values), so that exponents of activations, gradients
and weights can be compared; an exponent on σ is half the exponent on λ.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from spectra.arrays import brief, require_squares, to_float64, unit, whole
from spectra.errors import InputError

Kind = Literal["eigenvalue", "singular"]

# LAPACK returns eigenvalues of a positive semi-definite matrix as small as -eps·λ_1·size; a value below this share
# of λ_1 is a defect of the estimator that produced it, not rounding.
NEGATIVE_TOLERANCE = 1e-9


@dataclass(frozen=True, eq=False)
class Spectrum:
    """Hold descending eigenvalues or singular values with n, d and centring.

    Args:
        values: (r,) eigenvalues λ or singular values σ, in any order; stored descending and read-only.
            Rounding-level negative eigenvalues (above ``-1e-9·max``) are set to 0.
        kind: ``"eigenvalue"`` or ``"singular"``.
        n: number of samples (rows) that the spectrum was computed from, if known.
        d: ambient dimension (columns), if known.
        centred: whether the mean was removed before the second moment was taken, if known.

    ``np.asarray(spectrum)`` gives the values.

    Raises:
        InputError: empty, not 1-D, NaN or Inf, negative, all zero, unknown kind, or n or d below 1 or not whole.

    >>> Spectrum([1.0, 4.0, 2.0], n=10, d=3)
    Spectrum(eigenvalue, [4, 2, 1, …] of 3, n=10, d=3, centred=None)
    >>> np.asarray(Spectrum([1.0, 4.0]))
    array([4., 1.])
    """

    values: np.ndarray
    kind: Kind = "eigenvalue"
    n: int | None = None
    d: int | None = None
    centred: bool | None = None

    def __post_init__(self) -> None:
        values = to_float64(self.values, name="spectrum values", ndim=1)
        if self.kind not in ("eigenvalue", "singular"):
            raise InputError(f"kind is {self.kind!r}; it must be 'eigenvalue' or 'singular'")
        for name in ("n", "d"):
            size = getattr(self, name)
            if size is not None:
                object.__setattr__(self, name, whole(size, name, least=1))
        if self.centred is not None and not isinstance(self.centred, bool | np.bool_):
            raise InputError(f"centred is {brief(self.centred)}; it must be True, False or None")
        if values.size == 0:
            raise InputError("the spectrum is empty; it needs at least one value")
        top = float(np.max(np.abs(values)))
        if top == 0.0:
            raise InputError("the spectrum is all zeros; the matrix it came from has no variation to measure")
        lowest = float(values.min())
        if lowest < 0 and (self.kind == "singular" or lowest < -NEGATIVE_TOLERANCE * top):
            raise InputError(
                f"the spectrum has a negative value ({lowest:.3g}, largest {top:.3g}); energies are never negative, "
                "so compute the covariance centred and in float64"
            )
        values = np.sort(np.maximum(values, 0.0))[::-1].copy()
        values.setflags(write=False)
        object.__setattr__(self, "values", values)

    @property
    def energies(self) -> np.ndarray:
        """Return the (r,) energies λ, descending.

        The values themselves, or their squares for singular values.

        Raises:
            InputError: singular values whose squares float64 cannot hold.
        """
        if self.kind == "eigenvalue":
            return self.values
        require_squares(float(self.values[0]), "the largest singular value")
        return self.values**2

    @property
    def singular_values(self) -> np.ndarray:
        """Return the (r,) singular values σ, descending.

        The values themselves, or square roots of the energies.
        """
        return self.values if self.kind == "singular" else np.sqrt(self.values)

    @property
    def shares(self) -> np.ndarray:
        """Return the (r,) energies divided by their sum."""
        # Dividing by the largest value first keeps squares and sums from over- or underflowing.
        scaled = self.values / self.values[0]
        energies = scaled if self.kind == "eigenvalue" else scaled**2
        return energies / energies.sum()

    @property
    def trace(self) -> float:
        """Return Σλ, in squared units of the data.

        Raises:
            InputError: a sum that float64 cannot hold.
        """
        energies = self.energies
        # Sums overflow only where the largest value is within their number of the limit.
        size = unit(float(energies[0]))
        total = float((energies / size).sum()) * size
        if total == np.inf:
            raise InputError(
                f"the trace of energies up to {energies[0]:.3g} exceeds float64; divide them first"
            )
        return total

    @property
    def aspect(self) -> float | None:
        """Return n/d, or None where either is unknown."""
        return None if self.n is None or self.d is None else self.n / self.d

    @property
    def max_rank(self) -> int:
        """Return the largest rank that n, d and centring allow."""
        bounds = [len(self.values)]
        if self.d is not None:
            bounds.append(self.d)
        if self.n is not None:
            bounds.append(max(self.n - 1, 1) if self.centred else self.n)
        return min(bounds)

    def __len__(self) -> int:
        return len(self.values)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.values, dtype=dtype, copy=copy)

    def __repr__(self) -> str:
        head = ", ".join(f"{v:.4g}" for v in self.values[:3])
        return f"Spectrum({self.kind}, [{head}, …] of {len(self)}, n={self.n}, d={self.d}, centred={self.centred})"


def as_spectrum(x: Spectrum | ArrayLike) -> Spectrum:
    """Return a Spectrum; an array is read as eigenvalues.

    >>> as_spectrum([1.0, 3.0]).shares
    array([0.75, 0.25])
    """
    return x if isinstance(x, Spectrum) else Spectrum(np.asarray(to_float64(x, name="spectrum", ndim=1)))
