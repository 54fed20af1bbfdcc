"""Correct parts to plant defects in, for mutants of more than one family."""

from typing import Any

import numpy as np

from spectra.arrays import to_float64
from spectra.errors import InputError
from spectra.spectrum import as_spectrum


def checked_rows(x: Any) -> np.ndarray:
    data = to_float64(x, name="x", ndim=2)
    if data.shape[0] < 2 or data.shape[1] < 1:
        raise InputError(f"x has shape {data.shape}; two rows and a column are needed")
    return data


def centred_rows(x: Any) -> np.ndarray:
    data = checked_rows(x)
    centred = data - data.mean(axis=0)
    return centred - centred.mean(axis=0)


def descending_eigenvalues(matrix: np.ndarray) -> np.ndarray:
    return np.maximum(np.linalg.eigvalsh(matrix)[::-1], 0.0)


def shares_of(eigenvalues: Any) -> np.ndarray:
    return as_spectrum(eigenvalues).shares


def checked_window(eigenvalues: Any, lo: int, hi: int) -> np.ndarray:
    values = as_spectrum(eigenvalues).values
    if not 1 <= lo < hi <= len(values):
        raise InputError(f"the window {lo}..{hi} does not fit in 1..{len(values)}")
    if values[hi - 1] <= 0:
        raise InputError(f"the window {lo}..{hi} contains a zero energy")
    return values


def log_log_slope(ranks: np.ndarray, values: np.ndarray) -> float:
    return float(np.polyfit(np.log(ranks), np.log(values), 1)[0])
