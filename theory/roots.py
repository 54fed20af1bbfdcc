"""Find roots in a bracket, to rounding."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from scipy.optimize import brentq


def bracketed_root(f: Callable[[float], float], low: float, high: float) -> float:
    """Find x in [low, high] with f(x) = 0.

    Brent's method, with an error of at most 1e-13 of the larger end.

    Raises:
        ValueError: f has the same sign at both ends.

    >>> round(bracketed_root(lambda x: x * x - 2, 0.0, 2.0), 9)
    1.414213562
    """
    if math.copysign(1, f(low)) == math.copysign(1, f(high)) and f(low) and f(high):
        raise ValueError(f"no sign change between {low:.6g} and {high:.6g}; widen the bracket")
    # scipy's annotation includes the tuple of full_output=True, which is never asked for here.
    found: Any = brentq(f, low, high, xtol=1e-13 * max(abs(low), abs(high)))
    return float(found)
