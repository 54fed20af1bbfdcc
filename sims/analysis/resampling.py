"""Permute and resample the units that were drawn: batch sizes and seeds.

Permutations are all counted up to seven units and drawn above that; resamples of seeds are all counted up to five
seeds. Drawn ones come from a fixed seed, so that a table is the same every time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import permutations, product

import numpy as np
from scipy import stats

from sims.analysis.ranges import REAL, Range
from sims.system.errors import MeasureError
from spectra import Estimate, jackknife

EXACT_UNITS = 7
DRAWS = 9_999
EXACT_SEEDS = 5
RESAMPLES = 1_999
# Fewer seeds than this have no interval but the Student-t one of a mean.
LEAST_SEEDS = 3
LEVEL = 0.95
# Two statistics that differ only by rounding are tied.
TIE = 1e-9


@dataclass(frozen=True, eq=False)
class Permuted:
    """Hold rank correlations and their permutation tests.

    Attributes:
        rho: (m,) Spearman correlations, NaN where one side does not vary.
        p: (m,) two-sided p-values.
        p_min: (m,) the smallest p-value that these numbers of units and ties allow.
        exact: whether every permutation was counted.
    """

    rho: np.ndarray
    p: np.ndarray
    p_min: np.ndarray
    exact: bool


def orders(n: int, exact_units: int = EXACT_UNITS) -> tuple[np.ndarray, bool]:
    """Return permutations of n units (rows of indices), and whether these are all (up to so many units)."""
    if n <= exact_units:
        return np.array(list(permutations(range(n)))), True
    generator = np.random.default_rng(n)
    return generator.permuted(np.tile(np.arange(n), (DRAWS, 1)), axis=1), False


def spearman(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return Spearman correlations along the last axis; NaN where one side is constant.

    Ties share their mean rank."""
    a, b = standard_ranks(x), standard_ranks(y)
    return (a * b).sum(axis=-1)


def spearman_permutation(x: np.ndarray, y: np.ndarray) -> Permuted:
    """Test each row of x against y by permuting the units of y.

    Args:
        x: (m, n) one row a hypothesis.
        y: (n,) the same units.

    Returns:
        Two-sided tests, p = share of permutations with |ρ| at least as large; (1 + #)/(1 + draws) where they are
        drawn. Valid if the units are exchangeable under the null.
    """
    a, b = standard_ranks(x), standard_ranks(y)
    chosen, exact = orders(len(b))
    size = np.abs(a @ b[chosen].T)
    observed = np.abs(a @ b)
    count = (size >= observed[:, None] - TIE).sum(axis=1)
    most = (size >= size.max(axis=1, keepdims=True) - TIE).sum(axis=1)
    extra = 0 if exact else 1
    total = len(chosen) + extra
    p = np.where(np.isnan(observed), np.nan, (count + extra) / total)
    p_min = np.where(np.isnan(observed), np.nan, most / total if exact else 1 / total)
    return Permuted(a @ b, p, p_min, exact)


def block_permutation(x: np.ndarray, y: np.ndarray) -> Permuted:
    """Test Spearman's correlation of two numbers over all cells, permuting whole rows of y.

    The cells of a row have something in common: they are no units of their own.

    Args:
        x, y: (units, cells of each).

    Returns:
        One two-sided test; with one cell a unit that of `spearman_permutation`.

    >>> block_permutation(np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[1.0, 2.0], [3.0, 4.0]])).p
    array([1.])
    """
    a, b = (standard_ranks(np.ravel(own)).reshape(np.shape(own)) for own in (x, y))
    chosen, exact = orders(len(b))
    # A permutation is a sum over rows of how one of x goes with one of y.
    size = np.abs((a @ b.T)[np.arange(len(a)), chosen].sum(axis=1))
    rho = float((a * b).sum())
    if math.isnan(rho):
        nothing = np.array([math.nan])
        return Permuted(nothing, nothing, nothing, exact)
    extra = 0 if exact else 1
    total = len(chosen) + extra
    p = (int((size >= abs(rho) - TIE).sum()) + extra) / total
    most = int((size >= size.max() - TIE).sum()) if exact else 1
    return Permuted(np.array([rho]), np.array([p]), np.array([most / total]), exact)


def trend_permutation(values: np.ndarray) -> tuple[float, float, float]:
    """Test whether a value follows the order of the columns (Page's test).

    The order within each row is permuted independently.

    Args:
        values: (s, n) one row a seed, columns in the order that is asked about.

    Returns:
        Mean over seeds of `trend_correlations`, its two-sided p-value, and the smallest p-value possible. Exact up to
        seven columns; drawn above. Valid if, under the null, the order within a row is as good as random.

    Raises:
        MeasureError: a missing value.

    Source: Page, J. Amer. Stat. Assoc. 58 (1963), here with the null law by convolution and for ties.
    """
    values = np.asarray(values, dtype=float)
    if np.isnan(values).any():
        raise MeasureError(
            f"{int(np.isnan(values).sum())} of {values.size} values are missing; leave out the rows that lack one"
        )
    s, n = values.shape
    # Twice the ranks are whole, so the statistic Σ 2·rank·column is whole and its law can be convolved.
    ranks = np.rint(2 * stats.rankdata(values, axis=1)).astype(int)
    columns = np.arange(1, n + 1)
    observed = int((ranks @ columns).sum())
    mean = s * (n + 1) * n * (n + 1) / 2
    chosen, exact = orders(n)
    if exact:
        law = np.ones(1)
        for row in ranks:
            law = np.convolve(law, np.bincount(row[chosen] @ columns) / len(chosen))
        distance = np.abs(np.arange(len(law)) - mean)
        p = float(law[distance >= abs(observed - mean) - TIE].sum())
        held = law > 0
        p_min = float(law[held & (distance >= distance[held].max() - TIE)].sum())
    else:
        generator = np.random.default_rng(n)
        drawn = sum(generator.permuted(np.tile(row, (DRAWS, 1)), axis=1) @ columns for row in ranks)
        p = (1 + int((np.abs(drawn - mean) >= abs(observed - mean) - TIE).sum())) / (1 + DRAWS)
        p_min = 1 / (1 + DRAWS)
    return float(np.mean(trend_correlations(values))), min(p, 1.0), p_min


def trend_correlations(values: np.ndarray) -> np.ndarray:
    """Return the Spearman correlation of each row with the order of the columns.

    It is 0 of a row that does not vary, which follows no order, as its part of Page's statistic is.

    Args:
        values: (s, n), as of `trend_permutation`.
    """
    found = spearman(values, np.broadcast_to(np.arange(values.shape[1]), values.shape))
    return np.where(np.ptp(values, axis=1) == 0, 0.0, found)


def seed_resamples(seeds: int) -> np.ndarray:
    """Return bootstrap resamples of seeds as indices, (resamples, seeds).

    All s^s of them up to five seeds, drawn above."""
    if seeds <= EXACT_SEEDS:
        return np.array(list(product(range(seeds), repeat=seeds)))
    return np.random.default_rng(seeds).integers(seeds, size=(RESAMPLES, seeds))


def seed_bootstrap(
    statistic: Callable[[np.ndarray], np.ndarray], seeds: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return a 95 % percentile interval over seeds.

    With few seeds its coverage is below 95 % (three seeds have ten different resamples); it shows what the
    seeds at hand allow, and no more.

    Args:
        statistic: from (resamples, seeds) indices to (resamples, …) values.
        seeds: how many there are; fewer than three have no interval.

    Returns:
        low and high, NaN where there are fewer than three seeds.
    """
    if seeds < LEAST_SEEDS:
        shape = statistic(np.arange(seeds)[None])[0]
        return np.full_like(shape, np.nan, dtype=float), np.full_like(shape, np.nan, dtype=float)
    values = statistic(seed_resamples(seeds))
    tail = (1 - LEVEL) / 2
    # A resample may leave nothing to rank; the others remain valid.
    ranked = ~np.isnan(values).all(axis=0)
    bounds = np.full((2, *values.shape[1:]), np.nan)
    bounds[:, ranked] = np.nanquantile(values[:, ranked], [tail, 1 - tail], axis=0)
    return bounds[0], bounds[1]


def seed_jackknife(
    seeds: Sequence[int], statistic: Callable[[Sequence[int]], float], within: Range = REAL
) -> Estimate:
    """Compute a statistic over seeds with its delete-one-seed Student interval.

    Args:
        seeds: labels; with fewer than three there is a value and no interval.
        statistic: from some of the labels to a number; it must be defined for one seed fewer.
        within: the values that it can take.
    """
    labels = list(seeds)
    if len(labels) < LEAST_SEEDS:
        value = statistic(labels) if labels else math.nan
        reason = "no seeds" if not labels else "the statistic has no value for these seeds"
        return Estimate(value) if math.isfinite(value) else Estimate.not_fitted(reason)
    found = jackknife(np.arange(len(labels)), lambda kept: statistic([labels[int(k)] for k in kept]))
    low, high = within.interval(found.value, found.high - found.value)
    return found if within is REAL else replace(found, low=low, high=high)


def holm(p: np.ndarray) -> np.ndarray:
    """Return Holm's adjusted p-values (family-wise error, any dependence); NaN is ignored.

    Source: Holm, Scand. J. Stat. 6 (1979).
    """
    adjusted = np.full(len(p), np.nan)
    known = np.flatnonzero(np.isfinite(p))
    order = known[np.argsort(p[known], kind="stable")]
    steps = p[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return adjusted


def holm_attainable(p: np.ndarray, p_min: np.ndarray) -> np.ndarray:
    """Return the smallest Holm's adjusted p-value that each test could have, the others being as they are.

    Holm's correction steps down: a test after others that are significant pays for the remaining ones only, so that the
    smallest possible p times the number of tests is no limit.

    Args:
        p, p_min: (m,) p-values and the smallest possible ones; NaN where there is no test.

    >>> holm_attainable(np.array([0.5, 0.001]), np.array([0.03, 0.001])).round(3).tolist()
    [0.03, 0.002]
    """
    found = np.full(len(p), np.nan)
    for i in np.flatnonzero(np.isfinite(p)):
        best = np.array(p, float)
        best[i] = p_min[i]
        found[i] = holm(best)[i]
    return found


def benjamini_hochberg(p: np.ndarray) -> np.ndarray:
    """Return Benjamini–Hochberg q-values; NaN is ignored."""
    adjusted = np.full(len(p), np.nan)
    known = np.isfinite(p)
    if known.any():
        adjusted[known] = stats.false_discovery_control(p[known])
    return adjusted


def standard_ranks(values: np.ndarray) -> np.ndarray:
    """Return ranks along the last axis, centred and of unit length; NaN where constant: products are correlations."""
    ranks = stats.rankdata(np.asarray(values, float), axis=-1)
    centred = ranks - ranks.mean(axis=-1, keepdims=True)
    length = np.sqrt((centred**2).sum(axis=-1, keepdims=True))
    return np.divide(centred, length, out=np.full_like(centred, math.nan), where=length > 0)
