"""Check what null laws are evaluated at."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from spectra.arrays import real, to_real
from spectra.errors import InputError


def points(x: ArrayLike, name: str) -> np.ndarray:
    """Return where a law is evaluated as an array; infinite is a place, NaN is none.

    Raises:
        InputError: NaN, or no real numbers.
    """
    array = to_real(x, name=name)
    if np.isnan(array).any():
        raise InputError(f"{name} has NaN; the law has no value there")
    return array


def levels(q: ArrayLike) -> np.ndarray:
    """Return levels of quantiles as an array.

    Raises:
        InputError: a level that is no number in [0, 1].
    """
    array = to_real(q, name="q")
    if not np.all((array >= 0) & (array <= 1)):
        raise InputError("quantile levels must lie in [0, 1]")
    return array


def number(value: Any, name: str) -> float:
    """Return a number that is compared with a null law; infinite is a number, NaN is none."""
    found = real(value, name)
    if np.isnan(found):
        raise InputError(f"{name} is NaN; it cannot be compared with its null")
    return found
