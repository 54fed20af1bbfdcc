"""Tail exponents."""

from typing import Any

import numpy as np

from spectra.spectrum import as_spectrum

from .mutant import Mutant

KIND = "tail exponent"


def _positive(eigenvalues: Any) -> np.ndarray:
    values = as_spectrum(eigenvalues).energies
    values = values[values > 0]
    if len(values) < 3:
        raise ValueError("fewer than three positive values")
    return values


def _fit(tail: np.ndarray) -> float:
    return 1 + len(tail) / float(np.log(tail / tail.min()).sum())


def fixed_threshold(eigenvalues: Any) -> float:
    """Fits the values above 1, whatever their unit."""
    values = _positive(eigenvalues)
    tail = values[values > 1.0]
    return _fit(tail if len(tail) > 2 else values)


def first_half(eigenvalues: Any) -> float:
    """Trusts the caller's order: the first half of the values is the tail."""
    _positive(eigenvalues)
    values = np.asarray(eigenvalues, dtype=np.float64)
    values = values[values > 0]
    return _fit(values[: len(values) // 2])


def half_with_zeros(eigenvalues: Any) -> float:
    """Counts the zeros when it takes half of the values."""
    values = _positive(eigenvalues)
    return _fit(values[: max(np.asarray(eigenvalues).size // 2, 3)])


def tail_index(eigenvalues: Any) -> float:
    """α − 1, the exponent of the distribution function."""
    return _fit(_positive(eigenvalues)) - 1


def decades(eigenvalues: Any) -> float:
    """Logarithms to base 10."""
    return 1 + (_fit(_positive(eigenvalues)) - 1) * float(np.log(10))


MUTANTS = (
    Mutant(fixed_threshold, KIND, ("scale",)),
    Mutant(first_half, KIND, ("permutation",)),
    Mutant(half_with_zeros, KIND, ("zero padding",)),
    Mutant(tail_index, KIND, ("above one", "powers", "Pareto quantiles")),
    Mutant(decades, KIND, ("Pareto quantiles",)),
)
