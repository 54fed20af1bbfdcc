"""Find the threshold above which values are closest to a power law, without comparing every pair of them."""

from __future__ import annotations

import math

import numpy as np

# Places at which a distance is looked at before it is computed in full, and entries that one comparison may hold.
LEVELS = (16, 128, 1024)
ENTRIES = 2**20


def best_threshold(data: np.ndarray, low: float = 0.0, high: float = math.inf) -> float | None:
    """Return the value above which a power law has the smallest KS distance, or None.

    Each value x is a candidate: its law has β − 1 = m/Σ ln(x_i/x) over the m values from x on, and the distance is the
    largest gap between its distribution function and both sides of the empirical steps. The gap at a few places bounds
    the distance from below, so that candidates worse than the best distance known are dropped: on 16, then 128, then
    1,024 places, and the few that are left in full, the most promising first. The result is that of all distances in
    full, at a cost of n log n for values that have a best threshold (all distances take n²).

    Args:
        data: (n,) ascending, positive.
        low, high: candidates outside are not considered.

    >>> values = np.sort(np.random.default_rng(0).pareto(1.5, 2000) + 1)
    >>> best_threshold(np.concatenate([np.linspace(0.1, 1, 500), values])) >= 1
    True
    """
    # Of equal values the first is the candidate; a distance needs at least two values above it.
    starts = np.flatnonzero(np.r_[True, np.diff(data) > 0])
    starts = starts[(starts <= len(data) - 3) & (data[starts] >= low) & (data[starts] <= high)]
    # Logarithms near 0 where the values are largest: their sums lose no digits.
    logs = -log_ratios(data[-1], data)
    sums = np.cumsum(logs[::-1])[::-1][starts] - (len(data) - starts) * logs[starts]
    starts, sums = starts[sums > 0], sums[sums > 0]
    if not len(starts):
        return None
    rates = (len(data) - starts) / sums
    bounds = np.zeros(len(starts))
    alive = np.arange(len(starts))
    best, winner = math.inf, -1
    for places in LEVELS:
        bounds[alive] = np.maximum(bounds[alive], _gaps(logs, starts[alive], rates[alive], places))
        leader = int(alive[np.argmin(bounds[alive])])
        best, winner = min(
            (best, winner), (_distance(logs, int(starts[leader]), float(rates[leader])), leader)
        )
        alive = alive[bounds[alive] <= best]
    for index in alive[np.argsort(bounds[alive], kind="stable")]:
        if bounds[index] > best:
            break
        best, winner = min(
            (best, winner), (_distance(logs, int(starts[index]), float(rates[index])), int(index))
        )
    return float(data[starts[winner]])


def log_ratios(values: np.ndarray | float, base: np.ndarray | float) -> np.ndarray:
    """Return ln(values/base) of positive numbers, also where the ratio leaves float64.

    >>> log_ratios(np.array([2.0, 1e300]), 1e-300).round(3)
    array([ 691.469, 1381.551])
    """
    with np.errstate(over="ignore"):
        ratios = np.asarray(values / base)
    return np.where(np.isfinite(ratios), np.log(ratios), np.log(values) - np.log(base))


def _distance(logs: np.ndarray, start: int, rate: float) -> float:
    """KS distance of the law from one candidate on, at every value."""
    m = len(logs) - start
    model = -np.expm1(-rate * (logs[start:] - logs[start]))
    position = np.arange(m)
    return float(np.maximum(model - position / m, (position + 1) / m - model).max())


def _gaps(logs: np.ndarray, starts: np.ndarray, rates: np.ndarray, places: int) -> np.ndarray:
    """Largest gap of each candidate's law at evenly spaced places of its tail: at most its KS distance."""
    found = np.empty(len(starts))
    for part in np.array_split(np.arange(len(starts)), max(len(starts) * places // ENTRIES, 1)):
        m = len(logs) - starts[part]
        position = (np.linspace(0, 1, places)[None, :] * (m - 1)[:, None]).astype(np.int64)
        y = logs[starts[part][:, None] + position] - logs[starts[part]][:, None]
        model = -np.expm1(-rates[part][:, None] * y)
        gaps = np.maximum(model - position / m[:, None], (position + 1) / m[:, None] - model)
        found[part] = gaps.max(axis=1)
    return found
