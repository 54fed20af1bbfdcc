"""Compare models of relaxation by predicting layers, seeds and looks that the fit has not seen.

The shared times come from other layers (or from other seeds). Of a curve that is left out, each block of consecutive
looks is predicted from its other looks. Models are compared by the logarithm of the predicted density, each with its
own correlation of noise: a model with one time may explain a smooth rest by noise that is correlated.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import optimize, stats

from sims.analysis.timescales import (
    CORRELATIONS,
    GRID,
    ONE,
    TWO,
    Clock,
    Curves,
    Model,
    best_clock,
    checked_curves,
    grid_losses,
    layer_basis,
    loss_of,
    time_limits,
    whitened,
)
from sims.system.errors import MeasureError
from theory.decision import side

Own = Literal["own"]
OWN: Literal["own"] = "own"
FOLDS = 5
BLOCKS = 5
LEAST_LAYERS = 4
# A gain counts above so many standard errors.
ERRORS = 2.0
# Before a block is seen, a weight is taken to be as large as so many ranges of the curve.
WIDE = 3.0


@dataclass(frozen=True)
class Gain:
    """Hold how much better one model predicts what another predicts too.

    Attributes:
        units: how many layers the mean is over.
        gain: mean log score of the richer model − that of the simpler one, in nats per layer and seed; NaN where not
            resolved, as its error.
        error: standard error of the mean over layers.
        status: "ok" or "not resolved".
        reason: why it is not resolved.
    """

    units: int
    gain: float = math.nan
    error: float = math.nan
    status: Literal["ok", "not resolved"] = "ok"
    reason: str = ""

    @property
    def positive(self) -> bool:
        """Return whether the gain is above two standard errors."""
        return (
            self.status == "ok" and side(self.gain - ERRORS * self.error, self.gain + ERRORS * self.error) > 0
        )

    @property
    def sentence(self) -> str:
        """Return the result as one sentence."""
        if self.status != "ok":
            return f"Not resolved ({self.reason})."
        return (
            f"The richer model gains {self.gain:.3g} ± {self.error:.2g} nats per layer ({self.units} layers)."
        )


def held_out_gain(
    times: np.ndarray,
    values: np.ndarray,
    simple: Model | Own = ONE,
    rich: Model = TWO,
    *,
    unseen: Literal["layers", "seeds"] = "layers",
) -> Gain:
    """Compare two models on curves that their shared times have not seen.

    The shared times and the correlation of noise come from four fifths of the layers (in all seeds), or from the other
    seeds. The curves left out are predicted in five blocks of consecutive looks, each from the other looks, as
    Student's t with the variance of the weights; each look given the look before it. The standard error is that over
    layers, seeds averaged.

    Args:
        times, values: as of `two_timescales`.
        simple, rich: models, such as `TWO` and `TWO_WAVE`; "own" is one time of each curve's own, found from its other
            looks.
        unseen: what is left out.

    Returns:
        `Gain`; not resolved with fewer than four layers, or where seeds are left out and there is one.

    Raises:
        MeasureError: as of `fit_timescales`, or an unknown `unseen`.
    """
    if unseen not in ("layers", "seeds") or (isinstance(simple, str) and simple != OWN):
        raise MeasureError(
            f"unseen is {unseen!r} and the simple model {simple!r}; choose layers or seeds, and a model or 'own'"
        )
    return _gain(checked_curves(times, values), simple, rich, unseen)


def slow_exponents(times: np.ndarray, ranks: np.ndarray, exponents: np.ndarray) -> Gain:
    """Ask whether exponents relax with the slow time of the ranks of the same layers, or with the fast one.

    Both times come from the ranks of other layers. Exponents of the layers left out have one of them,
    α_l = a0_l + C_l(1 − e^{−t/τ}), and are predicted in blocks as by `held_out_gain`.

    Args:
        times: (looks,) rising; the sum of learning rates.
        ranks, exponents: (looks, layers) or (seeds, looks, layers), such as ln stable ranks and α.

    Returns:
        `Gain` of the slow time over the fast one (a gain below −2 errors speaks for the fast one); not resolved with
        fewer than four layers.

    Raises:
        MeasureError: as of `fit_timescales`, or exponents of another shape than ranks.
    """
    both = checked_curves(times, ranks), checked_curves(times, exponents)
    layers, _, seeds = both[0].values.shape
    if both[1].values.shape != both[0].values.shape:
        raise MeasureError(
            f"ranks have shape {np.shape(ranks)} and exponents {np.shape(exponents)}; give the same layers and seeds"
        )
    if layers < LEAST_LAYERS:
        return Gain(layers, status="not resolved", reason=f"{layers} layers; {LEAST_LAYERS} are needed")
    gains = np.zeros((layers, seeds))
    for out in _folds(layers):
        found, seen = best_clock(both[0].of(~out), TWO), both[1].of(~out)
        for log_time, sign in ((found.log_fast, -1), (found.log_slow, 1)):
            clocks = [Clock(log_time or 0.0, None, 0.0, rho) for rho in CORRELATIONS]
            clock = clocks[int(np.argmin([loss_of(clock, seen) for clock in clocks]))]
            gains[out] += sign * _scores(clock, both[1].of(out))
    return _mean_gain(gains)


def _gain(curves: Curves, simple: Model | Own, rich: Model | Own, unseen: Literal["layers", "seeds"]) -> Gain:
    layers, _, seeds = curves.values.shape
    if layers < LEAST_LAYERS:
        return Gain(layers, status="not resolved", reason=f"{layers} layers; {LEAST_LAYERS} are needed")
    if unseen == "seeds" and seeds < 2:
        return Gain(layers, status="not resolved", reason="one seed; another must be left out")
    gains = np.zeros((layers, seeds))
    sides: list[tuple[Model | Own, int]] = [(simple, -1), (rich, 1)]
    for model, sign in sides:
        if unseen == "layers":
            for out in _folds(layers):
                clock = _seen_clock(curves.of(~out), model)
                gains[out] += sign * _scores(clock, curves.of(out), own=model == OWN)
        else:
            for out in np.eye(seeds, dtype=bool):
                clock = _seen_clock(curves.of_seeds(~out), model)
                gains[:, out] += sign * _scores(clock, curves.of_seeds(out), own=model == OWN)
    return _mean_gain(gains)


def _folds(layers: int) -> list[np.ndarray]:
    """Return which layers each fold leaves out; neighbours resemble each other, and are in different folds."""
    return [np.arange(layers) % FOLDS == fold for fold in range(min(FOLDS, layers))]


def _mean_gain(gains: np.ndarray) -> Gain:
    """Return the mean of gains (layers, seeds) with its error over layers."""
    each = gains.mean(axis=1)
    return Gain(len(each), float(each.mean()), float(each.std(ddof=1)) / math.sqrt(len(each)))


def _seen_clock(curves: Curves, model: Model | Own) -> Clock:
    return _own_clock(curves) if isinstance(model, str) else best_clock(curves, model)


def _scores(clock: Clock, curves: Curves, *, own: bool = False) -> np.ndarray:
    """Return the log score of each curve, (layers, seeds), its looks predicted block by block.

    With `own` each has a time of its own, found from its other looks.
    """
    shared = whitened(layer_basis(clock, curves.times, curves.depths), clock.correlation)
    z = whitened(curves.values, clock.correlation)
    layers, looks, seeds = z.shape
    wide = WIDE * np.ptp(curves.values, axis=1)
    found = np.full((layers, seeds), math.log(1 - clock.correlation**2) / 2)
    for block in np.array_split(np.arange(looks), BLOCKS):
        kept = np.delete(np.arange(looks), block)
        for layer, k in np.ndindex(layers, seeds):
            curve = z[layer, :, k]
            basis = shared[layer if len(shared) > 1 else 0]
            if own:
                basis = _own_basis(clock, curves.times, curve, kept)
            found[layer, k] += _block_score(
                basis[kept], curve[kept], basis[block], curve[block], wide[layer, k]
            )
    return found


def _own_clock(curves: Curves) -> Clock:
    """Return the correlation of noise if each curve has one time of its own (and one of the times)."""
    clocks, losses = grid_losses(curves, ONE)
    each = losses.reshape(len(CORRELATIONS), -1, losses.shape[1])
    return clocks[int(each.min(axis=1).sum(axis=1).argmin()) * each.shape[1]]


def _own_basis(clock: Clock, times: np.ndarray, curve: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Return the whitened basis of the time that fits the kept looks best, and its change with ln τ, (looks, 3)."""

    def basis(log_time: float) -> np.ndarray:
        one = layer_basis(clock._replace(log_fast=log_time), times, np.zeros(1))[0]
        return whitened(one, clock.correlation)

    def left(log_time: float) -> float:
        q = np.linalg.qr(basis(log_time)[kept])[0]
        return float(((curve[kept] - q @ (q.T @ curve[kept])) ** 2).sum())

    logs = np.linspace(*time_limits(times), 2 * GRID)
    best = int(np.argmin([left(v) for v in logs]))
    near = (float(logs[max(best - 1, 0)]), float(logs[min(best + 1, len(logs) - 1)]))
    found = float(optimize.minimize_scalar(left, bounds=near, method="bounded").x)  # pyright: ignore
    step = 1e-4
    change = (basis(found + step)[:, 1] - basis(found - step)[:, 1]) / (2 * step)
    # A time found from few looks is uncertain: its change takes part in the prediction like a weight.
    return np.column_stack([basis(found), change])


def _block_score(basis: np.ndarray, z: np.ndarray, new: np.ndarray, at: np.ndarray, wide: float) -> float:
    """Return the log density of a block, given the other looks, with a wide normal prior of the weights."""
    freedom = len(z) - basis.shape[1]
    # Looks of one half of a curve may not determine every weight; the prior keeps its prediction finite.
    rest = z - basis @ (np.linalg.pinv(basis, rcond=1e-10) @ z)
    variance = max(float(rest @ rest) / freedom, 1e-20 * wide**2)
    inverse = np.linalg.inv(basis.T @ basis + variance / wide**2 * np.eye(basis.shape[1]))
    centre = new @ (inverse @ (basis.T @ z))
    scale = np.sqrt(variance * (1 + np.einsum("ti,ij,tj->t", new, inverse, new)))
    return float(stats.t.logpdf((at - centre) / scale, freedom).sum() - np.log(scale).sum())
