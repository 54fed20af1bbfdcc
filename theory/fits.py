"""Fits with intervals: tokens to a loss as a function of batch size."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize, stats

from theory.values import Array


@dataclass(frozen=True, eq=False)
class BatchFit:
    """D(B) = D_min(1 + B/B_noise) with intervals.

    Attributes:
        minimum, minimum_interval: D_min in the units of the data, and its interval.
        noise_scale, noise_interval: B_noise in sequences, and its interval.
        residuals: (n,) measured/fitted − 1.
    """

    minimum: float
    minimum_interval: tuple[float, float]
    noise_scale: float
    noise_interval: tuple[float, float]
    residuals: Array

    def tokens(self, batch: ArrayLike) -> Array:
        """D(B) in the units of the data."""
        return self.minimum * (1 + np.asarray(batch, float) / self.noise_scale)


def fit_batch_curve(batches: ArrayLike, tokens: ArrayLike, level: float = 0.95) -> BatchFit:
    """Least squares on ln D, so that every batch size counts by its relative error.

    Intervals are Student-t in the logarithm of each parameter with n − 2 degrees of freedom, from the residual
    variance and the Jacobian: wide, as they must be, for three points. Source: the critical-batch-size law of
    McCandlish et al. 2018 in tokens.

    Raises:
        ValueError: fewer than three batch sizes, or values that are not positive and finite.
    """
    b, d = np.asarray(batches, float), np.asarray(tokens, float)
    if b.shape != d.shape or len(np.unique(b)) < 3:
        raise ValueError("a fit with an interval needs tokens at three or more different batch sizes")
    if not (np.isfinite(b).all() and np.isfinite(d).all() and b.min() > 0 and d.min() > 0):
        raise ValueError(
            "batch sizes and tokens must be positive and finite; leave out runs that missed the loss"
        )

    def misfit(p: Array) -> Array:
        return np.log(d) - p[0] - np.log1p(b / np.exp(p[1]))

    found = optimize.least_squares(misfit, np.array([np.log(d.min()), np.log(b.max())]), x_scale="jac")
    freedom = len(b) - 2
    covariance = np.linalg.inv(found.jac.T @ found.jac) * float(found.fun @ found.fun) / freedom
    half = stats.t.ppf((1 + level) / 2, freedom) * np.sqrt(np.diag(covariance))
    low, high = np.exp(found.x - half), np.exp(found.x + half)
    return BatchFit(
        float(np.exp(found.x[0])),
        (float(low[0]), float(high[0])),
        float(np.exp(found.x[1])),
        (float(low[1]), float(high[1])),
        np.expm1(misfit(found.x)),
    )
