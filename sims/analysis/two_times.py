"""Ask whether the layers of a type of matrix share two times of relaxation, a fast and a slow one.

Layers of which each has one time, but not the same, seem to share two, and so do curves of one shape that is no
exponential. Two times are therefore compared not only with one shared time, but also with one of each curve's own, and
with one that is stretched, e^{−(t/τ)^β}.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np

from sims.analysis.fronts import over_schedules
from sims.analysis.timescale_gain import OWN, Gain, held_out_gain
from sims.analysis.timescales import (
    ONE,
    STRETCHED,
    TWO,
    Curves,
    best_clock,
    checked_curves,
    grid_losses,
    refined_clock,
    time_limits,
)
from sims.analysis.verdicts import Verdict
from sims.system.errors import MeasureError
from theory.decision import side

RESAMPLES = 199
# Two times are two if they are this factor apart.
TWICE = 2.0


@dataclass(frozen=True)
class TwoTimes:
    """Hold whether curves need two times.

    Attributes:
        layers, seeds: how many there are.
        fast, slow: the times of the model with two of them, in units of the given time.
        ratio, low, high: τ_slow/τ_fast with its 95 % interval over resampled layers (of eight, it covers the true ratio
            in 88 to 93 % of draws).
        only: the time of the model with one.
        correlation: of what two times leave, from one look to the next.
        bounded: whether τ_slow is at the longest that is searched, four times the training.
        layers_gain: `Gain` of two times over one on layers that are left out.
        own_gain: the same over one time of each curve's own.
        stretched_gain: the same over one shared time that is stretched.
        seeds_gain: that over one time on seeds that are left out.
    """

    layers: int
    seeds: int
    fast: float
    slow: float
    ratio: float
    low: float
    high: float
    only: float
    correlation: float
    bounded: bool
    layers_gain: Gain
    own_gain: Gain
    stretched_gain: Gain
    seeds_gain: Gain

    @property
    def gains(self) -> dict[str, Gain]:
        """Return the gains by the name of what two times are compared on or with."""
        return {
            "layers": self.layers_gain,
            "own": self.own_gain,
            "stretched": self.stretched_gain,
            "seeds": self.seeds_gain,
        }

    @property
    def reason(self) -> str:
        """Return why the rule cannot be applied; empty where it can."""
        for name, gain in (("layers", self.layers_gain), ("seeds", self.seeds_gain)):
            if gain.status != "ok":
                return f"{name} left out: {gain.reason}"
        return ""

    @property
    def two(self) -> bool:
        """Return whether all gains are above two standard errors, and the interval of the ratio above 2."""
        return all(gain.positive for gain in self.gains.values()) and side(self.low, self.high, TWICE) > 0

    @property
    def sentence(self) -> str:
        """Return the result as one sentence."""
        if self.reason:
            return f"Not resolved ({self.reason})."
        gains = (
            f"two times gain {self.layers_gain.gain:.3g} ± {self.layers_gain.error:.2g} nats on other layers "
            f"({self.own_gain.gain:.3g} ± {self.own_gain.error:.2g} over one time of each layer's own, "
            f"{self.stretched_gain.gain:.3g} ± {self.stretched_gain.error:.2g} over a stretched one), "
            f"{self.seeds_gain.gain:.3g} ± {self.seeds_gain.error:.2g} on other seeds"
        )
        long = ", at the longest that is searched" if self.bounded else ""
        return (
            f"τ = {self.fast:.3g} and {self.slow:.3g}{long}, ratio {self.ratio:.3g} [{self.low:.3g}, {self.high:.3g}]; "
            f"{gains}."
        )

    def row(self) -> dict[str, object]:
        """Return the numbers and the sentence as a row of a table."""
        fields = {k: v for k, v in asdict(self).items() if not k.endswith("_gain")}
        gains = {f"{name}_gain": gain.gain for name, gain in self.gains.items()}
        gains |= {f"{name}_error": gain.error for name, gain in self.gains.items()}
        return {**fields, **gains, "two": self.two, "reason": self.reason, "sentence": self.sentence}


def two_timescales(
    times: np.ndarray, values: np.ndarray, *, resamples: int = RESAMPLES, seed: int = 0
) -> TwoTimes:
    """Compare two times with one on layers and on seeds that are left out.

    Args:
        times: (looks,) rising; the sum of learning rates.
        values: (seeds, looks, layers), such as ln stable ranks of one type of matrix.
        resamples: of layers, for the interval of the ratio.
        seed: of the resamples.

    Raises:
        MeasureError: as of `fit_timescales`, or fewer than 19 resamples.
    """
    curves = checked_curves(times, values)
    if resamples < 19:
        raise MeasureError(f"resamples is {resamples}; an interval needs at least 19")
    clock, only = best_clock(curves, TWO), best_clock(curves, ONE)
    layers, _, seeds = curves.values.shape
    low, high = _ratio_interval(curves, resamples, np.random.default_rng(seed))
    fast, slow = math.exp(clock.log_fast), math.exp(clock.log_slow or 0.0)
    longest = time_limits(curves.times)[1]
    return TwoTimes(
        *(layers, seeds, fast, slow, slow / fast, min(low, slow / fast), max(high, slow / fast)),
        *(math.exp(only.log_fast), clock.correlation, (clock.log_slow or 0.0) > longest - 1e-3),
        layers_gain=held_out_gain(times, values),
        own_gain=held_out_gain(times, values, OWN),
        stretched_gain=held_out_gain(times, values, STRETCHED),
        seeds_gain=held_out_gain(times, values, unseen="seeds"),
    )


def timescales_verdict(found: Mapping[str, TwoTimes]) -> Verdict:
    """Say whether compression has two times.

    Shown if under two schedules of the learning rate the gain on layers left out (over one shared time, one of each
    curve's own, and a stretched one) and on seeds left out is above two standard errors, and the 95 % interval of
    τ_slow/τ_fast lies above 2, in sums of learning rates.

    Args:
        found: by schedule.
    """
    claim = "Compression has a fast and a slow time"
    told = [f"{name}: {one.sentence.rstrip('.')}" for name, one in found.items() if not one.reason]
    missing = [f"{name}: {one.reason}" for name, one in found.items() if one.reason]
    return over_schedules(claim, [name for name, one in found.items() if one.two], told, missing)


def _ratio_interval(curves: Curves, resamples: int, generator: np.random.Generator) -> tuple[float, float]:
    """Return the 95 % percentile interval of τ_slow/τ_fast over resampled layers."""
    clocks, losses = grid_losses(curves, TWO)
    layers = losses.shape[1]
    ratios = []
    for _ in range(resamples):
        chosen = generator.integers(layers, size=layers)
        start = clocks[int(losses[:, chosen].sum(axis=1).argmin())]
        clock = refined_clock(start, curves.of(chosen))
        ratios.append(math.exp((clock.log_slow or 0.0) - clock.log_fast))
    low, high = np.quantile(ratios, [0.025, 0.975])
    return float(low), float(high)
