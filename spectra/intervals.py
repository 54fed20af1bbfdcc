"""Correct the bias of sample eigenvalues in functions of a spectrum, with intervals.

A percentile bootstrap of eigenvalues resamples the bias along with the spread: repeated rows push the head
up a second time, and the interval moves away from the truth. Here a power-law population λ_j = j^−α is
matched to the whole observed spectrum by simulation, checked against it, and then tilted (λ_j·j^−δ) until
the simulated statistic would have produced the observed one at the 2.5 %, 50 % and 97.5 % points: test
inversion along one family, which ends at equal eigenvalues (`inversion`). Rows need not be Gaussian: how much more
they vary is taken from the data, over sequences or runs where rows are not independent, and the simulation uses so
many fewer rows.
"""

from __future__ import annotations

import math

import numpy as np
import scipy

from spectra.arrays import Numbers, real, require_generator, to_float64, unit_of, whole
from spectra.covariance import covariance_spectrum, precision_of
from spectra.errors import InputError
from spectra.groups import Labels, group_codes
from spectra.inversion import Inverted, Setting, invert
from spectra.results import Estimate
from spectra.spectrum import Spectrum
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
        draws: simulated samples per point of the family; about five times as many eigenvalue problems in all, and
            fifteen times where RankMe or the participation ratio are close to their largest values.

    Returns:
        Estimate: the corrected α (median-unbiased along the family), interval, and details ``raw`` (the
        uncorrected α), ``bias_sd`` (finite-sample bias in standard deviations), ``sensitivity``, ``fit_p``
        (of the power-law population), ``kappa`` (variance of the statistic over that with Gaussian rows),
        ``n_over_d``, ``population_alpha``. "flagged" when |bias| exceeds two standard deviations (not close to
        equal eigenvalues, which are simulated and whose bias depends on the population least), when the
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
    if reason := _unfit(spectrum, window):
        return Estimate.not_fitted(reason, n_over_d=n / d)
    energies = spectrum.energies[: spectrum.max_rank]
    freedom = n - 1 if center else n
    kappa = spread_ratio(data - data.mean(0) if center else data, energies, statistic, codes)
    # This number of Gaussian rows would have the same spread, and to first order the same bias.
    alike = freedom / kappa
    effective = round(max(alike, min(freedom, d + 1)))
    setting = Setting(effective, d, draws, rng)
    alpha = _match_power_law(energies, setting)
    population = setting.power_law(alpha)
    base = setting.simulate(population)
    fit_p = _fit_p_value(energies, base)
    smoothed = fit_p < FIT_LEVEL and len(energies) == d
    if smoothed:
        population = _smooth_population(energies, setting)
        base = setting.simulate(population)
    widening = kappa * effective / freedom
    found = invert(
        *(float(statistic(energies)), statistic, population, base, setting, widening, level),
        None if smoothed else alpha,
    )
    details = {**found.details, "kappa": kappa, "fit_p": fit_p, "population_alpha": alpha, "n_over_d": n / d}
    reason = "; ".join(filter(None, (_doubt(found, fit_p, n, d), _too_few(kappa, alike, n, d))))
    status = "flagged" if reason else "ok"
    return Estimate(found.median, found.low, found.high, status, reason, details)


def _unfit(spectrum: Spectrum, window: tuple[int, int] | None) -> str:
    """Say why a spectrum has no interval; empty where it has one."""
    if window is not None and (reason := misfit_reason(spectrum, *window)):
        return reason
    if spectrum.d == 1:
        return "of one dimension the statistic is always 1, whatever the data"
    energies = spectrum.energies[: spectrum.max_rank]
    if energies[-1] > 0.0:
        return ""
    return (
        f"the sample covariance has rank {np.count_nonzero(energies)} of {len(energies)}; the population family has "
        "full rank: drop the directions without variation first"
    )


def _match_power_law(energies: np.ndarray, setting: Setting) -> float:
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


def _smooth_population(energies: np.ndarray, setting: Setting) -> np.ndarray:
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


def _doubt(found: Inverted, fit_p: float, n: int, d: int) -> str:
    reasons = [found.reason] if found.reason else []
    bias = abs(found.details["bias_sd"])
    # Close to equal eigenvalues, bias is most of what the sample falls short, whatever the population.
    if bias > BIAS_LIMIT and not found.near_flat:
        reasons.append(f"finite-sample bias rules: it is {bias:.1f} standard deviations at n/d = {n / d:.3g}")
    share = found.details["sensitivity"]
    if abs(share) < SENSITIVITY_LIMIT:
        reasons.append(f"the sample shows only {share:.0%} of a change in the population")
    if n <= d:
        reasons.append(f"n = {n} does not exceed d = {d}: part of the population's spectrum is never seen")
    if fit_p < FIT_LEVEL:
        reasons.append(
            f"a power-law population is rejected (p = {fit_p:.2g}); a smoothed spectrum took its place, which nothing "
            "checks"
        )
    return "; ".join(reasons)


def _too_few(kappa: float, alike: float, n: int, d: int) -> str:
    """Say that heavy tails or clusters leave too few rows; empty where they do not."""
    if kappa <= 1.0 or alike >= RESOLVED_RATIO * d:
        return ""
    return (
        f"the rows vary {kappa:.2g} times as much as independent Gaussian ones: {n} of them are worth {alike:.0f}, "
        f"too few for d = {d}"
    )


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
    value, low, high = (_whole(math.exp(end)) for end in (estimate.value, estimate.low, estimate.high))
    return Estimate(value, low, high, estimate.status, estimate.reason, details)


def _whole(number: float) -> float:
    """Return a number without the rounding beside a whole one: d equal eigenvalues count as d."""
    return float(round(number)) if abs(number - np.rint(number)) <= 1e-12 * number else number
