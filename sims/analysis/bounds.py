"""Read how close numbers come to bounds that must hold for every one of them."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

# A number that is 0, and a bound that holds exactly, are reached up to rounding.
ROUNDING = 1e-9


def worst_ratio(numbers: ArrayLike, bounds: ArrayLike) -> tuple[float, int]:
    """Return the largest |number|/bound, and how many have no ratio since one of the two is not finite.

    A bound of 0 allows 0 alone, up to rounding: anything else is infinitely far above it.

    Args:
        numbers, bounds: (m,) in one unit; bounds at least 0.

    Returns:
        NaN as the ratio where none is known.

    >>> worst_ratio([0.1, -0.3], [0.2, 0.4])
    (0.75, 0)
    >>> worst_ratio([0.5, float("nan")], [0.0, 1.0])
    (inf, 1)
    """
    sizes, most = np.abs(np.asarray(numbers, float)), np.asarray(bounds, float)
    known = np.isfinite(sizes) & np.isfinite(most)
    sizes, most = sizes[known], most[known]
    beyond = np.where(sizes > ROUNDING, math.inf, 0.0)
    ratios = np.divide(sizes, most, out=beyond, where=most > 0)
    return (float(ratios.max()) if len(ratios) else math.nan), int((~known).sum())
