"""Fit continuous piecewise-linear curves, and test each change of slope.

The number of changes grows one at a time for as long as the curve so far is rejected, against the best curve with one
change more or against the best one with as many as are allowed (two changes can hide each other from the first test).
The test is a parametric bootstrap: curves are drawn from the fit so far, with Gaussian noise that is correlated from
one point to the next as the residuals are (first order), and the best changes are searched in each. The probability of
any change where there is none is then at most about the stated level for correlations up to 0.6, and above it for
stronger ones. It assumes noise of one variance, with correlation that dies within a few points, and kinks rather than
jumps. Everything is least squares over all placements of the changes on the candidate points: with continuity the
segments depend on each other, so that a recursion over segments would not find the best placement.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations, pairwise

import numpy as np
from scipy.linalg import null_space

from sims.system.errors import MeasureError
from spectra.arrays import largest, unit

LEAST_POINTS = 8
# Points between two changes, and between a change and an end.
APART = 2
CANDIDATES = 24
DRAWS = 299
# Stronger correlation than this cannot be told from a change in so few points: what an unfitted change leaves is
# smooth too, and a higher limit would let one change hide another.
STRONGEST = 0.6


@dataclass(frozen=True, eq=False)
class Segmentation:
    """Hold a fitted curve.

    Attributes:
        changes: x of the changes of slope, rising.
        p: for each, the bootstrap p-value of the curve without it against the best one with one change put back
            anywhere.
        slopes: of the segments, one more than there are changes.
        fitted: (n,) the curve at the points.
        correlation: first-order correlation of the residuals that the tests assumed.
        next_p: p-value of the change that was not accepted; NaN where no more was allowed.
        bic_changes: how many changes the Bayesian information criterion would take, for comparison (it takes the noise
            for independent).
    """

    changes: tuple[float, ...]
    p: tuple[float, ...]
    slopes: tuple[float, ...]
    fitted: np.ndarray
    correlation: float
    next_p: float
    bic_changes: int


def segment(
    x: np.ndarray,
    y: np.ndarray,
    *,
    max_changes: int = 3,
    level: float = 0.05,
    draws: int = DRAWS,
    seed: int = 0,
) -> Segmentation:
    """Fit a continuous piecewise-linear curve with as many changes of slope as are significant.

    Args:
        x: (n,) strictly rising, n ≥ 8.
        y: (n,) finite.
        max_changes: at most so many, as far as the points carry them.
        level: of the test of each change more.
        draws: bootstrap curves a test; the smallest p-value is 1/(draws + 1).
        seed: of the bootstrap.

    Raises:
        MeasureError: too few points, x not rising, or a value that is not finite.
    """
    x, y = np.asarray(x, float), np.asarray(y, float)
    if len(x) < LEAST_POINTS or x.shape != y.shape:
        raise MeasureError(
            f"a segmentation needs ≥ {LEAST_POINTS} points (there are {len(x)} with {len(y)} values); measure oftener"
        )
    if not (np.diff(x) > 0).all() or not np.isfinite(y).all():
        raise MeasureError(
            "a segmentation needs rising x and finite y; sort by tokens and leave out what is missing"
        )
    # Division by a power of two is exact, and keeps squares within float64.
    size = unit(largest(y))
    y = y / size
    generator = np.random.default_rng(seed)
    key = tuple(x)
    knots: tuple[int, ...] = ()
    next_p = math.nan
    most = max(count for count in range(max_changes + 1) if _placements(key, count) or not count)
    for count in range(1, most + 1):
        rivals = [_placements(key, k) for k in sorted({count, most})]
        # The smaller of two p-values, so each counts double.
        next_p = min(1.0, len(rivals) * min(_p_value(key, knots, r, y, generator, draws) for r in rivals))
        if next_p > level:
            break
        knots = _best(key, _placements(key, count), y)
        next_p = math.nan
    p = []
    for i in range(len(knots)):
        rest = knots[:i] + knots[i + 1 :]
        again = tuple(sorted({*rest, k}) for k in _candidates(len(x)) if k not in rest)
        spaced = tuple(tuple(c) for c in again if _spaced(c, len(x)))
        p.append(_p_value(key, rest, spaced, y, generator, draws))
    basis = _basis(x, knots)
    weights = np.linalg.lstsq(basis, y, rcond=None)[0]
    fitted = basis @ weights
    return Segmentation(
        tuple(float(x[k]) for k in knots),
        tuple(p),
        tuple(float(s) for s in np.cumsum(weights[1:]) * size),
        fitted * size,
        residual_correlation(y - fitted, basis.shape[1]),
        next_p,
        _bic_changes(key, y, max_changes),
    )


def hinges(x: np.ndarray, changes: Sequence[float]) -> np.ndarray:
    """Return the basis of curves with these changes of slope: 1, x − x_1, and max(0, x − c) per change c."""
    bent = [np.maximum(0.0, x - change) for change in changes]
    return np.stack([np.ones_like(x), x - x[0], *bent], axis=1)


def _basis(x: np.ndarray, knots: tuple[int, ...]) -> np.ndarray:
    return hinges(x, [float(x[k]) for k in knots])


def level_p(
    x: np.ndarray,
    y: np.ndarray,
    count: int,
    part: int,
    covers: tuple[int, int],
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> float:
    """Return the bootstrap p-value of one segment without slope.

    The best curve with so many changes is compared with the best one of which this segment is level and covers some
    points, each with its changes where they are best: an interval of the slope with the changes taken as known would be
    too narrow. Curves are drawn from the level fit with noise of the correlation and variance of what it leaves.

    Args:
        x, y: as of `segment`.
        count: number of changes.
        part: which of the count + 1 segments, from 0.
        covers: first and last point that the level segment reaches over, so that no other segment takes its place.
        draws: bootstrap curves; the smallest p-value is 1/(draws + 1).
        seed: of the bootstrap.
    """
    key, n = tuple(map(float, x)), len(x)
    placements = _placements(key, count) if count else ((),)
    held = tuple(k for k in placements if _covers((0, *k, n - 1), part, covers))
    bases = _level_projections(key, held, part)

    def left(curves: np.ndarray) -> np.ndarray:
        return np.maximum((curves**2).sum(axis=0) - _explained(bases, curves), 0.0)

    y = np.asarray(y, float) / unit(largest(y))
    centred = _centred(y)[:, None]
    best = int(np.argmin(_residuals(key, placements, centred)))
    free = _projections(key, placements)[best]
    basis = bases[int(np.argmin(left(centred)))]
    fitted = basis @ (basis.T @ centred)
    rest, used = centred - fitted, basis.shape[1] + count
    rounding = _rounding(y)
    if float((rest**2).sum()) <= rounding:
        return 1.0
    # What is left is rounding: the curve is already exact, and so is the slope.
    if float(((centred - free @ (free.T @ centred)) ** 2).sum()) <= rounding:
        return 1 / (1 + draws)
    noise = _noise(n, residual_correlation(rest[:, 0], used), draws, np.random.default_rng([seed, part]))
    power = ((noise - basis @ (basis.T @ noise)) ** 2).sum(axis=0).mean() * (n - used) / (n - basis.shape[1])
    curves = np.column_stack([centred, fitted + np.sqrt((rest**2).sum() / power) * noise])
    curves -= curves.mean(axis=0)
    simple = left(curves).min(axis=0)
    gain = simple / np.maximum(_residuals(key, placements, curves).min(axis=0), 1e-12 * simple)
    return float((1 + (gain[1:] >= gain[0] * (1 - 1e-12)).sum()) / (1 + draws))


def _candidates(n: int) -> tuple[int, ...]:
    inner = np.arange(APART, n - APART)
    if len(inner) <= CANDIDATES:
        return tuple(int(k) for k in inner)
    return tuple(sorted({int(k) for k in np.rint(np.linspace(inner[0], inner[-1], CANDIDATES))}))


def _spaced(knots: list[int] | tuple[int, ...], n: int) -> bool:
    return all(b - a >= APART for a, b in pairwise(knots)) and len(knots) + 2 < n


@lru_cache(maxsize=64)
def _placements(x: tuple[float, ...], count: int) -> tuple[tuple[int, ...], ...]:
    # A curve needs more points than parameters to leave anything of the noise.
    if len(x) < 4 * count + 4:
        return ()
    return tuple(c for c in combinations(_candidates(len(x)), count) if _spaced(c, len(x)))


@lru_cache(maxsize=64)
def _projections(x: tuple[float, ...], placements: tuple[tuple[int, ...], ...]) -> np.ndarray:
    """Return orthonormal bases, (placements, n, parameters)."""
    points = np.array(x)
    return np.linalg.qr(np.stack([_basis(points, knots) for knots in placements]))[0]


def _residuals(x: tuple[float, ...], placements: tuple[tuple[int, ...], ...], y: np.ndarray) -> np.ndarray:
    """Return residual sums of squares of y (n, curves), (placements, curves)."""
    return np.maximum((y**2).sum(axis=0) - _explained(_projections(x, placements), y), 0.0)


@lru_cache(maxsize=16)
def _level_projections(
    x: tuple[float, ...], placements: tuple[tuple[int, ...], ...], part: int
) -> np.ndarray:
    """Return orthonormal bases of curves of which one segment has no slope, (placements, n, parameters − 1)."""
    points = np.array(x)
    stacked = np.stack([_basis(points, knots) for knots in placements])
    # The slope of a segment is the sum of the coefficients of x and of the hinges before it.
    slope = np.zeros((1, stacked.shape[2]))
    slope[0, 1 : part + 2] = 1.0
    return np.linalg.qr(stacked @ null_space(slope))[0]


def _covers(edges: tuple[int, ...], part: int, points: tuple[int, int]) -> bool:
    return edges[part] <= points[0] and points[1] <= edges[part + 1]


def _explained(bases: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return sums of squares of y (n, curves) within orthonormal bases (k, n, p), (k, curves)."""
    return (np.einsum("knp,nc->kpc", bases, y, optimize=True) ** 2).sum(axis=1)


def _best(x: tuple[float, ...], placements: tuple[tuple[int, ...], ...], y: np.ndarray) -> tuple[int, ...]:
    return placements[int(np.argmin(_residuals(x, placements, _centred(y)[:, None])[:, 0]))]


def _p_value(
    x: tuple[float, ...],
    knots: tuple[int, ...],
    placements: tuple[tuple[int, ...], ...],
    y: np.ndarray,
    generator: np.random.Generator,
    draws: int,
) -> float:
    """Return the bootstrap p-value of the best placement against these knots."""
    basis = np.linalg.qr(_basis(np.array(x), knots))[0]
    fitted = basis @ (basis.T @ y)
    rest = y - fitted
    # What is left is rounding: the curve is already exact.
    if float((rest**2).sum()) <= _rounding(y):
        return 1.0
    noise = _noise(len(y), residual_correlation(rest, basis.shape[1]), draws, generator)
    # The statistic knows neither the curve without the change nor the scale of the noise, so that both stay out.
    curves = np.column_stack([rest, noise - basis @ (basis.T @ noise)])
    simple = (curves**2).sum(axis=0)
    full = _residuals(x, placements, curves).min(axis=0)
    gain = simple / np.maximum(full, 1e-12 * simple)
    return float((1 + (gain[1:] >= gain[0] * (1 - 1e-12)).sum()) / (1 + draws))


def _noise(n: int, correlation: float, draws: int, generator: np.random.Generator) -> np.ndarray:
    """Draw stationary first-order Gaussian noise of unit variance, (n, draws)."""
    steps = generator.standard_normal((n, draws))
    noise = np.empty_like(steps)
    noise[0] = steps[0]
    for i in range(1, n):
        noise[i] = correlation * noise[i - 1] + math.sqrt(1 - correlation**2) * steps[i]
    return noise


def residual_correlation(rest: np.ndarray, parameters: int) -> float:
    """First-order correlation of residuals, in [0, 0.6].

    Fitting a line to independent noise leaves a correlation of about −parameters/n; that much is added back.
    """
    power = float((rest**2).sum())
    if power <= 0:
        return 0.0
    raw = float((rest[1:] * rest[:-1]).sum()) / power
    return float(np.clip(raw + parameters / len(rest), 0.0, STRONGEST))


def _bic_changes(x: tuple[float, ...], y: np.ndarray, max_changes: int) -> int:
    n, scores = len(y), []
    centred = _centred(y)[:, None]
    tiny = _rounding(y)
    for count in range(max_changes + 1):
        placements = _placements(x, count) if count else ((),)
        if not placements:
            break
        rss = float(_residuals(x, placements, centred).min())
        # A change has a place and a slope; the curve has two parameters and the noise one.
        scores.append(n * math.log(max(rss, tiny) / n) + (2 * count + 3) * math.log(n))
    return int(np.argmin(scores))


def _centred(y: np.ndarray) -> np.ndarray:
    return y - y.mean()


def _rounding(y: np.ndarray) -> float:
    """Return the sum of squares below which residuals are rounding: of the curve's changes, or of its level."""
    level = len(y) * float(np.finfo(float).eps) * largest(y)
    return max(1e-20 * float((_centred(y) ** 2).sum()), level**2, 1e-300)
