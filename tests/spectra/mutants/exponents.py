"""Exponents of power laws."""

from typing import Any

import numpy as np

from spectra.arrays import to_float64
from spectra.errors import InputError
from spectra.spectrum import as_spectrum

from .mutant import Mutant
from .parts import checked_window, log_log_slope

KIND = "exponent"


def zero_based_exponent(eigenvalues: Any, lo: int, hi: int) -> float:
    """Ranks counted from 0 in the fit, from 1 in the window."""
    values = checked_window(eigenvalues, lo, hi)
    return -log_log_slope(np.maximum(np.arange(lo - 1, hi), 0.5), values[lo - 1 : hi])


def exponent_without_minus(eigenvalues: Any, lo: int, hi: int) -> float:
    """The slope itself."""
    return log_log_slope(np.arange(lo, hi + 1), checked_window(eigenvalues, lo, hi)[lo - 1 : hi])


def exponent_of_singular_values(eigenvalues: Any, lo: int, hi: int) -> float:
    """Half of the exponent: fits σ."""
    return -0.5 * log_log_slope(np.arange(lo, hi + 1), checked_window(eigenvalues, lo, hi)[lo - 1 : hi])


def exponent_with_open_end(eigenvalues: Any, lo: int, hi: int) -> float:
    """Python's half-open range: rank hi is left out."""
    return -log_log_slope(np.arange(lo, hi), checked_window(eigenvalues, lo, hi)[lo - 1 : hi - 1])


def exponent_of_everything(eigenvalues: Any, lo: int, hi: int) -> float:
    """Checks the window and then fits every rank."""
    values = checked_window(eigenvalues, lo, hi)
    values = values[values > 0]
    return -log_log_slope(np.arange(1, len(values) + 1), values)


def exponent_with_floor(eigenvalues: Any, lo: int, hi: int) -> float:
    """ln(λ + 1e-6), so that zeros can be fitted."""
    values = as_spectrum(eigenvalues).values
    if not 1 <= lo < hi <= len(values):
        raise InputError(f"the window {lo}..{hi} does not fit in 1..{len(values)}")
    return -log_log_slope(np.arange(lo, hi + 1), values[lo - 1 : hi] + 1e-6)


def exponent_in_given_order(eigenvalues: Any, lo: int, hi: int) -> float:
    """Trusts the caller's order."""
    values = to_float64(eigenvalues, name="eigenvalues", ndim=1)
    checked_window(values, lo, hi)
    return -log_log_slope(np.arange(lo, hi + 1), values[lo - 1 : hi])


MUTANTS = (
    Mutant(zero_based_exponent, KIND, ("power law recovery",)),
    Mutant(exponent_without_minus, KIND, ("power law recovery", "both ends count")),
    Mutant(exponent_of_singular_values, KIND, ("power law recovery",)),
    Mutant(exponent_with_open_end, KIND, ("both ends count",)),
    Mutant(exponent_of_everything, KIND, ("window only",)),
    Mutant(exponent_with_floor, KIND, ("zero in window", "scale", "powers")),
    Mutant(exponent_in_given_order, KIND, ("permutation",)),
)
