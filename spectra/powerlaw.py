"""Estimate density exponents p(λ) ∝ λ^−β: Hill and Clauset–Shalizi–Newman.

These treat energies as a sample from a heavy tail. The decay of a spectrum with rank is another quantity (see
`exponents`; for a pure power law β = 1 + 1/α). Standard errors and tests assume independent values;
eigenvalues repel each other, so for spectra the errors are somewhat too wide and the tests conservative.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import scipy

from spectra.arrays import (
    flag,
    real,
    to_float64,
    whole,
)
from spectra.covariance import precision_of
from spectra.errors import InputError
from spectra.results import Estimate
from spectra.spectrum import Spectrum, SpectrumLike
from spectra.tail_laws import fit_cutoff, lognormal_log_likelihoods
from spectra.thresholds import best_threshold, log_ratios

# 5 % point of Stephens' modified KS statistic for an exponential law with fitted rate (JASA 69, 1974).
STEPHENS_5_PERCENT = 1.094

# Below this many tail values neither the fit nor its tests have enough power.
MIN_TAIL = 25

LIKELIHOOD_RATIO_LEVEL = 0.1

# Logarithms of energies of an orthogonal matrix whose entries are stored with precision ε differ by .2 to .8 ε in their
# upper half; where the matrix was computed in float32, by up to 15 ε (768 columns, growing slowly).
STORED, COMPUTED = 2.0, 64 * float(np.finfo(np.float32).eps)


def hill(
    spectrum: SpectrumLike, k: int | None = None, *, tests: bool = True, precision: float | None = None
) -> Estimate:
    """Estimate the density exponent from the k largest energies.

    β = 1 + (k−1)/Σ_{i≤k} ln(λ_i/λ_{k+1}); the maximum-likelihood form has k in place of k−1 and exceeds β − 1
    by the factor k/(k−1) in the mean; the form here is unbiased.

    Args:
        spectrum: Spectrum (its energies are used), or (r,) non-negative values; zeros have no logarithm and
            are dropped (details ``dropped``).
        k: how many of the largest values, 2 ≤ k ≤ r − 1; None means half of the positive values.
        tests: False computes the value alone, in a tenth of the time: no interval, no test of a misfit (the status says
            nothing about one), and of the details only ``mle``, ``k``, ``xmin`` and ``dropped``.
        precision: machine epsilon of the entries of the matrix that the energies are from, such as
            ``torch.finfo(torch.bfloat16).eps``; None means that of float32, or a finer one.

    Returns:
        Estimate of β with the exact 95 % interval of independent Pareto tails, and details ``mle``,
        ``stderr`` (β−1)/√k, ``k``, ``xmin`` = λ_{k+1}, ``ks``, ``likelihood_ratio`` and ``likelihood_p``
        (see `clauset`), ``dropped``. Flagged on a misfit as in `clauset`; "not fitted" when fewer than three
        positive values exist, or the tail is flat: ln(λ_1/λ_{k+1}) is at most 2 · precision, or 7.6e-6 where that is
        larger. Rounding alone spreads the equal energies of an orthogonal matrix that much.

    Raises:
        InputError: NaN or Inf, negative or no values, or k or precision outside its range.

    Source: Hill, Ann. Stat. 3 (1975); half of the values as in Martin & Mahoney's practice.

    >>> round(hill(np.arange(1, 201) ** -1.0).value, 1)
    2.0
    """
    values, dropped = positive_energies(spectrum)
    return fitted_tail(values, dropped, k, flag(tests, "tests"), precision_of(values, precision))


def fitted_tail(
    values: np.ndarray, dropped: int, k: int | None, tests: bool, own: float, share: float = 1.0
) -> Estimate:
    """Fit the k largest of ascending positive values, of which a share counts as independent."""
    if len(values) < 3:
        return Estimate.not_fitted(
            f"{len(values)} positive values; a tail needs at least three", dropped=dropped
        )
    count = max(len(values) // 2, 2) if k is None else whole(k, "k")
    if not 2 <= count <= len(values) - 1:
        raise InputError(f"k is {count} with {len(values)} positive values; pass 2 ≤ k ≤ {len(values) - 1}")
    xmin = float(values[-count - 1])
    details = {"k": count, "dropped": dropped}
    logs = log_ratios(values[-count:], xmin)
    spread = max(STORED * own, COMPUTED)
    if logs[-1] <= spread:
        return Estimate.not_fitted(
            f"the {count} largest values exceed the next one by at most {math.expm1(logs[-1]):.2g} of it, as rounding "
            f"of the entries can do (up to {spread:.2g}): there is no tail to fit",
            **details,
        )
    return _tail_estimate(logs, xmin, details, above=count, tests=tests, share=share)


def clauset(
    values: SpectrumLike, xmin: float | tuple[float, float] | None = None, *, cutoff: bool = False
) -> Estimate:
    """Estimate a density exponent above a threshold by maximum likelihood.

    The threshold is chosen by the KS distance of the pure power law unless it is given.

    For each candidate x_min among the values, β − 1 = m/Σ ln(x_i/x_min) over the m values at or above it;
    the candidate whose fitted law is closest to the tail's empirical distribution function (both sides of
    its steps) wins. The result is β − 1 = (n − 1)/Σ, without bias, n the number of values strictly above x_min: the
    threshold value itself, chosen or given, adds nothing to the sum.

    Args:
        values: Spectrum (its energies are used), or (r,) non-negative values; zeros are dropped.
        xmin: fixed threshold; (low, high) to choose it among the values in this range; None among all.
        cutoff: fit p(x) ∝ x^−β e^(−x/x_c) above the threshold, the truncated power law of WeightWatcher's "TPL".

    Returns:
        Estimate of β with the exact 95 % interval of independent Pareto tails at this x_min, and details
        ``mle`` (the uncorrected 1 + m/Σ), ``stderr`` (β−1)/√n, ``k`` = m, ``xmin``, ``ks``, ``ks_critical``
        (5 % point for a fitted exponent; conservative where x_min was chosen), ``likelihood_ratio`` Σ ln
        p_power/p_lognormal over the tail (negative favours the log-normal), ``likelihood_p`` (two-sided,
        Vuong), ``dropped``. Flagged when the KS distance exceeds its critical value, when the log-normal is
        preferred at p < 0.1, or when n < 25. "not fitted" below three positive values or n = 2, or where no value of
        the range has a tail.

        The interval leaves out what a chosen x_min adds to the spread, and then covers less: 87 to 92 % of samples of
        100 to 1,000 Pareto values, with and without as many uniform ones below them.

        With ``cutoff`` the Estimate is of its β, with the interval of the Fisher information; further details
        ``cutoff`` x_c (inf without one), ``cutoff_gain`` (log-likelihood above that of the pure law) and ``cutoff_p``
        (likelihood-ratio test against the pure law by χ²₁); ``ks`` is that of the cut-off law, its critical value that
        of one fitted exponent (conservative). Flagged instead of the log-normal where the cut-off is not needed
        (p ≥ 0.1), by KS distance and n as above.

    Raises:
        InputError: NaN or Inf, negative or no values, xmin not positive, or a range without order.

    Source: Clauset, Shalizi & Newman, SIAM Review 51 (2009). Their code compares one side of each step only;
    distances differ from it by at most 1/m.

    >>> round(clauset(np.arange(1, 201) ** -1.0, xmin=0.01).value, 1)
    2.0
    """
    data, dropped = positive_energies(values)
    low, high = _threshold_range(xmin)
    cutoff = flag(cutoff, "cutoff")
    if len(data) < 3:
        return Estimate.not_fitted(
            f"{len(data)} positive values; a tail needs at least three", dropped=dropped
        )
    threshold = best_threshold(data, low, high) if low < high else low
    if threshold is None:
        where = "all values" if xmin is None else f"the values from {low:.4g} to {high:.4g}"
        return Estimate.not_fitted(
            f"{where} are equal or too few above: there is no tail to fit", dropped=dropped
        )
    tail = data[data >= threshold]
    if len(tail) < 3:
        return Estimate.not_fitted(
            f"{len(tail)} values lie at or above xmin = {threshold:.4g}", dropped=dropped
        )
    above = int(np.count_nonzero(tail > threshold))
    if above < 2:
        return Estimate.not_fitted(
            f"{above} values lie above xmin = {threshold:.4g}; a tail needs at least two", dropped=dropped
        )
    logs, details = log_ratios(tail, threshold), {"k": len(tail), "dropped": dropped}
    pure = _tail_estimate(logs, threshold, details, above=above)
    return _with_cutoff(pure, logs) if cutoff and pure.status != "not fitted" else pure


def _tail_estimate(
    logs: np.ndarray,
    xmin: float,
    details: Mapping[str, float],
    *,
    above: int,
    tests: bool = True,
    share: float = 1.0,
) -> Estimate:
    """Estimate β with details from y_i = ln(x_i/x_min), ascending, of which `above` are degrees of freedom.

    Errors and tests are those of a share of the values, where values come from overlapping tiles.
    """
    m, n, total = len(logs), above, float(logs.sum())
    if total <= 0.0:
        return Estimate.not_fitted("all tail values are equal: there is no tail to fit", **details)
    mle = m / total
    excess = (n - 1) / total
    if not tests:
        return Estimate(1 + excess, details={**details, "mle": 1 + mle, "xmin": xmin})
    model = -np.expm1(-mle * logs)
    steps = np.arange(m + 1) / m
    ks = float(max(np.max(model - steps[:-1]), np.max(steps[1:] - model)))
    power = math.log(mle) - mle * logs
    difference = power - lognormal_log_likelihoods(logs)
    ratio, deviation = float(difference.sum()), float(difference.std())
    z = abs(ratio) * math.sqrt(share)
    p = float(scipy.special.erfc(z / (math.sqrt(2 * m) * deviation))) if deviation > 1e-12 else 1.0
    alone, critical = n * share, _critical_distance(m * share)
    reasons = []
    if alone < MIN_TAIL:
        of = f"{n} values" if share == 1 else f"as many as {alone:.3g} values that do not overlap"
        reasons.append(f"the tail has {of}, fewer than {MIN_TAIL}")
    if ks > critical:
        reasons.append(f"KS distance {ks:.3g} exceeds {critical:.3g}: not a power law above xmin")
    if ratio < 0 and p < LIKELIHOOD_RATIO_LEVEL:
        reasons.append(f"a log-normal tail is preferred (log-likelihood ratio {ratio:.3g}, p = {p:.2g})")
    # (β−1)·Σy of independent Pareto values is Gamma(n) distributed.
    low, high = (float(q) / (total * share) for q in scipy.special.gammaincinv(alone, [0.025, 0.975]))
    figures = {
        "mle": 1 + mle, "stderr": excess / math.sqrt(alone), "xmin": xmin, "ks": ks, "ks_critical": critical,
        "likelihood_ratio": ratio, "likelihood_p": p,
    }  # fmt: skip
    status = "flagged" if reasons else "ok"
    return Estimate(1 + excess, 1 + low, 1 + high, status, "; ".join(reasons), {**details, **figures})


def positive_energies(values: SpectrumLike) -> tuple[np.ndarray, int]:
    """Return ascending positive energies and the number of dropped zeros."""
    if isinstance(values, Spectrum):
        array = values.energies
    else:
        array = to_float64(values, name="values", ndim=1)
        if array.size == 0:
            raise InputError("values are empty; pass at least three positive numbers")
        if array.min() < 0:
            raise InputError(f"values go down to {array.min():.3g}; energies are never negative")
    positive = np.sort(array[array > 0])
    return positive, int(array.size - positive.size)


def _threshold_range(xmin: Any) -> tuple[float, float]:
    """Return the range of thresholds; both ends are equal where it is given."""
    if xmin is None:
        return 0.0, math.inf
    if isinstance(xmin, tuple | list):
        if len(xmin) != 2:
            raise InputError(f"xmin has {len(xmin)} entries; pass a threshold, or (low, high)")
        low, high = (real(end, "xmin") for end in xmin)
        if not 0 <= low < high:
            raise InputError(
                f"xmin is {low:g} to {high:g}; the range of thresholds goes from low to high, not below 0"
            )
        return low, high
    threshold = real(xmin, "xmin")
    if not (math.isfinite(threshold) and threshold > 0):
        raise InputError(f"xmin is {xmin}; a power law starts at a positive, finite value")
    return threshold, threshold


def _critical_distance(m: float) -> float:
    return STEPHENS_5_PERCENT / (math.sqrt(m) + 0.26 + 0.5 / math.sqrt(m)) + 0.2 / m


def _with_cutoff(pure: Estimate, logs: np.ndarray) -> Estimate:
    """Return the estimate of a power law with exponential cut-off, with the details of the pure one."""
    fit, m, above = fit_cutoff(logs), len(logs), int(np.count_nonzero(logs > 0))
    rate = float(pure.details["mle"]) - 1
    gain = max(float((fit.densities - (math.log(rate) - rate * logs)).sum()), 0.0)
    # χ² of one degree, as Clauset et al. compare nested laws. Half of it, for a rate at its bound, would reject 6–10 %
    # of pure laws at 5 % (400 samples of 100 and of 600 values, β from 1.5 to 7), this 2–6 %.
    p = float(scipy.special.erfc(math.sqrt(gain)))
    steps = np.arange(m + 1) / m
    ks = float(max(np.max(fit.cdf - steps[:-1]), np.max(steps[1:] - fit.cdf)))
    if not (math.isfinite(ks) and math.isfinite(gain)):
        return Estimate.not_fitted("the values above xmin lie too close together to fit a cut-off", k=m)
    reasons = []
    if above < MIN_TAIL:
        reasons.append(f"the tail has {above} values, fewer than {MIN_TAIL}")
    if ks > _critical_distance(m):
        reasons.append(
            f"KS distance {ks:.3g} exceeds {_critical_distance(m):.3g}: no power law with a cut-off above xmin"
        )
    if p >= LIKELIHOOD_RATIO_LEVEL:
        reasons.append(f"the cut-off is not needed (log-likelihood gain {gain:.3g}, p = {p:.2g})")
    if fit.a <= -1:
        reasons.append(f"the density rises above xmin (β = {1 + fit.a:.3g}): no decay")
    if not math.isfinite(fit.a_error):
        reasons.append("exponent and cut-off cannot be told apart: the tail is too short")
    with np.errstate(over="ignore"):
        largest_value = float(np.float64(pure.details["xmin"]) * np.exp(logs[-1]))
    cutoff = largest_value / fit.rate if fit.rate > 0 else math.inf
    details = {
        **pure.details, "mle": 1 + fit.a, "stderr": fit.a_error, "ks": ks, "cutoff": cutoff, "cutoff_gain": gain,
        "cutoff_p": p,
    }  # fmt: skip
    half = 1.96 * fit.a_error
    status = "flagged" if reasons else "ok"
    return Estimate(1 + fit.a, 1 + fit.a - half, 1 + fit.a + half, status, "; ".join(reasons), details)
