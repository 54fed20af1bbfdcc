"""Convert what functions under test return to float64 numbers, or say what came instead."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from spectra.spectrum import Spectrum
from spectra.testing.law import Violation
from spectra.testing.results import advice, described
from spectra.testing.text import short


def numbers(result: Any, ndim: int) -> np.ndarray:
    """Convert a result to a new float64 array with the given number of axes."""
    kind = getattr(result, "dtype", type(result))
    try:
        imaginary = isinstance(result, complex) or np.iscomplexobj(result) or "complex" in str(kind)
    except (TypeError, ValueError, RuntimeError):
        # Ragged, sparse or without numbers: refused below.
        imaginary = False
    if imaginary:
        # A cast would drop the imaginary part without a word.
        raise Violation(f"returned complex numbers ({kind}): {short(result)}; real ones are expected")
    try:
        # A copy: what a function writes into the same array at its next call must not change this result.
        values = np.array(_array(result), dtype=np.float64)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        how = advice(result)
        found = f"{described(result)}; {how}" if how else f"{short(result)} ({type(result).__name__})"
        # Not "from error": that would say that the function itself raised.
        raise Violation(f"returned {found}; numbers are expected") from None
    if values.ndim != ndim:
        how = advice(result) if ndim == 0 else ""
        raise Violation(
            f"returned an array of shape {values.shape}; {ndim} axes are expected"
            + (f"; {how}" if how else "")
        )
    if not np.isfinite(values).all():
        raise Violation(f"returned NaN or Inf for a valid input: {short(values)}")
    return values


def _array(result: Any) -> np.ndarray:
    """Return a result as an array.

    Raises:
        TypeError: what numpy would read as numbers, though it is none: nothing, a text, a time, a masked entry.
    """
    if isinstance(result, torch.Tensor):
        return result.detach().to("cpu", torch.float64).numpy()
    array = np.asarray(result)
    # Fractions and very long integers are objects to numpy.
    counted = array.dtype.kind in "fiub" or (
        array.dtype.kind == "O" and all(hasattr(entry, "__float__") for entry in array.flat)
    )
    if not counted or np.ma.getmaskarray(result).any():
        raise TypeError
    return array


def number(result: Any) -> float:
    """Convert a number, 0-d array, tensor or fitted Estimate to float."""
    if getattr(result, "status", None) == "not fitted":
        raise Violation(f"did not fit a valid input: {getattr(result, 'reason', '')}")
    return float(numbers(getattr(result, "value", result), ndim=0))


def energies(result: Any) -> np.ndarray:
    """Return eigenvalues in the order of the function.

    A Spectrum gives its energies.
    """
    return result.energies if isinstance(result, Spectrum) else numbers(result, ndim=1)


def squared_values(result: Any) -> np.ndarray:
    """Square singular values, keeping sign and order.

    A Spectrum gives its energies.
    """
    if isinstance(result, Spectrum):
        return result.energies
    sigma = numbers(result, ndim=1)
    return np.sign(sigma) * sigma**2


def four_ranks(result: Any) -> tuple[float, ...]:
    """Convert four numbers."""
    try:
        parts = tuple(result)
    except TypeError as error:
        raise Violation(f"returned {short(result)}; four numbers are expected") from error
    if len(parts) != 4:
        raise Violation(f"returned {len(parts)} values; four are expected")
    return tuple(number(part) for part in parts)


def two_arrays(result: Any) -> tuple[np.ndarray, np.ndarray]:
    """Convert a pair of matrices."""
    try:
        kept, dropped = result
    except (TypeError, ValueError) as error:
        raise Violation("did not return a pair (kept, dropped)") from error
    return numbers(kept, ndim=2), numbers(dropped, ndim=2)


def two_numbers(result: Any) -> tuple[float, float]:
    """Convert a pair of numbers."""
    try:
        low, high = result
    except (TypeError, ValueError) as error:
        raise Violation("did not return a pair (lower, upper)") from error
    return number(low), number(high)
