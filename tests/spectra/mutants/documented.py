"""The four defects that the documentation walks through."""

import math
from typing import Any

import numpy as np

from spectra.spectrum import as_spectrum

from .mutant import Mutant
from .parts import checked_rows, checked_window, descending_eigenvalues, log_log_slope, shares_of


def rankme_with_epsilon(eigenvalues: Any) -> float:
    """1e-5 is added to every share before the logarithm, as published code does against ln 0."""
    p = shares_of(eigenvalues) + 1e-5
    return math.exp(-float(np.sum(p * np.log(p))))


def float32_uncentred_covariance(x: Any) -> np.ndarray:
    """E[xxᵀ] − E[x]E[x]ᵀ in float32: the digits of the variance cancel where the mean is large."""
    data = checked_rows(x).astype(np.float32)
    mean = data.mean(axis=0)
    matrix = (data.T @ data / len(data) - np.outer(mean, mean)) * (len(data) / (len(data) - 1))
    return np.linalg.eigvalsh(matrix)[::-1]


def clipped_window_exponent(eigenvalues: Any, lo: int, hi: int) -> float:
    """A window that reaches beyond the spectrum is cut at its end and fitted all the same."""
    values = as_spectrum(eigenvalues).values
    lo, hi = max(lo, 1), min(hi, len(values))
    lo = min(lo, hi - 1)
    checked_window(values, lo, hi)
    return -log_log_slope(np.arange(lo, hi + 1), values[lo - 1 : hi])


def covariance_centring_in_place(x: Any) -> np.ndarray:
    """The mean is subtracted from the caller's own array."""
    data = checked_rows(x)
    data -= data.mean(axis=0)
    return descending_eigenvalues(data.T @ data / (len(data) - 1))


DOCUMENTED = (
    Mutant(rankme_with_epsilon, "effective rank", ("zero padding", "bounds", "flat spectrum", "Kronecker")),
    Mutant(
        float32_uncentred_covariance, "covariance spectrum", ("translation", "known spectrum", "descending")
    ),
    Mutant(clipped_window_exponent, "exponent", ("window must fit",)),
    Mutant(covariance_centring_in_place, "covariance spectrum", ("input not mutated",)),
)
