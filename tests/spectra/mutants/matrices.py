"""Spectra of matrices: covariances, second moments and singular values."""

from typing import Any

import numpy as np

from spectra.arrays import to_float64
from spectra.errors import InputError

from .mutant import Mutant
from .parts import centred_rows, checked_rows, descending_eigenvalues

KIND = "covariance spectrum"


def second_moment_for_covariance(x: Any) -> np.ndarray:
    """Σxxᵀ/n: the mean is never subtracted."""
    data = checked_rows(x)
    return descending_eigenvalues(data.T @ data / len(data))


def covariance_over_n(x: Any) -> np.ndarray:
    """Divides by n where the kind says n − 1."""
    data = centred_rows(x)
    return descending_eigenvalues(data.T @ data / len(data))


def singular_values_for_eigenvalues(x: Any) -> np.ndarray:
    """σ instead of λ."""
    data = centred_rows(x)
    return np.sqrt(descending_eigenvalues(data.T @ data / (len(data) - 1)))


def ascending_covariance(x: Any) -> np.ndarray:
    """eigvalsh order, smallest first."""
    data = centred_rows(x)
    return np.linalg.eigvalsh(data.T @ data / (len(data) - 1))


def float16_covariance(x: Any) -> np.ndarray:
    """The centred data are cast to half precision."""
    data = centred_rows(x).astype(np.float16).astype(np.float64)
    return descending_eigenvalues(np.nan_to_num(data).T @ np.nan_to_num(data) / (len(data) - 1))


def nan_to_zero_covariance(x: Any) -> np.ndarray:
    """NaN and Inf become ordinary numbers without a word."""
    return ascending_covariance(np.nan_to_num(np.asarray(x, dtype=np.float64), posinf=0.0, neginf=0.0))[::-1]


def covariance_without_smallest(x: Any) -> np.ndarray:
    """The smallest eigenvalue is dropped as if it were always rounding."""
    values = ascending_covariance(x)[::-1]
    return values[: max(len(values) - 1, 1)]


def covariance_centred_along_rows(x: Any) -> np.ndarray:
    """Subtracts each sample's mean over its coordinates instead of the mean sample."""
    data = checked_rows(x)
    data = data - data.mean(axis=1, keepdims=True)
    return descending_eigenvalues(data.T @ data / (len(data) - 1))


def correlation_for_covariance(x: Any) -> np.ndarray:
    """Columns are standardised: eigenvalues of the correlation matrix."""
    data = centred_rows(x)
    scale = data.std(axis=0, ddof=1)
    data = data / np.where(scale > 0, scale, 1.0)
    return descending_eigenvalues(data.T @ data / (len(data) - 1))


def one_row_as_zero(x: Any) -> np.ndarray:
    """A single sample gives a spectrum of zeros."""
    data = to_float64(x, name="x", ndim=2)
    if data.size == 0:
        raise InputError("x is empty")
    return np.zeros(data.shape[1]) if len(data) == 1 else ascending_covariance(data)[::-1]


def empty_as_empty(x: Any) -> np.ndarray:
    """No data give an empty spectrum."""
    data = to_float64(x, name="x", ndim=2)
    return np.zeros(0) if data.size == 0 else ascending_covariance(data)[::-1]


def ridge_covariance(x: Any) -> np.ndarray:
    """A ridge of 1e-3 is left on the diagonal."""
    return ascending_covariance(x)[::-1] + 1e-3


def memory_order_covariance(x: Any) -> np.ndarray:
    """Reads the buffer of the array as if it were always stored row by row."""
    raw = np.asarray(x, dtype=np.float64)
    data = np.frombuffer(raw.tobytes(order="A")).reshape(raw.shape)
    return ascending_covariance(data)[::-1]


def consecutive_difference_covariance(x: Any) -> np.ndarray:
    """Variance from differences of neighbouring samples: right on average, but the order of rows matters."""
    steps = np.diff(checked_rows(x), axis=0)
    return descending_eigenvalues(steps.T @ steps / (2 * len(steps)))


def column_variances(x: Any) -> np.ndarray:
    """Sorted variances of the columns: right only where the columns are uncorrelated."""
    return np.sort(centred_rows(x).var(axis=0, ddof=1))[::-1]


def numpy_only_covariance(x: Any) -> np.ndarray:
    """Assumes numpy methods that tensors do not have."""
    return ascending_covariance(x.astype(np.float64))[::-1]


def uncentred_singular_values_squared(w: Any) -> np.ndarray:
    """Energies λ = σ² where singular values are due."""
    data = to_float64(w, name="W", ndim=2)
    if data.size == 0:
        raise InputError("W is empty")
    return np.linalg.svd(data, compute_uv=False) ** 2


def centred_second_moment(x: Any) -> np.ndarray:
    """Subtracts the mean where an uncentred second moment is due."""
    data = centred_rows(x)
    return descending_eigenvalues(data.T @ data / len(data))


MUTANTS = (
    Mutant(second_moment_for_covariance, KIND, ("translation", "normalisation", "Weyl", "Mirsky")),
    Mutant(covariance_over_n, KIND, ("normalisation", "known spectrum")),
    Mutant(singular_values_for_eigenvalues, KIND, ("scale", "BBP position")),
    Mutant(ascending_covariance, KIND, ("descending",)),
    Mutant(float16_covariance, KIND, ("known spectrum", "Cauchy interlacing")),
    Mutant(nan_to_zero_covariance, KIND, ("NaN and Inf",)),
    Mutant(covariance_without_smallest, KIND, ("normalisation", "zero padding")),
    Mutant(covariance_centred_along_rows, KIND, ("translation", "orthogonal")),
    Mutant(correlation_for_covariance, KIND, ("scale", "orthogonal")),
    Mutant(one_row_as_zero, KIND, ("one row",)),
    Mutant(empty_as_empty, KIND, ("empty",)),
    Mutant(ridge_covariance, KIND, ("zero padding", "scale", "Gram duality", "Kronecker")),
    Mutant(memory_order_covariance, KIND, ("layout",)),
    Mutant(consecutive_difference_covariance, KIND, ("permutation",)),
    Mutant(column_variances, KIND, ("orthogonal", "Marchenko–Pastur edge")),
    Mutant(numpy_only_covariance, KIND, ("device",), torch=True),
    Mutant(uncentred_singular_values_squared, "singular values", ("scale", "Weyl")),
    Mutant(centred_second_moment, "second moment spectrum", ("normalisation", "known spectrum")),
)
