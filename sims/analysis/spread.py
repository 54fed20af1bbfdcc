"""Ask whether the spread of a number over layers grows with the number of layers L, beyond what L values do by chance.

The largest minus the smallest of L independent values grows with L whatever the values are: as L^0.26 with R² 0.99 over
L = 8, 12, 16, 24, 36 for normal ones. The standard deviation does not, once its bias in few layers is taken out.

Sources: Tippett, Biometrika 17 (1925), the expected range; arXiv 2604.22778, the claimed law Δα ∝ L^0.26, R² 0.99.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal, NamedTuple, get_args

import numpy as np
from scipy import special

from sims.analysis.verdicts import Verdict
from sims.pages.number import counted
from sims.system.errors import MeasureError
from spectra import Estimate
from spectra.arrays import largest, unit
from theory.decision import side

Measure = Literal["sd", "amplitude", "range"]
# A law needs so many depths for a claim, and R² so many to be more than chance.
LEAST_DEPTHS = 5
DEPTHS_OF_R2 = 6
LEAST_LAYERS = 4
# A spread below this share of the values is one of rounding.
ROUNDING = 1e-12
RESAMPLES = 1_999


@dataclass(frozen=True, eq=False)
class SpreadLaw:
    """Hold the fit spread = c·L^b.

    Attributes:
        measure: "sd", "amplitude" (of a quadratic in depth), or "range" (largest − smallest).
        layers: numbers of layers, rising.
        seeds: how many there are.
        spreads: spread at each number of layers, geometric mean over seeds; the sd without its bias in few layers.
        exponent: b; NaN where not resolved, as all numbers.
        low, high: its 95 % interval.
        null: b of the expected range of as many independent normal values; for the other measures 0.
        r2: share of the variance of ln spread that the law explains; not fitted with fewer than six depths.
        status: "ok" or "not resolved".
        reason: why it is not resolved.
    """

    measure: Measure
    layers: tuple[int, ...]
    seeds: int
    spreads: tuple[float, ...] = ()
    exponent: float = math.nan
    low: float = math.nan
    high: float = math.nan
    null: float = math.nan
    r2: Estimate = field(default_factory=lambda: Estimate.not_fitted("the law is not fitted"))
    status: Literal["ok", "not resolved"] = "ok"
    reason: str = ""

    @property
    def sentence(self) -> str:
        """Return the result as one sentence."""
        if self.status != "ok":
            return f"Exponent of the {self.measure} over layers: not resolved ({self.reason})."
        chance = f"; independent values have {self.null:.2f}" if self.measure == "range" else ""
        return (
            f"The {self.measure} over layers goes as L^{self.exponent:.2f} [{self.low:.2f}, {self.high:.2f}] at "
            f"{len(self.layers)} depths, {self.seeds} seeds{chance}."
        )

    def row(self) -> dict[str, object]:
        """Return the fields and the sentence as a row of a table; r2 is NaN where it is not quoted."""
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "r2"}
        return {**fields, "r2": self.r2.value, "r2_reason": self.r2.reason, "sentence": self.sentence}


class RangeLaw(NamedTuple):
    """Hold exponent and R² of the logarithm of a range on ln L."""

    exponent: float
    r2: float


@lru_cache(maxsize=256)
def expected_range(layers: int) -> float:
    """Return the expected range of independent standard normal values, ∫ 1 − Φ(x)^L − (1 − Φ(x))^L dx."""
    x = np.linspace(-12.0, 12.0, 4_801)
    below = special.ndtr(x)
    return float(np.trapezoid(1 - below**layers - (1 - below) ** layers, x))


def range_law(layers: Sequence[int]) -> RangeLaw:
    """Return the law that the expected range of independent normal values seems to follow over these numbers.

    Raises:
        MeasureError: fewer than three different numbers, or one below 2.
    """
    known = sorted(set(layers))
    if len(known) < 3 or known[0] < 2:
        raise MeasureError(f"the numbers of layers are {list(layers)}; give at least three, each at least 2")
    x, y = np.log(known), np.log([expected_range(int(n)) for n in known])
    return RangeLaw(*_line(x, y))


def spread_law(profiles: Mapping[int, np.ndarray], measure: Measure = "sd", *, seed: int = 0) -> SpreadLaw:
    """Fit the spread over layers against the number of layers, with an interval by resampled layers.

    ln spread is fitted by least squares on ln L. The interval resamples layers: what the mean (for the amplitude, the
    quadratic) leaves of each layer, a vector over seeds in units of its depth's spread, is pooled over depths and drawn
    again. Layers count as independent; seeds do not make more layers. Where the spread does not grow, the interval of
    the sd lies above 0 in 2 to 6 % of draws, for normal values and heavier tails (t with four degrees of freedom); that
    of the range lies above `null` in up to 11 % with heavier tails.

    Args:
        profiles: number of layers → (seeds, layers) values at one time, as many seeds at each.
        measure: "sd" over layers (without its bias in few layers, exact for normal values), "amplitude" (largest −
            smallest value of the fitted quadratic in depth), or "range" (largest − smallest value, which grows with L
            by chance: compare it with `null`).
        seed: of the bootstrap.

    Returns:
        `SpreadLaw`; not resolved with fewer than five depths, fewer than four layers at one, missing values, or values
        that do not vary over layers.

    Raises:
        MeasureError: an unknown measure, shapes that do not fit, or infinite values.

    Source of the bias: E ln s = ln σ + ½(ψ((L−1)/2) − ln((L−1)/2)) for normal values.
    """
    if measure not in get_args(Measure):
        raise MeasureError(f"the measure is {measure!r}; choose from {', '.join(get_args(Measure))}")
    tables = {int(n): np.atleast_2d(np.asarray(profiles[n], dtype=float)) for n in sorted(profiles)}
    seeds = {table.shape[0] for table in tables.values()}
    if any(t.ndim != 2 or t.shape[1] != n or np.isinf(t).any() for n, t in tables.items()) or len(seeds) != 1:
        shapes = {n: t.shape for n, t in tables.items()}
        raise MeasureError(
            f"the profiles have shapes {shapes}; give (seeds, L) finite numbers under L, of equally many seeds"
        )
    found = SpreadLaw(measure, tuple(tables), seeds.pop())
    reason = _unusable(tables)
    if reason:
        return SpreadLaw(measure, found.layers, found.seeds, status="not resolved", reason=reason)
    # Division by a power of two is exact, and keeps squares within float64.
    size = unit(max(largest(table) for table in tables.values()))
    tables = {n: table / size for n, table in tables.items()}
    x = np.log(list(tables))
    logs = np.array([_log_spread(table, measure) for table in tables.values()])
    exponent, r2 = _line(x, logs)
    drawn = _resampled(tables, measure, np.random.default_rng(seed))
    slopes = (drawn - drawn.mean(axis=0)).T @ (x - x.mean()) / ((x - x.mean()) ** 2).sum()
    low, high = np.quantile(slopes - slopes.mean(), [0.025, 0.975])
    short = f"{len(x)} depths; R² of fewer than {DEPTHS_OF_R2} is near 1 by chance"
    return SpreadLaw(
        *(measure, found.layers, found.seeds, tuple(float(v) * size for v in np.exp(logs))),
        *(exponent, exponent - float(high), exponent - float(low)),
        range_law(found.layers).exponent if measure == "range" else 0.0,
        Estimate(r2) if len(x) >= DEPTHS_OF_R2 else Estimate.not_fitted(short),
    )


def spread_verdict(law: SpreadLaw) -> Verdict:
    """Say whether the spread over layers grows with their number.

    Shown if the interval of the exponent lies above 0; for the range, above that of independent normal values.
    """
    claim = "The spread over layers grows with the number of layers"
    if law.status != "ok":
        return Verdict(claim, "not resolved", law.reason)
    grows = side(law.low, law.high, law.null) > 0
    return Verdict(claim, "shown" if grows else "not shown", law.sentence.rstrip("."))


def _unusable(tables: dict[int, np.ndarray]) -> str:
    if len(tables) < LEAST_DEPTHS:
        return f"{counted(len(tables), 'number')} of layers; a law needs {LEAST_DEPTHS}"
    for n, table in tables.items():
        if n < LEAST_LAYERS:
            return f"{n} layers have no spread to speak of; {LEAST_LAYERS} are needed"
        if np.isnan(table).any():
            return f"{int(np.isnan(table).sum())} values are missing at {n} layers"
        if (np.ptp(table / 2, axis=1) <= ROUNDING * np.abs(table).max(axis=1)).any():
            return f"a seed has the same value in all of {n} layers"
    return ""


def _line(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Return slope and R² of a least-squares line."""
    centred = x - x.mean()
    slope = float(centred @ y) / float(centred @ centred)
    total = float(((y - y.mean()) ** 2).sum())
    rest = float(((y - y.mean() - slope * centred) ** 2).sum())
    return slope, 1 - rest / total if total > 0 else 0.0


def _bias(layers: int) -> float:
    """Return E ln s − ln σ of independent normal values."""
    half = (layers - 1) / 2
    return 0.5 * (float(special.digamma(half)) - math.log(half))


@lru_cache(maxsize=64)
def _curve(layers: int, degree: int) -> np.ndarray:
    """Return an orthonormal basis of polynomials in depth, (layers, degree + 1)."""
    return np.linalg.qr(np.vander(np.linspace(-1, 1, layers), degree + 1))[0]


def _log_spread(values: np.ndarray, measure: Measure) -> np.ndarray:
    """Return ln spread of (…, seeds, layers), mean over seeds."""
    layers = values.shape[-1]
    if measure == "sd":
        size = values.std(axis=-1, ddof=1) / math.exp(_bias(layers))
    elif measure == "range":
        size = np.ptp(values, axis=-1)
    else:
        weights = values @ np.linalg.pinv(np.vander(np.linspace(-1, 1, layers), 3)).T
        size = _amplitude(weights[..., 0], weights[..., 1])
    return np.log(np.maximum(size, 1e-300)).mean(axis=-1)


def _amplitude(square: np.ndarray, slope: np.ndarray) -> np.ndarray:
    """Return largest − smallest value of square·x² + slope·x on [−1, 1]."""
    ends = np.stack([square - slope, square + slope])
    top = np.divide(-slope, 2 * square, out=np.full_like(slope, 2.0), where=square != 0)
    inner = np.where(np.abs(top) < 1, square * top**2 + slope * top, ends[0])
    every = np.concatenate([ends, inner[None]])
    return every.max(axis=0) - every.min(axis=0)


def _resampled(tables: dict[int, np.ndarray], measure: Measure, generator: np.random.Generator) -> np.ndarray:
    """Return ln spreads of resampled layers, (depths, resamples)."""
    degree = 2 if measure == "amplitude" else 0
    curves, sizes, pool = [], [], []
    for n, table in tables.items():
        basis = _curve(n, degree)
        curve = table @ basis @ basis.T
        rest = table - curve
        size = np.sqrt((rest**2).sum(axis=1, keepdims=True) / (n - degree - 1))
        curves.append(curve)
        sizes.append(size)
        # The curve was fitted, so that residuals are shorter than what they are residuals of.
        unit = np.divide(rest, size, out=np.zeros_like(rest), where=size > 0)
        pool.append(unit * math.sqrt(n / (n - degree - 1)))
    drawn = np.concatenate(pool, axis=1).T
    found = []
    for n, curve, size in zip(tables, curves, sizes, strict=True):
        rest = drawn[generator.integers(len(drawn), size=(RESAMPLES, n))].swapaxes(1, 2)
        found.append(_log_spread(curve + size * rest, measure))
    return np.stack(found)
