"""D(B) = D_min·(1 + B/B_noise): what a larger batch costs in tokens, fitted to the tokens that runs needed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import optimize, stats

from sims.analysis.resampling import LEVEL, seed_jackknife
from sims.system.errors import MeasureError

LEAST_SIZES = 3
# ln B_noise is sought this far beyond the smallest and the largest batch size; further out the curve is a constant
# or a straight line, whatever B_noise.
BEYOND = math.log(1e4)
GRID = 401


@dataclass(frozen=True, eq=False)
class Curve:
    """ln D(s, B) = μ_s + ln(1 + B/b) fitted by least squares.

    Attributes:
        b: B_noise, in sequences.
        offsets: (s,) μ_s.
        rss: residual sum of squares of ln D.
    """

    b: float
    offsets: np.ndarray
    rss: float


def noise_scale(table: pd.DataFrame) -> pd.DataFrame:
    """Fit D_min and B_noise of each stage, with intervals and a test of the form.

    The model is ln D = μ_s + ln(1 + B/B_noise) + ε with an offset a seed, ε independent with equal variance. B_noise
    has its profile interval (the values whose residual sum of squares passes an F-test against the best one), which
    shows where the data have no bound: at infinity when D does not rise with B, at 0 when it is proportional to B.
    D_min = exp(mean μ_s), corrected for bias and with its interval by leaving out one seed at a time. Batch sizes are
    compared at whatever learning rates the runs had; the curve means what it says if each was tuned.

    Args:
        table: columns stage, batch_size, seed, target, tokens (of `tokens_to`).

    Returns:
        One row a stage: stage, target, sizes, seeds (those with every batch size), d_min (tokens), d_min_low,
        d_min_high (NaN below three seeds), b_noise (sequences), b_noise_low, b_noise_high, r2 (of ln D about the seeds'
        means), p_form (lack-of-fit F-test of the two-parameter curve against a free mean for each batch size; small
        speaks against the form; NaN with one seed), status ("ok", "flagged") and reason.

    Raises:
        MeasureError: fewer than three batch sizes with a seed in common.

    Source: the hyperbola of McCandlish et al., arXiv 1812.06162, eq. 5.2, read for tokens at one batch size.
    """
    return pd.DataFrame([_fit_stage(str(stage), own) for stage, own in table.groupby("stage", sort=False)])


def _fit_stage(stage: str, own: pd.DataFrame) -> dict[str, object]:
    wide = own.pivot_table(index="seed", columns="batch_size", values="tokens").dropna()
    if wide.shape[1] < LEAST_SIZES or wide.empty:
        raise MeasureError(
            f"D(B) of stage {stage} needs ≥ {LEAST_SIZES} batch sizes that share a seed (two parameters fit any two); "
            f"there are {own['batch_size'].nunique()} sizes and {len(wide)} seeds with all of them: train more sizes"
        )
    sizes, logs = wide.columns.to_numpy(float), np.log(wide.to_numpy(float))
    curve = fit(sizes, logs)
    low, high = profile_interval(sizes, logs, curve)

    def log_minimum(kept) -> float:
        return float(fit(sizes, logs[list(kept)]).offsets.mean())

    minimum = seed_jackknife(range(len(logs)), log_minimum)
    total = float(((logs - logs.mean(axis=1, keepdims=True)) ** 2).sum())
    reason = ""
    if low == 0.0 or math.isinf(high):
        side = "above" if math.isinf(high) else "below"
        reason = f"the batch sizes {sizes[0]:.0f}…{sizes[-1]:.0f} do not bound B_noise from {side}"
    return {
        "stage": stage,
        "target": own["target"].iloc[0],
        "sizes": len(sizes),
        "seeds": len(logs),
        "d_min": float(np.exp(minimum.value)),
        "d_min_low": float(np.exp(minimum.low)),
        "d_min_high": float(np.exp(minimum.high)),
        "b_noise": curve.b,
        "b_noise_low": low,
        "b_noise_high": high,
        "r2": 1 - curve.rss / total if total > 0 else math.nan,
        "p_form": lack_of_fit(logs, curve),
        "status": "flagged" if reason else "ok",
        "reason": reason,
    }


def fit(sizes: np.ndarray, logs: np.ndarray) -> Curve:
    """Least squares of ln D (s, k) on k batch sizes.

    With b given the offsets are means, so that ln b alone is searched: a grid, then Brent's method around its best.
    """
    grid = _grid(sizes)
    i = int(np.argmin(_rss(grid, sizes, logs)))
    around = (float(grid[max(i - 1, 0)]), float(grid[min(i + 1, GRID - 1)]))
    best = optimize.minimize_scalar(
        _rss, bounds=around, args=(sizes, logs), method="bounded", options={"xatol": 1e-10}
    )
    b = math.exp(best.x)
    return Curve(b, (logs - np.log1p(sizes / b)).mean(axis=1), float(best.fun))


def profile_interval(sizes: np.ndarray, logs: np.ndarray, curve: Curve) -> tuple[float, float]:
    """95 % profile interval of B_noise; 0 or infinity on a side where nothing bounds it.

    All b with RSS(b) ≤ RSS·(1 + F/ν), F the 95 % quantile of F(1, ν), ν = s·k − s − 1 degrees of freedom.
    """
    freedom = logs.size - len(logs) - 1
    # Curves through the points have a residual of rounding only; their interval is the point itself.
    limit = curve.rss * (1 + float(stats.f.ppf(LEVEL, 1, freedom)) / freedom) + 1e-24
    grid, centre = _grid(sizes), math.log(curve.b)

    def beyond(u: float) -> float:
        return float(_rss(u, sizes, logs)) - limit

    ends = []
    for side, open_end in ((grid[grid < centre][::-1], 0.0), (grid[grid > centre], math.inf)):
        outside = side[_rss(side, sizes, logs) > limit]
        root: Any = optimize.brentq(beyond, centre, outside[0]) if outside.size else None
        ends.append(open_end if root is None else math.exp(root))
    return ends[0], ends[1]


def lack_of_fit(logs: np.ndarray, curve: Curve) -> float:
    """p-value of the F-test of the curve against a free mean for each batch size; NaN with one seed."""
    seeds, sizes = logs.shape
    if seeds < 2:
        return math.nan
    free = logs - logs.mean(axis=0) - logs.mean(axis=1, keepdims=True) + logs.mean()
    pure = float((free**2).sum())
    if pure <= 1e-24 * logs.size:
        return math.nan
    freedom = (seeds - 1) * (sizes - 1)
    ratio = max(curve.rss - pure, 0.0) / (sizes - 2) / (pure / freedom)
    return float(stats.f.sf(ratio, sizes - 2, freedom))


def _grid(sizes: np.ndarray) -> np.ndarray:
    return np.linspace(math.log(sizes.min()) - BEYOND, math.log(sizes.max()) + BEYOND, GRID)


def _rss(log_b: np.ndarray | float, sizes: np.ndarray, logs: np.ndarray) -> np.ndarray:
    """Residual sums of squares with the best offsets, of the shape of log_b."""
    curve = np.log1p(sizes * np.exp(-np.asarray(log_b))[..., None])
    rest = logs - curve[..., None, :]
    return ((rest - rest.mean(axis=-1, keepdims=True)) ** 2).sum(axis=(-2, -1))
