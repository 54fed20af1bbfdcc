"""Compute exponents from their definitions, in loops over ranks."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence


def ols_exponent(energies: Sequence[float], lo: int, hi: int) -> float:
    """Compute minus the least-squares slope of ln λ_j on ln j.

    Over lo ≤ j ≤ hi, 1-based.
    """
    return weighted_exponent(energies, lo, hi, [1.0] * (hi - lo + 1))


def weighted_exponent(energies: Sequence[float], lo: int, hi: int, weights: Sequence[float]) -> float:
    """Compute the weighted slope by the normal equations."""
    x = [math.log(j) for j in range(lo, hi + 1)]
    y = [math.log(energies[j - 1]) for j in range(lo, hi + 1)]
    total = math.fsum(weights)
    mean_x = math.fsum(w * u for w, u in zip(weights, x, strict=True)) / total
    mean_y = math.fsum(w * v for w, v in zip(weights, y, strict=True)) / total
    cross = math.fsum(w * (u - mean_x) * (v - mean_y) for w, u, v in zip(weights, x, y, strict=True))
    square = math.fsum(w * (u - mean_x) ** 2 for w, u in zip(weights, x, strict=True))
    return -cross / square


def theil_sen_exponent(energies: Sequence[float], lo: int, hi: int) -> float:
    """Compute minus the median slope over all pairs of ranks."""
    slopes = [
        math.log(energies[j - 1] / energies[i - 1]) / math.log(j / i)
        for i in range(lo, hi + 1)
        for j in range(i + 1, hi + 1)
    ]
    return -statistics.median(slopes)


def hill_exponent(energies: Sequence[float], k: int) -> float:
    """Compute the Hill exponent of the k largest values.

    1 + k / Σ_{i≤k} ln(λ_i/λ_{k+1}).
    """
    ordered = sorted(energies, reverse=True)
    return 1.0 + k / math.fsum(math.log(ordered[i] / ordered[k]) for i in range(k))


def clauset_exponent(values: Sequence[float]) -> tuple[float, float, float]:
    """Find the threshold with the smallest KS distance, and its exponent.

    Returns (β, x_min, KS distance).

    β = 1 + m/Σ ln(x_i/x_min) over the m values at or above x_min; the distance is the largest gap between the
    empirical distribution function, on both sides of its steps, and 1 − (x/x_min)^(1−β).
    """
    ordered = sorted(v for v in values if v > 0)
    best = (math.nan, math.nan, math.inf)
    for start, xmin in enumerate(ordered[:-2]):
        if start and ordered[start - 1] == xmin:
            continue
        tail = ordered[start:]
        logs = math.fsum(math.log(v / xmin) for v in tail)
        if logs == 0.0:
            continue
        beta = 1.0 + len(tail) / logs
        distance = 0.0
        for i, v in enumerate(tail):
            model = 1.0 - (v / xmin) ** (1.0 - beta)
            distance = max(distance, abs(model - i / len(tail)), abs((i + 1) / len(tail) - model))
        if distance < best[2]:
            best = (beta, xmin, distance)
    return best
