"""Divergences of two spectra."""

import math
from typing import Any

import numpy as np

from spectra.arrays import to_float64
from spectra.errors import InputError
from spectra.spectrum import as_spectrum

from .mutant import Mutant

KIND = "divergence"


def _js(p: np.ndarray, q: np.ndarray) -> float:
    m = (p + q) / 2
    total = 0.0
    for side in (p, q):
        inside = side > 0
        total += 0.5 * float(np.sum(side[inside] * np.log(side[inside] / m[inside])))
    return max(total, 0.0)


def _pair(p: Any, q: Any) -> tuple[np.ndarray, np.ndarray]:
    a, b = as_spectrum(p), as_spectrum(q)
    if len(a) != len(b):
        raise InputError(f"lengths {len(a)} and {len(b)} differ")
    return a.values, b.values


def js_in_bits(p: Any, q: Any) -> float:
    """log₂ instead of ln."""
    a, b = _pair(p, q)
    return _js(a / a.sum(), b / b.sum()) / math.log(2)


def kullback_leibler(p: Any, q: Any) -> float:
    """KL(p‖m), one half of JS, which is not symmetric."""
    a, b = _pair(p, q)
    a, b = a / a.sum(), b / b.sum()
    inside = a > 0
    return float(np.sum(a[inside] * np.log(2 * a[inside] / (a + b)[inside])))


def js_without_normalising(p: Any, q: Any) -> float:
    """The spectra enter as they are."""
    return _js(*_pair(p, q))


def js_root(p: Any, q: Any) -> float:
    """The square root, which scipy's function of that name returns."""
    a, b = _pair(p, q)
    return math.sqrt(_js(a / a.sum(), b / b.sum()))


def js_of_common_length(p: Any, q: Any) -> float:
    """The longer spectrum is cut."""
    a, b = as_spectrum(p).values, as_spectrum(q).values
    size = min(len(a), len(b))
    a, b = a[:size], b[:size]
    return _js(a / a.sum(), b / b.sum())


def fourth_power_distance(p: Any, q: Any) -> float:
    """‖p − q‖₁⁴/24: symmetric and bounded, but its root grows as a square and breaks the triangle."""
    a, b = _pair(p, q)
    return float(np.abs(a / a.sum() - b / b.sum()).sum()) ** 4 / 24


def js_with_floor(p: Any, q: Any) -> float:
    """1e-3 is added to every share against ln 0."""
    a, b = _pair(p, q)
    a, b = a / a.sum() + 1e-3, b / b.sum() + 1e-3
    return _js(a / a.sum(), b / b.sum())


def js_with_offset(p: Any, q: Any) -> float:
    """Two equal spectra are not at distance 0."""
    return js_in_bits(p, q) * math.log(2) * 0.9 + 1e-3


def js_of_cumulative_shares(p: Any, q: Any) -> float:
    """Compares running sums in the order given: places are no longer interchangeable."""
    _pair(p, q)
    a, b = (np.cumsum(to_float64(v, name="spectrum", ndim=1)) for v in (p, q))
    return _js(a / a.sum(), b / b.sum())


MUTANTS = (
    Mutant(js_in_bits, KIND, ("range", "nested flat spectra")),
    Mutant(kullback_leibler, KIND, ("symmetry",)),
    Mutant(js_without_normalising, KIND, ("scale", "range")),
    Mutant(js_root, KIND, ("range", "nested flat spectra")),
    Mutant(js_of_common_length, KIND, ("equal length",)),
    Mutant(fourth_power_distance, KIND, ("triangle",)),
    Mutant(js_with_floor, KIND, ("zero padding",)),
    Mutant(js_of_cumulative_shares, KIND, ("permutation",)),
    Mutant(js_with_offset, KIND, ("zero at equality",)),
)
