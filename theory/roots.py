"""Find roots in a bracket, to rounding."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from scipy.optimize import brentq


def bracketed_root(f: Callable[[float], float], low: float, high: float) -> float:
    """Find x in [low, high] with f(x) = 0.

    Brent's method, absolute error 1e-13.

    Raises:
        ValueError: f has the same sign at both ends.

    >>> round(bracketed_root(lambda x: x * x - 2, 0.0, 2.0), 9)
    1.414213562
    """
    if f(low) * f(high) > 0:
        raise ValueError(f"no sign change between {low:.6g} and {high:.6g}; widen the bracket")
    # scipy's annotation includes the tuple of full_output=True, which is never asked for here.
    found: Any = brentq(f, low, high, xtol=1e-13)
    return float(found)
