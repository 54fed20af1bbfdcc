"""Fit curves of all layers by one or two times of relaxation that the layers share.

ln S_l(t) = s0_l − A_l(1 − e^{−t/τ_fast}) + B_l(1 − e^{−t/τ_slow}), with B = 0 for one time, τ_fast·e^{κx} at depth x
for a wave, and e^{−(t/τ_fast)^β} for one time that is no exponential. s0, A and B are linear: they are solved for each
layer, and only the shared parameters are searched (variable projection). What the model leaves of a curve is smooth,
and would pass for a second time if it counted as independent noise: it is taken as correlated from look to look (first
order, one correlation for all layers), of its own size in each layer.

Time should be the sum of learning rates: in steps, the decay of a schedule makes a second time by itself.

Source of the projection: Golub and Pereyra, SIAM J. Numer. Anal. 10 (1973).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from scipy import optimize

from sims.system.errors import MeasureError
from spectra.arrays import unit_of

LEAST_LOOKS = 12
# Times are searched from a fraction of the first look to a multiple of the whole training, on so many points.
SHORTEST, LONGEST = 0.5, 4.0
GRID = 28
# Two times are at least this factor apart, κ lies within ±3, and β between 1/4 and 2.
APART = 1.5
STEEPEST = 3.0
STRETCHES = (0.25, 2.0)
# A curve that varies by less than this share of its values is constant.
ROUNDING = 1e-12
CORRELATIONS = (0.0, 0.2, 0.4, 0.6, 0.75, 0.85, 0.92, 0.97, 0.99)


class Model(NamedTuple):
    """Name a model of the curves.

    Attributes:
        slow: whether there is a second, slower time.
        wave: whether the fast time changes with depth.
        stretched: whether the fast relaxation is e^{−(t/τ)^β}, β shared by the layers.
    """

    slow: bool = False
    wave: bool = False
    stretched: bool = False


ONE = Model()
TWO = Model(slow=True)
TWO_WAVE = Model(slow=True, wave=True)
ONE_WAVE = Model(wave=True)
STRETCHED = Model(stretched=True)


@dataclass(frozen=True, eq=False)
class Timescales:
    """Hold the times that the layers share, and the curves fitted with them.

    Attributes:
        model: what was fitted.
        fast: τ of the faster time, or of the only one; with a wave that of depth 0.
        slow: τ of the slower time; None with one time.
        kappa: κ; 0 without a wave.
        stretch: β; 1 where it is not stretched.
        correlation: of what is left, from one look to the next.
        start, fall, rise: (seeds, layers) s0, A and B (0 with one time).
        fitted: (seeds, looks, layers) the curves.
        log_likelihood: of all curves, with the best size of noise for each.
        bounded: whether τ_slow (τ with one time) is at the longest that is searched: four times the training.
    """

    model: Model
    fast: float
    slow: float | None
    kappa: float
    stretch: float
    correlation: float
    start: np.ndarray
    fall: np.ndarray
    rise: np.ndarray
    fitted: np.ndarray
    log_likelihood: float
    bounded: bool

    @property
    def ratio(self) -> float | None:
        """Return τ_slow/τ_fast; None with one time."""
        return None if self.slow is None else self.slow / self.fast


@dataclass(frozen=True, eq=False)
class Curves:
    """Hold checked curves.

    Attributes:
        times: (looks,) from 0.
        values: (layers, looks, seeds), without the mean of each, in its unit.
        means: (layers, seeds), in these units.
        units: (layers, seeds), 1 where the squares of a curve fit into float64 anyway.
        depths: (layers,) 0 in the first, 1 in the last.
    """

    times: np.ndarray
    values: np.ndarray
    means: np.ndarray
    units: np.ndarray
    depths: np.ndarray

    def of(self, layers: np.ndarray) -> Curves:
        """Return the curves of some layers."""
        return Curves(
            self.times, self.values[layers], self.means[layers], self.units[layers], self.depths[layers]
        )

    def of_seeds(self, seeds: np.ndarray) -> Curves:
        """Return the curves of some seeds."""
        kept = self.means[:, seeds], self.units[:, seeds]
        return Curves(self.times, self.values[..., seeds], *kept, self.depths)


class Clock(NamedTuple):
    """Hold the parameters that layers share: ln times, κ, correlation, β."""

    log_fast: float
    log_slow: float | None
    kappa: float
    correlation: float
    stretch: float = 1.0


def fit_timescales(times: np.ndarray, values: np.ndarray, model: Model = TWO) -> Timescales:
    """Fit curves of several layers with shared times.

    The times are searched on a grid, then by the simplex of Nelder and Mead from its best point; the result is the same
    every time.

    Args:
        times: (looks,) rising, at least 12; the sum of learning rates.
        values: (looks, layers) or (seeds, looks, layers), such as ln stable ranks, layers in the order of depth.
        model: `ONE`, `TWO`, `ONE_WAVE`, `TWO_WAVE` or `STRETCHED`.

    Raises:
        MeasureError: shapes that do not fit, too few looks, times that do not rise, values that are not finite, or a
            curve that is constant.
    """
    curves = checked_curves(times, values)
    clock = best_clock(curves, model)
    basis = layer_basis(clock, curves.times, curves.depths)
    weights = np.linalg.pinv(whitened(basis, clock.correlation)) @ whitened(curves.values, clock.correlation)
    fitted = curves.means[:, None] + basis @ weights
    longest = clock.log_fast if clock.log_slow is None else clock.log_slow
    looks, units = len(curves.times), curves.units
    log_likelihood = -loss_of(clock, curves) - fitted.size / 2 * (1 + math.log(2 * math.pi / looks))
    return Timescales(
        *(model, math.exp(clock.log_fast), None if clock.log_slow is None else math.exp(clock.log_slow)),
        *(clock.kappa, clock.stretch, clock.correlation),
        start=((weights[:, 0] + curves.means) * units).T,
        fall=-(weights[:, 1] * units).T,
        rise=(weights[:, 2] * units).T if model.slow else np.zeros_like(curves.means.T),
        fitted=np.moveaxis(fitted * units[:, None], 2, 0).swapaxes(1, 2),
        log_likelihood=log_likelihood - looks * float(np.log(units).sum()),
        bounded=longest > time_limits(curves.times)[1] - 1e-3,
    )


def checked_curves(times: np.ndarray, values: np.ndarray) -> Curves:
    """Check times and curves, and bring them into the form of a fit.

    Raises:
        MeasureError: as of `fit_timescales`.
    """
    t, y = np.asarray(times, dtype=float), np.asarray(values, dtype=float)
    y = y[None] if y.ndim == 2 else y
    if t.ndim != 1 or len(t) < LEAST_LOOKS or y.ndim != 3 or y.shape[1] != len(t) or not y.size:
        raise MeasureError(
            f"there are {t.size} times and values of shape {np.shape(values)}; give (looks, layers) or (seeds, looks, "
            f"layers), at least {LEAST_LOOKS} looks"
        )
    if not (np.diff(t) > 0).all() or not np.isfinite(t).all() or not np.isfinite(y).all():
        raise MeasureError("times must rise and values be finite; leave out looks at which a layer has none")
    layers = np.moveaxis(y, 0, 2).swapaxes(0, 1)
    # Exact division keeps squares within float64.
    units = np.array([[unit_of(own) for own in layer.T] for layer in layers])
    layers = layers / units[:, None]
    if (np.ptp(layers, axis=1) <= ROUNDING * np.abs(layers).max(axis=1)).any():
        raise MeasureError("a curve is constant and has no time of its own; leave the layer out")
    means = layers.mean(axis=1)
    return Curves(t - t[0], layers - means[:, None], means, units, np.linspace(0, 1, y.shape[2]))


def best_clock(curves: Curves, model: Model) -> Clock:
    """Search the shared parameters of a model by the likelihood of all curves."""
    clocks, losses = grid_losses(curves, model)
    found = refined_clock(clocks[int(losses.sum(axis=1).argmin())], curves)
    if not model.wave and not model.stretched:
        return found
    starts = [
        found._replace(kappa=kappa, stretch=stretch)
        for kappa in ((-0.7, 0.1, 0.7) if model.wave else (0.0,))
        for stretch in ((0.5, 0.9, 1.5) if model.stretched else (1.0,))
    ]
    tries = [refined_clock(one, curves, wave=model.wave, stretched=model.stretched) for one in starts]
    return min(tries, key=lambda clock: loss_of(clock, curves))


def grid_losses(curves: Curves, model: Model) -> tuple[list[Clock], np.ndarray]:
    """Return the points of the grid (without waves), and the loss of each layer there, (points, layers)."""
    clocks, bases = _grid(tuple(curves.times), model.slow)
    layers, n, seeds = curves.values.shape
    floor, found = _floor(curves), []
    for correlation, q in zip(CORRELATIONS, bases, strict=True):
        z = whitened(curves.values, correlation)
        inner = q.swapaxes(1, 2) @ z.swapaxes(0, 1).reshape(n, -1)
        rss = (z**2).sum(axis=1) - (inner**2).sum(axis=1).reshape(-1, layers, seeds)
        logs = np.log(np.maximum(rss, floor)).sum(axis=-1)
        found.append(n / 2 * logs - seeds / 2 * math.log(1 - correlation**2))
    return clocks, np.concatenate(found)


def refined_clock(start: Clock, curves: Curves, *, wave: bool = False, stretched: bool = False) -> Clock:
    """Return the best clock near another one; κ and β stay unless there is a wave, or it is stretched."""
    shortest, longest = time_limits(curves.times)
    gap = 0.0 if start.log_slow is None else math.log(APART)
    lowest, highest = (math.log(v) for v in STRETCHES)

    def clock(point: np.ndarray) -> Clock:
        own = dict(zip(names, point, strict=True))
        fast = float(np.clip(own["fast"], shortest, longest - gap))
        slow = float(np.clip(own["slow"], fast + gap, longest)) if "slow" in own else None
        kappa = float(np.clip(own["kappa"], -STEEPEST, STEEPEST)) if wave else start.kappa
        stretch = math.exp(float(np.clip(own["stretch"], lowest, highest))) if stretched else start.stretch
        return Clock(fast, slow, kappa, float(np.clip(own["correlation"], 0, CORRELATIONS[-1])), stretch)

    # The correlation moves away from its bound.
    begin = {
        "fast": (start.log_fast, 0.15),
        "correlation": (start.correlation, -0.075 if start.correlation > 0.5 else 0.075),
    }
    if start.log_slow is not None:
        begin["slow"] = (start.log_slow, 0.15)
    if wave:
        begin["kappa"] = (start.kappa, 0.15)
    if stretched:
        begin["stretch"] = (math.log(start.stretch), 0.15)
    names = list(begin)
    point, steps = np.array(list(begin.values())).T
    simplex = np.vstack([np.zeros(len(point)), np.diag(steps)]) + point
    options = {"initial_simplex": simplex, "xatol": 1e-4, "fatol": 1e-4, "maxfev": 100 * len(point)}
    found = optimize.minimize(
        lambda p: loss_of(clock(p), curves), point, method="Nelder-Mead", options=options
    )
    return clock(found.x)


def loss_of(clock: Clock, curves: Curves) -> float:
    """Return the negative log likelihood of all curves, up to a constant of their shape."""
    q = np.linalg.qr(whitened(layer_basis(clock, curves.times, curves.depths), clock.correlation))[0]
    z = whitened(curves.values, clock.correlation)
    rss = ((z - q @ (q.swapaxes(1, 2) @ z)) ** 2).sum(axis=1)
    logs = float(np.log(np.maximum(rss, _floor(curves))).sum())
    return z.shape[1] / 2 * logs - rss.size / 2 * math.log(1 - clock.correlation**2)


def layer_basis(clock: Clock, times: np.ndarray, depths: np.ndarray) -> np.ndarray:
    """Return the curves 1, 1 − e^{−t/τ_fast} and, with two times, 1 − e^{−t/τ_slow}, (layers or 1, looks, 2 or 3).

    Without a wave they are the same in all layers.
    """
    at = depths if clock.kappa else depths[:1] * 0
    fast = -np.expm1(-((times / np.exp(clock.log_fast + clock.kappa * at)[:, None]) ** clock.stretch))
    columns = [np.ones_like(fast), fast]
    if clock.log_slow is not None:
        columns.append(np.broadcast_to(-np.expm1(-times / math.exp(clock.log_slow)), fast.shape))
    return np.stack(columns, axis=-1)


def whitened(values: np.ndarray, correlation: float) -> np.ndarray:
    """Return (…, looks, k) with the part of the look before taken out, so that first-order noise is independent."""
    first = math.sqrt(1 - correlation**2) * values[..., :1, :]
    return np.concatenate([first, values[..., 1:, :] - correlation * values[..., :-1, :]], axis=-2)


def time_limits(times: np.ndarray) -> tuple[float, float]:
    """Return ln of the shortest and of the longest time that are searched."""
    return math.log(SHORTEST * times[1]), math.log(LONGEST * times[-1])


@lru_cache(maxsize=4)
def _grid(times: tuple[float, ...], slow: bool) -> tuple[list[Clock], list[np.ndarray]]:
    """Return the points of the grid, and orthonormal bases (points, looks, columns) for each correlation."""
    t = np.array(times)
    logs = [float(v) for v in np.linspace(*time_limits(t), GRID)]
    pairs = [
        (a, b) for a in logs for b in (logs if slow else [None]) if b is None or b - a >= math.log(APART)
    ]
    clocks, bases = [], []
    for correlation in CORRELATIONS:
        own = [Clock(a, b, 0.0, correlation) for a, b in pairs]
        curves = np.concatenate([layer_basis(c, t, np.zeros(1)) for c in own])
        bases.append(np.linalg.qr(whitened(curves, correlation))[0])
        clocks += own
    return clocks, bases


def _floor(curves: Curves) -> np.ndarray:
    """Return the sums of squares below which a residual is rounding, (layers, seeds)."""
    return 1e-20 * (curves.values**2).sum(axis=1) + 1e-300
