"""Fit the batch-size law D(B) = D_min·(1 + B/B_noise) to the tokens that runs needed.

Source: the hyperbola (S/S_min − 1)(E/E_min − 1) = 1 of McCandlish et al., arXiv 1812.06162, read for tokens at one
batch size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize, stats

from theory.values import Array

LEAST_SIZES = 3
# ln B_noise is searched this far beyond the smallest and the largest batch size; further out the curve is a constant
# or a straight line for every B_noise.
BEYOND = math.log(1e4)
GRID = 401


@dataclass(frozen=True, eq=False)
class BatchCurve:
    """Hold the fitted curves of one batch-size law.

    ln D(s, B) = μ_s + ln(1 + B/B_noise).

    Attributes:
        noise_scale: B_noise, in sequences.
        offsets: (s,) μ_s, one per seed.
        rss: residual sum of squares of ln D.
    """

    noise_scale: float
    offsets: Array
    rss: float

    @property
    def minimum(self) -> float:
        """Return D_min = exp(mean μ_s), in the units of the data."""
        return float(np.exp(self.offsets.mean()))

    def tokens(self, sizes: ArrayLike) -> Array:
        """Return D(B) of the mean seed, in the units of the data."""
        return self.minimum * (1 + np.asarray(sizes, float) / self.noise_scale)


def fit_batch_curve(sizes: ArrayLike, logs: ArrayLike) -> BatchCurve:
    """Fit the batch-size law by least squares on ln D.

    With B_noise given, the offsets are means, so that only ln B_noise is searched: on a grid, then by Brent's method
    around its best point.

    Args:
        sizes: (k,) batch sizes.
        logs: (s, k) ln D of each seed and batch size.

    Raises:
        ValueError: fewer than three different batch sizes, other shapes, or values that are not finite (sizes: and
            positive).

    Example:
        >>> sizes = np.array([32, 128, 512])
        >>> curve = fit_batch_curve(sizes, np.log([5 * (1 + sizes / 200)]))
        >>> round(curve.minimum, 3), round(curve.noise_scale, 1)
        (5.0, 200.0)
    """
    b, y = np.asarray(sizes, float), np.asarray(logs, float)
    if len(np.unique(b)) < LEAST_SIZES or y.ndim != 2 or y.shape[1:] != b.shape:
        raise ValueError(
            f"sizes have shape {b.shape} and logs {y.shape}; a fit needs ln D of shape (seeds, sizes) at {LEAST_SIZES} "
            "or more different batch sizes"
        )
    if not (np.isfinite(b).all() and np.isfinite(y).all() and b.min() > 0):
        raise ValueError("batch sizes must be positive and ln D finite; leave out runs that missed the loss")
    grid = _grid(b)
    i = int(np.argmin(_rss(grid, b, y)))
    around = (float(grid[max(i - 1, 0)]), float(grid[min(i + 1, GRID - 1)]))
    best = optimize.minimize_scalar(
        _rss, bounds=around, args=(b, y), method="bounded", options={"xatol": 1e-10}
    )
    scale = math.exp(best.x)
    return BatchCurve(scale, (y - np.log1p(b / scale)).mean(axis=1), float(best.fun))


def profile_interval(
    sizes: ArrayLike, logs: ArrayLike, curve: BatchCurve, level: float = 0.95
) -> tuple[float, float]:
    """Return the profile interval of B_noise; 0 or infinity on a side where nothing bounds it.

    It holds all b with RSS(b) ≤ RSS·(1 + F/ν), F the `level` quantile of F(1, ν), ν = s·k − s − 1 degrees of freedom.

    Args:
        sizes, logs: (k,) and (s, k), as in `fit_batch_curve`.
        curve: fitted to them.
        level: of the interval.
    """
    b, y = np.asarray(sizes, float), np.asarray(logs, float)
    freedom = y.size - len(y) - 1
    # Curves through the points have a residual of rounding only; their interval is the point itself.
    limit = curve.rss * (1 + float(stats.f.ppf(level, 1, freedom)) / freedom) + 1e-24
    grid, centre = _grid(b), math.log(curve.noise_scale)

    def beyond(u: float) -> float:
        return float(_rss(u, b, y)) - limit

    ends = []
    for side, open_end in ((grid[grid < centre][::-1], 0.0), (grid[grid > centre], math.inf)):
        outside = side[_rss(side, b, y) > limit]
        root: Any = optimize.brentq(beyond, centre, outside[0]) if outside.size else None
        ends.append(open_end if root is None else math.exp(root))
    return ends[0], ends[1]


def lack_of_fit(logs: ArrayLike, curve: BatchCurve) -> float:
    """Return the p-value of the F-test of the curve against a free mean per batch size; NaN with one seed.

    Args:
        logs: (s, k), as in `fit_batch_curve`.
        curve: fitted to them.
    """
    y = np.asarray(logs, float)
    seeds, sizes = y.shape
    if seeds < 2:
        return math.nan
    free = y - y.mean(axis=0) - y.mean(axis=1, keepdims=True) + y.mean()
    pure = float((free**2).sum())
    if pure <= 1e-24 * y.size:
        return math.nan
    freedom = (seeds - 1) * (sizes - 1)
    ratio = max(curve.rss - pure, 0.0) / (sizes - 2) / (pure / freedom)
    return float(stats.f.sf(ratio, sizes - 2, freedom))


def _grid(sizes: Array) -> Array:
    return np.linspace(math.log(sizes.min()) - BEYOND, math.log(sizes.max()) + BEYOND, GRID)


def _rss(log_b: Array | float, sizes: Array, logs: Array) -> Array:
    """Return residual sums of squares with the best offsets, in the shape of log_b."""
    curve = np.log1p(sizes * np.exp(-np.asarray(log_b))[..., None])
    rest = logs - curve[..., None, :]
    return ((rest - rest.mean(axis=-1, keepdims=True)) ** 2).sum(axis=(-2, -1))
