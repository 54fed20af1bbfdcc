"""Where a measured number's spread comes from: seeds, bands, both together, and the probe sample.

Every seed is measured on every band with several independent probe samples, a crossed design with replication,

    y[s, b, r] = μ + S_s + B_b + (SB)_sb + E_sbr,

all four effects random, independent and of mean 0. Its four mean squares have the expectations

    E MS_S = σ²_E + R σ²_SB + R b σ²_S,   E MS_B = σ²_E + R σ²_SB + R s σ²_B,
    E MS_SB = σ²_E + R σ²_SB,             E MS_E = σ²_E,

solved for the components (method of moments, no likelihood). Under normal effects the mean squares are independent
scaled χ², which gives intervals for any number of seeds; a bootstrap over three seeds has ten different resamples.

Sources: Searle, Casella, McCulloch, "Variance Components" (1992), ch. 4; intervals by generalised pivots, Weerahandi,
J. Amer. Stat. Assoc. 88 (1993); degrees of freedom, Satterthwaite, Biometrics Bull. 2 (1946).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import special, stats

from sims.system.errors import MeasureError

SOURCES = ("seed", "band", "seed x band", "probe sample")
LEVEL = 0.95
DRAWS = 4_000
NODES = (np.arange(500) + 0.5) / 500
POWER = 0.8
# A design with more seeds or bands than this is reported as out of reach.
LARGEST = 1_000


@dataclass(frozen=True, eq=False)
class Components:
    """The decomposition of one (s, b, R) table.

    Attributes:
        mean: average of all values.
        shape: s seeds, b bands, R probe samples.
        mean_squares: (4,) MS in the order of `SOURCES`.
        raw: (4,) variance components as the equations give them, possibly negative (units of y squared).
    """

    mean: float
    shape: tuple[int, int, int]
    mean_squares: np.ndarray
    raw: np.ndarray

    @property
    def values(self) -> np.ndarray:
        """Return the (4,) components with negative ones as 0."""
        return np.maximum(self.raw, 0.0)

    @property
    def shares(self) -> np.ndarray:
        """Return the (4,) parts of their sum; NaN where nothing varies."""
        total = self.values.sum()
        return self.values / total if total > 0 else np.full(4, np.nan)


def components(values: np.ndarray) -> Components:
    """Estimate variance components of a complete table by the method of moments.

    Args:
        values: (s, b, R) numbers, at least two of each and none missing.

    Raises:
        MeasureError: another shape, fewer than two of a kind, or a missing value.
    """
    y = np.asarray(values, dtype=float)
    if y.ndim != 3 or min(y.shape) < 2 or not np.isfinite(y).all():
        raise MeasureError(
            f"a table of shape {y.shape} with {int((~np.isfinite(y)).sum())} missing values cannot be decomposed; it "
            "needs at least 2 seeds, 2 bands and 2 probe samples, and every value"
        )
    squares = mean_squares(y)
    return Components(float(y.mean()), y.shape, squares, _solve(squares, y.shape))


def mean_squares(y: np.ndarray) -> np.ndarray:
    """Return the (…, 4) mean squares, in the order of `SOURCES`, of tables (…, s, b, R)."""
    s, b, r = y.shape[-3:]
    cell = y.mean(axis=-1)
    seed, band = cell.mean(axis=-1, keepdims=True), cell.mean(axis=-2, keepdims=True)
    grand = cell.mean(axis=(-2, -1), keepdims=True)
    sums = (
        r * b * ((seed - grand) ** 2).sum(axis=(-2, -1)),
        r * s * ((band - grand) ** 2).sum(axis=(-2, -1)),
        r * ((cell - seed - band + grand) ** 2).sum(axis=(-2, -1)),
        ((y - cell[..., None]) ** 2).sum(axis=(-3, -2, -1)),
    )
    return np.stack(sums, axis=-1) / degrees(s, b, r)


def degrees(s: int, b: int, r: int) -> np.ndarray:
    """Return the (4,) degrees of freedom of the mean squares."""
    return np.array([s - 1, b - 1, (s - 1) * (b - 1), s * b * (r - 1)], dtype=float)


def expected_squares(variances: np.ndarray, s: int, b: int, r: int) -> np.ndarray:
    """Return the (4,) expected mean squares of a design whose components are `variances`."""
    seed, band, both, probe = variances
    inner = probe + r * both
    return np.array([inner + r * b * seed, inner + r * s * band, inner, probe])


def component_intervals(found: Components, draws: int = DRAWS) -> np.ndarray:
    """Return (4, 2) 95 % intervals of the components by generalised pivots, negative draws as 0.

    Each mean square is divided by a draw of χ²/ν and the equations are solved again. The draws have a fixed seed.
    Exact for the probe sample; for the others approximate, and for normal effects close to nominal even with three
    seeds (the tests count).
    """
    nu = degrees(*found.shape)
    chi = np.random.default_rng(0).chisquare(nu, size=(draws, 4)) / nu
    solved = np.maximum(_solve(found.mean_squares / chi, found.shape), 0.0)
    tail = (1 - LEVEL) / 2
    return np.quantile(solved, [tail, 1 - tail], axis=0).T


def mean_interval(found: Components, *, new_bands: bool = True) -> tuple[float, float]:
    """Return the 95 % interval of the mean.

    Args:
        new_bands: whether it speaks of new seeds on new bands of the same kind, or of new seeds on these bands alone.

    For these bands alone it is Student's over the seeds' means. For new ones the variance of the mean is estimated
    by (MS_S + MS_B − MS_SB)/(sbR) with Satterthwaite's degrees of freedom; the estimate is never taken below what
    seeds or bands alone give.
    """
    s, b, r = found.shape
    variance, df = _variance_of_mean(found.mean_squares[None, :], s, b, new_bands=new_bands)
    half = float(stats.t.ppf(0.5 + LEVEL / 2, df[0])) * math.sqrt(variance[0] / (s * b * r))
    return found.mean - half, found.mean + half


def rejections(tables: np.ndarray, *, new_bands: bool = True) -> np.ndarray:
    """Return for each of (m, s, b, R) tables whether its 95 % interval leaves 0 out (the test behind `power`)."""
    s, b, r = tables.shape[-3:]
    variance, df = _variance_of_mean(mean_squares(tables), s, b, new_bands=new_bands)
    half = stats.t.ppf(0.5 + LEVEL / 2, df) * np.sqrt(variance / (s * b * r))
    return np.abs(tables.mean(axis=(-3, -2, -1))) > half


def power(
    difference: float,
    variances: np.ndarray,
    seeds: int,
    bands: int,
    samples: int,
    *,
    new_bands: bool = True,
    level: float = LEVEL,
) -> float:
    """Return the probability that the interval leaves 0 out if the true mean is `difference` (non-central t).

    Exact for these bands alone and normal effects; for new bands approximate (Satterthwaite's degrees of freedom at
    the expected mean squares).

    Args:
        difference: the true mean, in units of y.
        variances: (4,) components in the order of `SOURCES`, not negative.
        seeds, bands, samples: the design, at least two seeds (and two bands if new ones are meant).
        new_bands: as of `mean_interval`.
        level: of the interval.

    Raises:
        MeasureError: a design too small, or components that are all 0.
    """
    if seeds < 2 or bands < (2 if new_bands else 1) or samples < 1:
        raise MeasureError(
            f"a design of {seeds} seeds, {bands} bands and {samples} samples has no interval; it needs at least 2 "
            f"seeds, {2 if new_bands else 1} bands and 1 sample"
        )
    squares = expected_squares(np.asarray(variances, dtype=float), seeds, bands, samples)
    variance, df = _variance_of_mean(squares[None, :], seeds, bands, new_bands=new_bands)
    if variance[0] <= 0:
        raise MeasureError(
            "every variance component is 0, so that any difference would be seen; check the table"
        )
    shift = abs(difference) / math.sqrt(variance[0] / (seeds * bands * samples))
    limit = float(stats.t.ppf(0.5 + level / 2, df[0]))
    # The non-central t as a mean over its χ²: library versions of its law fail far out with few degrees of freedom.
    spread = _chi_nodes(round(float(df[0]), 3))
    return float(np.mean(special.ndtr(shift - limit * spread) + special.ndtr(-shift - limit * spread)))


def seeds_needed(
    difference: float,
    variances: np.ndarray,
    bands: int,
    samples: int,
    *,
    new_bands: bool = True,
    wanted: float = POWER,
    level: float = LEVEL,
) -> int | None:
    """Return the fewest seeds whose power reaches `wanted`; None where no number up to `LARGEST` does."""

    def reaches(seeds: int) -> bool:
        return power(difference, variances, seeds, bands, samples, new_bands=new_bands, level=level) >= wanted

    if not reaches(LARGEST):
        return None
    low, high = 1, LARGEST
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if reaches(middle) else (middle, high)
    return high


@lru_cache(maxsize=4_096)
def _chi_nodes(df: float) -> np.ndarray:
    """Return values of √(χ²/df) at equally likely places."""
    return np.sqrt(stats.chi2.ppf(NODES, df) / df)


def _solve(squares: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """Return the components (…, 4) of mean squares (…, 4)."""
    s, b, r = shape
    seed, band, both, probe = np.moveaxis(np.asarray(squares), -1, 0)
    return np.stack([(seed - both) / (r * b), (band - both) / (r * s), (both - probe) / r, probe], axis=-1)


def _variance_of_mean(
    squares: np.ndarray, s: int, b: int, *, new_bands: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Return sbR times the variance of the mean, and its degrees of freedom, from (m, 4) mean squares."""
    seed, band, both = squares[:, 0], squares[:, 1], squares[:, 2]
    if not new_bands:
        return seed, np.full(len(seed), s - 1.0)
    summed = seed + band - both
    spread = seed**2 / (s - 1) + band**2 / (b - 1) + both**2 / ((s - 1) * (b - 1))
    larger = np.maximum(seed, band)
    df = np.divide(summed**2, spread, out=np.full_like(summed, s - 1.0), where=spread > 0)
    # Where chance makes the estimate smaller than either source alone, that source stands for it.
    alone = np.where(seed >= band, s - 1.0, b - 1.0)
    return np.maximum(summed, larger), np.where(summed > larger, np.maximum(df, 1.0), alone)
