"""Invert the sampling law of a statistic of eigenvalues along a family of populations.

The family is a population tilted by j^−δ. No population is flatter than one of equal eigenvalues: RankMe and the
participation ratio fall again beyond it, and the window exponent of sorted eigenvalues rises. The family ends there.
Close to that end the sample does not respond to a tilt in proportion, and a parabola would follow the mirror image;
the law is then simulated on a grid of exponents from 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy

from spectra.finite_sample import sample_eigenvalues
from spectra.tails import Statistic

# Largest tilt that is searched.
STEEPEST = 4.0
GRID = 8
WIDER = 1.5


@dataclass(frozen=True)
class Setting:
    """Hold the size of the data and the simulation budget, shared by every step."""

    freedom: int
    d: int
    draws: int
    rng: np.random.Generator

    def simulate(self, population: np.ndarray, draws: int | None = None) -> np.ndarray:
        """Return eigenvalues of samples, (draws, r)."""
        return sample_eigenvalues(population, self.freedom, self.rng, draws or self.draws)

    def power_law(self, alpha: float) -> np.ndarray:
        """Return the population j^−α, (d,)."""
        return np.arange(1, self.d + 1, dtype=float) ** -alpha


@dataclass(frozen=True)
class Inverted:
    """Hold the population statistic at both ends and in the middle, and how it was found.

    Attributes:
        low, median, high: the population statistic.
        details: raw, bias_sd, sensitivity.
        near_flat: whether equal eigenvalues, or nearly equal ones, were simulated and not extrapolated to.
        reason: why the interval cannot be relied on; empty where it can.
    """

    low: float
    median: float
    high: float
    details: dict[str, float]
    near_flat: bool = False
    reason: str = ""


def invert(
    observed: float,
    statistic: Statistic,
    population: np.ndarray,
    base: np.ndarray,
    setting: Setting,
    kappa: float,
    level: float,
    alpha: float | None = None,
) -> Inverted:
    """Find the populations of the tilted family that produce the observed statistic at three quantiles.

    Args:
        observed: the statistic of the sample.
        statistic: function of eigenvalues, without a scale.
        population: (d,) eigenvalues that the family tilts, falling.
        base: (draws, r) sample eigenvalues of this population.
        setting: of the simulations.
        kappa: variance of the statistic over that of the simulated rows.
        level: coverage of the interval.
        alpha: exponent of the population where it is a power law.
    """
    slope = _slope(statistic, population, setting)
    spread = float(statistic(base).std(ddof=1))
    reach = min(max(2.0 * spread / max(abs(slope), 1e-12), 1e-3), 0.5)
    # An exponent has the same slope everywhere; it is cut off at equal eigenvalues.
    falls = bool(statistic(setting.power_law(0.0)) > statistic(setting.power_law(1.0)))
    if alpha is not None and falls and alpha < reach:
        return _from_flat(observed, statistic, setting, kappa, level)
    deltas = np.array([-reach, 0.0, reach])
    samples = [statistic(setting.simulate(population * setting.power_law(delta))) for delta in deltas]
    samples[1] = np.concatenate([samples[1], statistic(base)])
    means = np.array([s.mean() for s in samples])
    sd = math.sqrt(float(np.mean([s.var(ddof=1) for s in samples])))
    # The spread changes along the family too: each end of the interval uses its own spread.
    widening = float(samples[2].std(ddof=1) - samples[0].std(ddof=1)) / (2 * reach)
    rate = float((means[2] - means[0]) / (2 * reach))
    bend = float((means[2] - 2 * means[1] + means[0]) / (2 * reach**2))
    # Means and spread come from finitely many draws: Student's quantile, and the error of a mean on top.
    quantile = _quantile(level, 4 * setting.draws - 4, setting.draws) * math.sqrt(kappa)
    tilts, stopped = [], False
    for z in (-quantile, 0.0, quantile):
        target, tilted_rate = observed + z * sd, rate - z * widening
        delta = (target - means[1]) / tilted_rate if tilted_rate else -STEEPEST
        # The family's mean bends a little over an interval; three Newton steps on its parabola follow it.
        for _ in range(3):
            gradient = tilted_rate + 2 * bend * delta
            if gradient * rate <= 0.25 * rate**2:
                stopped |= delta < 0
                break
            delta -= (means[1] + tilted_rate * delta + bend * delta**2 - target) / gradient
        tilts.append(delta)
    # Towards equal eigenvalues the mean levels off, which the parabola does not know well.
    if alpha is not None and falls and (stopped or min(tilts) < -alpha / 2):
        return _from_flat(observed, statistic, setting, kappa, level)
    flattest = -alpha if alpha is not None else _flattest(statistic, population, setting)
    tilted = (
        setting.power_law(min(delta, STEEPEST)) * population if delta > flattest else setting.power_law(0.0)
        for delta in tilts
    )
    ends = [float(statistic(one)) for one in tilted]
    details = {
        "raw": observed,
        "bias_sd": (observed - ends[1]) / (sd * math.sqrt(kappa)),
        "sensitivity": rate / slope if abs(slope) > 1e-9 else 0.0,
    }
    return Inverted(min(ends), ends[1], max(ends), details)


def _slope(statistic: Statistic, population: np.ndarray, setting: Setting, at: float = 0.0) -> float:
    """Return the derivative of the population statistic with respect to the tilt."""
    up, down = (float(statistic(population * setting.power_law(at + step))) for step in (1e-3, -1e-3))
    return (up - down) / 2e-3


def _flattest(statistic: Statistic, population: np.ndarray, setting: Setting) -> float:
    """Return the tilt beyond which a falling statistic falls again, or a rising one is below that of equal eigenvalues.

    What is flatter counts as equal eigenvalues, which are in the family only where the population is a power law.
    """
    flat = float(statistic(setting.power_law(0.0)))
    steep = float(statistic(setting.power_law(1.0)))

    def beyond(delta: float) -> bool:
        if steep > flat:
            return float(statistic(population * setting.power_law(delta))) < flat
        return _slope(statistic, population, setting, delta) > 0

    low, high = -STEEPEST, 0.0
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (middle, high) if beyond(middle) else (low, middle)
    return high


def _quantile(level: float, freedom: int, draws: int) -> float:
    """Return Student's quantile for one draw more beside so many."""
    return float(scipy.stats.t.ppf((1 + level) / 2, freedom)) * math.sqrt(1 + 1 / draws)


def _from_flat(
    observed: float, statistic: Statistic, setting: Setting, kappa: float, level: float
) -> Inverted:
    """Invert along the power laws from equal eigenvalues on, each simulated with the same random numbers.

    RankMe and the participation ratio fall short of their largest value by about a squared length (noncentral χ²),
    whose cube root is closest to normal.
    """
    flat = float(statistic(setting.power_law(0.0)))
    seed = int(setting.rng.integers(2**62))

    def normal(values: np.ndarray) -> np.ndarray:
        return np.cbrt(np.maximum(flat - values, 0.0))

    def truth(alpha: float) -> float:
        return float(statistic(setting.power_law(alpha)))

    def sample(alpha: float) -> np.ndarray:
        own = sample_eigenvalues(
            setting.power_law(alpha), setting.freedom, np.random.default_rng(seed), setting.draws
        )
        return statistic(own)

    own = float(normal(np.array(observed)))
    quantile = _quantile(level, setting.draws - 1, setting.draws) * math.sqrt(kappa)
    first = normal(sample(0.0))
    target = max(own, float(first.mean())) + 2.0 * float(first.std(ddof=1))
    longest = _root(lambda alpha: float(normal(np.array(truth(alpha)))) - target, STEEPEST)
    while longest < STEEPEST:
        last = normal(sample(longest))
        if last.mean() - quantile * last.std(ddof=1) > own:
            break
        longest = min(WIDER * longest, STEEPEST)
    grid = np.linspace(0.0, longest, GRID)
    samples = np.stack([sample(alpha) for alpha in grid])
    values = normal(samples)
    centre, plain = (scipy.interpolate.PchipInterpolator(grid, v.mean(axis=1)) for v in (values, samples))
    spread = scipy.interpolate.PchipInterpolator(grid, values.std(axis=1, ddof=1))
    alphas = [
        _root(lambda alpha, z=z: float(centre(alpha) + z * spread(alpha)) - own, longest)
        for z in (quantile, 0.0, -quantile)
    ]
    ends = [truth(alpha) for alpha in alphas]
    sd = float(np.interp(alphas[1], grid, samples.std(axis=1, ddof=1)))
    # The response over the whole interval: at equal eigenvalues both derivatives are zero.
    wide = alphas[2] if alphas[2] > alphas[0] else longest
    response = float(plain(wide) - plain(alphas[0])) / (truth(wide) - truth(alphas[0]))
    details = {
        "raw": observed,
        "bias_sd": (observed - ends[1]) / (sd * math.sqrt(kappa)),
        "sensitivity": response,
    }
    reason = (
        "" if alphas[2] > 0 else "the sample is closer to equal eigenvalues than chance leaves any population"
    )
    return Inverted(min(ends), ends[1], max(ends), details, True, reason)


def _root(rising: Callable[[float], float], longest: float) -> float:
    """Return where a rising function is 0, or the end of [0, longest] nearest to it."""
    if rising(0.0) >= 0:
        return 0.0
    if rising(longest) <= 0:
        return longest
    return float(scipy.optimize.brentq(rising, 0.0, longest, xtol=1e-9))
