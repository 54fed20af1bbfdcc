"""Correct the bias of sample eigenvalues in functions of a spectrum, with intervals.

A percentile bootstrap of eigenvalues resamples the bias along with the spread: repeated rows push the head
up a second time, and the interval moves away from the truth. Here a power-law population λ_j = j^−α is
matched to the whole observed spectrum by simulation, checked against it, and then tilted (λ_j·j^−δ) until
the simulated statistic would have produced the observed one at the 2.5 %, 50 % and 97.5 % points: test
inversion along one family. Rows need not be Gaussian: how much more they vary is taken from the
data, over sequences or runs where rows are not independent, and the simulation uses so many fewer rows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import scipy

from spectra.arrays import Numbers, real, require_generator, to_float64, unit_of, whole
from spectra.covariance import covariance_spectrum, precision_of
from spectra.errors import InputError
from spectra.finite_sample import sample_eigenvalues
from spectra.groups import Labels, group_codes
from spectra.results import Estimate
from spectra.tails import Statistic, spread_ratio
from spectra.windows import check_window, misfit_reason, slope_weights

# Beyond two standard deviations of bias the raw value lies outside the interval of the corrected one.
BIAS_LIMIT = 2.0
# Below this ratio of change in the sample statistic to change in the population, inversion extrapolates.
SENSITIVITY_LIMIT = 0.6
FIT_LEVEL = 0.01
# Below two equivalent Gaussian rows per dimension, the correction of heavy tails or clusters is too uncertain.
RESOLVED_RATIO = 2.0
KNOT_RATIO = 1.6


def window_exponent_interval(
    x: Numbers,
    lo: int,
    hi: int,
    rng: np.random.Generator,
    *,
    groups: Labels | None = None,
    center: bool = True,
    level: float = 0.95,
    draws: int = 100,
    precision: float | None = None,
) -> Estimate:
    """Estimate a bias-corrected window exponent with an interval over samples.

    α over ranks lo–hi of the covariance of x.

    Args:
        x: (n, d) samples.
        lo, hi: window of ranks (1-based, inclusive).
        rng: generator of the simulations.
        groups: (n,) labels of the units that were sampled independently (sequences, runs, seeds), or None
            when each row is one.
        center, precision: as in `covariance_spectrum`.
        level: coverage of the interval.
        draws: simulated samples per point of the family; about five times as many eigenvalue problems in all.

    Returns:
        Estimate: the corrected α (median-unbiased along the family), interval, and details ``raw`` (the
        uncorrected α), ``bias_sd`` (finite-sample bias in standard deviations), ``sensitivity``, ``fit_p``
        (of the power-law population), ``kappa`` (variance of the statistic over that with Gaussian rows),
        ``n_over_d``, ``population_alpha``. "flagged" when |bias| exceeds two standard deviations, when the
        statistic hardly responds to the population, when heavy tails or clusters reduce the rows to fewer than 2d
        equivalent Gaussian ones, when n ≤ d, or when a power-law population is rejected at 1 %
        (a smoothed version of the observed spectrum then replaces it, but it cannot represent equal or stepped
        eigenvalues, and its interval can miss). "not fitted" as in `window_exponent`.

    Raises:
        InputError: what `covariance_spectrum` rejects, a window of fewer than three ranks, groups of the wrong length
            or fewer than ten of them, level outside (0, 1), fewer than 20 draws.

    >>> x = np.random.default_rng(0).standard_normal((400, 6)) * np.arange(1, 7) ** -0.5
    >>> found = window_exponent_interval(x, 1, 6, np.random.default_rng(1), draws=20)
    >>> found.low < 1.0 < found.high
    True
    """
    lo, hi = check_window(lo, hi)
    coefficients = slope_weights(lo, hi)

    def alpha(energies: np.ndarray) -> np.ndarray:
        return np.log(energies[..., lo - 1 : hi]) @ coefficients

    return _interval(x, alpha, rng, groups, center, level, draws, precision, window=(lo, hi))


def rankme_interval(
    x: Numbers,
    rng: np.random.Generator,
    *,
    groups: Labels | None = None,
    center: bool = True,
    level: float = 0.95,
    draws: int = 100,
    precision: float | None = None,
) -> Estimate:
    """Estimate bias-corrected RankMe with an interval over samples.

    On the energies of the covariance of x.

    Arguments, details and flags as in `window_exponent_interval`; ``raw`` is RankMe of the sample.

    Raises:
        InputError: as in `window_exponent_interval`.

    >>> x = np.random.default_rng(0).standard_normal((400, 6)) * np.arange(1, 7) ** -0.5
    >>> found = rankme_interval(x, np.random.default_rng(1), draws=20)
    >>> 1 < found.low < found.value < found.high < 6
    True
    """
    return _exp(_interval(x, _entropy, rng, groups, center, level, draws, precision))


def participation_ratio_interval(
    x: Numbers,
    rng: np.random.Generator,
    *,
    groups: Labels | None = None,
    center: bool = True,
    level: float = 0.95,
    draws: int = 100,
    precision: float | None = None,
) -> Estimate:
    """Estimate a bias-corrected participation ratio with an interval over samples.

    Of the covariance of x.

    Arguments, details and flags as in `window_exponent_interval`; ``raw`` is the ratio of the sample.

    Raises:
        InputError: as in `window_exponent_interval`.

    >>> x = np.random.default_rng(0).standard_normal((400, 6)) * np.arange(1, 7) ** -0.5
    >>> found = participation_ratio_interval(x, np.random.default_rng(1), draws=20)
    >>> 1 < found.low < found.value < found.high < 6
    True
    """
    return _exp(_interval(x, _log_participation, rng, groups, center, level, draws, precision))


@dataclass(frozen=True)
class _Setting:
    """The size of the data and the simulation budget, shared by every step."""

    freedom: int
    d: int
    draws: int
    rng: np.random.Generator

    def simulate(self, population: np.ndarray, draws: int | None = None) -> np.ndarray:
        return sample_eigenvalues(population, self.freedom, self.rng, draws or self.draws)

    def power_law(self, alpha: float) -> np.ndarray:
        return np.arange(1, self.d + 1, dtype=float) ** -alpha


def _checked(level: float, draws: int) -> tuple[float, int]:
    level, draws = real(level, "level"), whole(draws, "draws")
    if not 0 < level < 1:
        raise InputError(f"level is {level}; a coverage lies strictly between 0 and 1")
    if draws < 20:
        raise InputError(f"draws is {draws}; fewer than 20 give no standard deviation to speak of")
    return level, draws


def _interval(
    x: Numbers,
    statistic: Statistic,
    rng: np.random.Generator,
    groups: Labels | None,
    center: bool,
    level: float,
    draws: int,
    precision: float | None,
    window: tuple[int, int] | None = None,
) -> Estimate:
    data = to_float64(x, name="x", ndim=2)
    level, draws = _checked(level, draws)
    require_generator(rng)
    # The statistics have no scale: exact division keeps the energies within float64.
    data = data / unit_of(data)
    spectrum = covariance_spectrum(data, center, precision=precision_of(x, precision))
    codes = group_codes(groups, len(data), least=10)
    n, d = data.shape
    if window is not None:
        reason = misfit_reason(spectrum, *window)
        if reason:
            return Estimate.not_fitted(reason, n_over_d=n / d)
    if d == 1:
        return Estimate.not_fitted(
            "of one dimension the statistic is always 1, whatever the data", n_over_d=n
        )
    energies = spectrum.energies[: spectrum.max_rank]
    if energies[-1] <= 0.0:
        return Estimate.not_fitted(
            f"the sample covariance has rank {np.count_nonzero(energies)} of {len(energies)}; the population family "
            "has full rank: drop the directions without variation first",
            n_over_d=n / d,
        )
    freedom = n - 1 if center else n
    kappa = spread_ratio(data - data.mean(0) if center else data, energies, statistic, codes)
    # This number of Gaussian rows would have the same spread, and to first order the same bias.
    alike = freedom / kappa
    effective = round(max(alike, min(freedom, d + 1)))
    setting = _Setting(effective, d, draws, rng)
    alpha = _match_power_law(energies, setting)
    population = setting.power_law(alpha)
    base = setting.simulate(population)
    fit_p = _fit_p_value(energies, base)
    if fit_p < FIT_LEVEL and len(energies) == d:
        population = _smooth_population(energies, setting)
        base = setting.simulate(population)
    widening = kappa * effective / freedom
    solved = _invert(float(statistic(energies)), statistic, population, base, setting, widening, level)
    details = {**solved[1], "kappa": kappa, "fit_p": fit_p, "population_alpha": alpha, "n_over_d": n / d}
    reason = _doubt(solved[1], fit_p, n, d)
    if kappa > 1.0 and alike < RESOLVED_RATIO * d:
        too_few = (
            f"the rows vary {kappa:.2g} times as much as independent Gaussian ones: {n} of them are worth {alike:.0f}, "
            f"too few for d = {d}"
        )
        reason = "; ".join(part for part in (reason, too_few) if part)
    low, value, high = solved[0]
    return Estimate(value, low, high, "flagged" if reason else "ok", reason, details)


def _match_power_law(energies: np.ndarray, setting: _Setting) -> float:
    """Find the α whose simulated spectra have the observed 1/j-weighted slope.

    Over all ranks but the last tenth, which is the noisiest.
    """
    last = max(int(0.9 * len(energies)), 3) if len(energies) > 3 else len(energies)
    coefficients = slope_weights(1, last, octave=True)
    observed = float(np.log(energies[:last]) @ coefficients)
    budget = max(setting.draws // 4, 10)
    alpha = max(observed, 0.0)
    for _ in range(4):
        reading = np.log(setting.simulate(setting.power_law(alpha), budget)[:, :last]) @ coefficients
        # The reading rises with α at a rate near one wherever the ranks are resolved, so plain steps
        # converge.
        alpha = min(max(alpha + observed - float(reading.mean()), 0.0), 12.0)
    return alpha


def _fit_p_value(energies: np.ndarray, simulated: np.ndarray) -> float:
    """Return the Monte-Carlo p-value of the observed spectrum's shape.

    The shape is the log spectrum averaged over blocks of ranks a constant ratio apart, without its level; the
    distance from the simulated spectra is Mahalanobis'.
    """
    edges = _block_edges(len(energies))
    widths = np.diff(edges)

    def shape(values: np.ndarray) -> np.ndarray:
        blocks = np.add.reduceat(np.log(values), edges[:-1], axis=-1) / widths
        return blocks[..., 1:] - blocks[..., :1]

    reference = shape(simulated)
    if reference.shape[1] == 0:
        return 1.0
    mean = reference.mean(0)
    precision = np.linalg.pinv(np.atleast_2d(np.cov(reference.T)))

    def distance(rows: np.ndarray) -> np.ndarray:
        return np.einsum("ri,ij,rj->r", rows - mean, precision, rows - mean)

    own = float(distance(shape(energies)[None])[0])
    # The mean and covariance come from the reference draws, not from the observation: hence Hotelling's T² law.
    draws, size = reference.shape
    if draws <= size + 1:
        return float((1 + np.count_nonzero(distance(reference) >= own)) / (1 + draws))
    scaled = own * draws * (draws - size) / (size * (draws - 1) * (draws + 1))
    return float(scipy.stats.f.sf(scaled, size, draws - size))


def _smooth_population(energies: np.ndarray, setting: _Setting) -> np.ndarray:
    """Find a population whose simulated log spectrum matches the observed one, both smoothed over blocks of ranks.

    Single ranks cannot be inverted, because neighbouring eigenvalues repel each other. A piecewise linear function of
    ln j, with a knot at each of the first ranks and ever fewer after them, keeps what n samples can resolve.
    """
    ranks = np.log(np.arange(1, len(energies) + 1))
    knots = np.log(np.array(_block_edges(len(energies))[1:], dtype=float))
    hats = np.stack([np.interp(ranks, knots, unit) for unit in np.eye(len(knots))], axis=1)
    smooth = hats @ np.linalg.pinv(hats)
    target = smooth @ np.log(energies)
    logs = target.copy()
    for _ in range(2):
        reading = np.log(setting.simulate(np.exp(logs), max(setting.draws // 2, 20))).mean(axis=0)
        logs = np.sort(logs + target - smooth @ reading)[::-1]
    return np.exp(logs)


def _block_edges(size: int) -> list[int]:
    """Return 0 and the last ranks of blocks that grow by a constant ratio, single ranks first."""
    edges = [0]
    while edges[-1] < size:
        edges.append(min(max(edges[-1] + 1, math.ceil(edges[-1] * KNOT_RATIO)), size))
    return edges


def _invert(
    observed: float,
    statistic: Statistic,
    population: np.ndarray,
    base: np.ndarray,
    setting: _Setting,
    kappa: float,
    level: float,
) -> tuple[tuple[float, float, float], dict[str, float]]:
    """Return (low, median, high) of the population statistic along the tilted family, and details."""

    def tilted(delta: float) -> np.ndarray:
        return population * setting.power_law(delta)

    def truth(delta: float) -> float:
        return float(statistic(tilted(delta)))

    spread = float(statistic(base).std(ddof=1))
    slope = (truth(1e-3) - truth(-1e-3)) / 2e-3
    reach = min(max(2.0 * spread / max(abs(slope), 1e-12), 1e-3), 0.5)
    deltas = np.array([-reach, 0.0, reach])
    samples = [statistic(setting.simulate(tilted(delta))) for delta in deltas]
    samples[1] = np.concatenate([samples[1], statistic(base)])
    means = np.array([s.mean() for s in samples])
    sd = math.sqrt(float(np.mean([s.var(ddof=1) for s in samples])))
    # The spread changes along the family too: each end of the interval uses its own spread.
    widening = float(samples[2].std(ddof=1) - samples[0].std(ddof=1)) / (2 * reach)
    rate = float((means[2] - means[0]) / (2 * reach))
    bend = float((means[2] - 2 * means[1] + means[0]) / (2 * reach**2))
    # Means and spread come from finitely many draws: Student's quantile, and the error of a mean on top.
    quantile = float(scipy.stats.t.ppf((1 + level) / 2, 4 * setting.draws - 4)) * math.sqrt(
        1 + 1 / setting.draws
    )
    ends = []
    for z in (-quantile * math.sqrt(kappa), 0.0, quantile * math.sqrt(kappa)):
        target, tilted_rate = observed + z * sd, rate - z * widening
        delta = (target - means[1]) / tilted_rate
        # The family's mean bends a little over an interval; three Newton steps on its parabola follow it.
        for _ in range(3):
            gradient = tilted_rate + 2 * bend * delta
            if gradient * rate <= 0.25 * rate**2:
                break
            delta -= (means[1] + tilted_rate * delta + bend * delta**2 - target) / gradient
        ends.append(truth(min(max(delta, -4.0), 4.0)))
    details = {
        "raw": observed,
        "bias_sd": (observed - ends[1]) / (sd * math.sqrt(kappa)),
        "sensitivity": rate / slope,
    }
    return (min(ends), ends[1], max(ends)), details


def _doubt(solved: dict[str, float], fit_p: float, n: int, d: int) -> str:
    reasons = []
    bias = abs(solved["bias_sd"])
    if bias > BIAS_LIMIT:
        reasons.append(f"finite-sample bias rules: it is {bias:.1f} standard deviations at n/d = {n / d:.3g}")
    if abs(solved["sensitivity"]) < SENSITIVITY_LIMIT:
        reasons.append(f"the sample shows only {solved['sensitivity']:.0%} of a change in the population")
    if n <= d:
        reasons.append(f"n = {n} does not exceed d = {d}: part of the population's spectrum is never seen")
    if fit_p < FIT_LEVEL:
        reasons.append(
            f"a power-law population is rejected (p = {fit_p:.2g}); a smoothed spectrum took its place, which nothing "
            "checks"
        )
    return "; ".join(reasons)


def _entropy(energies: np.ndarray) -> np.ndarray:
    shares = energies / energies.sum(axis=-1, keepdims=True)
    return scipy.special.entr(shares).sum(axis=-1)


def _log_participation(energies: np.ndarray) -> np.ndarray:
    shares = energies / energies.sum(axis=-1, keepdims=True)
    return -np.log((shares**2).sum(axis=-1))


def _exp(estimate: Estimate) -> Estimate:
    """Convert an estimate of a logarithm, whose distribution is closer to normal, back to the original scale."""
    details = dict(estimate.details)
    if "raw" in details:
        details["raw"] = math.exp(details["raw"])
    return Estimate(
        math.exp(estimate.value),
        math.exp(estimate.low),
        math.exp(estimate.high),
        estimate.status,
        estimate.reason,
        details,
    )
