"""Resample rows, sequences, runs or seeds: jackknife and bootstrap of any statistic.

Resample the units that were sampled independently: pass their labels as ``groups`` (tokens of one sequence
are not independent rows). For smooth functions of eigenvalues the bootstrap adds the bias of the sample a
second time (repeated rows inflate the head), so every result reports its bias next to its standard error
and is flagged when bias matters; `intervals` corrects it where a population model can be
checked.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import scipy

from spectra.arrays import (
    EPS,
    Numbers,
    choice,
    largest,
    real,
    require_generator,
    to_float64,
    unit,
    unit_of,
    whole,
)
from spectra.covariance import covariance_spectrum, precision_of
from spectra.errors import InputError
from spectra.exponents import alpha_req, window_exponent
from spectra.groups import Labels, group_codes
from spectra.results import Estimate
from spectra.windows import check_window, misfit_reason

Statistic = Callable[[np.ndarray], float]
Interval = Literal["percentile", "basic", "bca"]
Fit = Literal["ols", "theil-sen", "weighted"]

# A bias of half a standard error costs a nominal 95 % interval about three points of coverage.
BIAS_SHARE = 0.5
# A statistic of equal rows differs between subsets by no more, relative to its size.
ROUNDING = 64 * EPS


def jackknife(
    x: Numbers,
    statistic: Statistic,
    *,
    groups: Labels | None = None,
    blocks: int | None = None,
    level: float = 0.95,
) -> Estimate:
    """Estimate a statistic with bias, error and interval by jackknife.

    Groups of rows are deleted one at a time.

    With g groups, θ_(k) the statistic without group k and θ̄ their mean: bias = (g−1)(θ̄ − θ̂), value = θ̂ −
    bias, se² = (g−1)/g Σ (θ_(k) − θ̄)², interval value ± t_{g−1} se.

    Args:
        x: (n, …) data; rows (or groups of rows) are left out in turn. Never written to.
        statistic: function of such an array, returning a number.
        groups: (n,) labels of independent units, or None when each row is one.
        blocks: join the units, in order of label, into this many nearly equal blocks, to save time (at least
            10).
        level: coverage of the interval.

    Returns:
        Estimate with details ``raw`` θ̂, ``bias``, ``stderr``, ``groups``. Flagged when |bias| exceeds two
        standard errors: a correction that large is no longer first order. "not fitted" when the statistic is
            NaN on some subset.

    Raises:
        InputError: NaN or Inf in x, fewer than three groups, blocks below 10, a bad level.

    Source: Efron & Tibshirani, "An Introduction to the Bootstrap", 1993, ch. 11.

    >>> estimate = jackknife(np.arange(5.0), np.var)
    >>> round(estimate.value, 6), round(estimate.details["raw"], 6)
    (2.5, 2.0)
    """
    data, codes = _prepare(x, groups, level, least=3)
    if blocks is not None:
        if whole(blocks, "blocks") < 10:
            raise InputError(f"blocks is {blocks}; fewer than 10 leave too few degrees of freedom")
        codes = _join(codes, whole(blocks, "blocks"))
    raw = _number(statistic(data))
    left_out = _leave_out(data, codes, statistic)
    if not (math.isfinite(raw) and np.isfinite(left_out).all()):
        return Estimate.not_fitted("the statistic is not finite on the data or on a subset of it", raw=raw)
    # Exact division keeps squares within float64.
    size = unit(max(abs(raw), largest(left_out)))
    raw, left_out = raw / size, left_out / size
    g = len(left_out)
    bias = (g - 1) * (float(left_out.mean()) - raw)
    stderr = math.sqrt((g - 1) / g * float(((left_out - left_out.mean()) ** 2).sum()))
    half = float(scipy.stats.t.ppf((1 + level) / 2, g - 1)) * stderr
    reason = ""
    if abs(bias) > max(2 * stderr, (g - 1) * ROUNDING):
        reason = (
            f"bias {bias * size:+.3g} exceeds two standard errors of {stderr * size:.2g}: take more samples"
        )
    details = {"raw": raw * size, "bias": bias * size, "stderr": stderr * size, "groups": g}
    value = raw - bias
    ends = (value * size, (value - half) * size, (value + half) * size)
    return Estimate(*ends, "flagged" if reason else "ok", reason, details)


def bootstrap(
    x: Numbers,
    statistic: Statistic,
    rng: np.random.Generator,
    *,
    groups: Labels | None = None,
    resamples: int = 999,
    method: Interval = "bca",
    level: float = 0.95,
) -> Estimate:
    """Estimate a statistic's interval by resampling rows or groups.

    Whole groups are resampled with replacement.

    ``"percentile"``: quantiles of θ*; ``"basic"``: 2θ̂ minus the opposite quantiles; ``"bca"``: percentiles
    shifted for median bias and acceleration (the latter from a jackknife over at most 100 blocks).

    Args:
        x: (n, …) data; never written to.
        statistic: function of such an array, returning a number.
        rng: generator of the resamples.
        groups: (n,) labels of independent units, or None when each row is one.
        resamples: how many, at least 100.
        method: the interval.
        level: coverage of the interval.

    Returns:
        Estimate of the statistic itself (uncorrected), with details ``bias`` (mean of θ* minus θ̂), ``stderr``,
        ``groups``, ``failed`` (resamples on which the statistic was not finite). Flagged when |bias| exceeds half
        a standard error: the interval then covers less than its level. "not fitted" when θ̂ or more than 1 % of
        the resamples are not finite.

    Raises:
        InputError: NaN or Inf in x, fewer than three groups, too few resamples, unknown method, a bad level.

    Source: Efron, J. Amer. Stat. Assoc. 82 (1987).

    >>> found = bootstrap(np.arange(20.0), np.mean, np.random.default_rng(0), resamples=200)
    >>> found.low < found.value < found.high, found.value
    (True, 9.5)
    """
    data, codes = _prepare(x, groups, level, least=3)
    choice(method, "method", ("percentile", "basic", "bca"))
    resamples = whole(resamples, "resamples")
    require_generator(rng)
    if resamples < 100:
        raise InputError(f"resamples is {resamples}; quantiles of an interval need at least 100")
    raw = _number(statistic(data))
    members = _members(codes)
    values = np.empty(resamples)
    for i in range(resamples):
        chosen = rng.integers(len(members), size=len(members))
        values[i] = _number(statistic(data[np.concatenate([members[k] for k in chosen])]))
    finite = values[np.isfinite(values)]
    failed = resamples - len(finite)
    if not math.isfinite(raw) or failed > resamples / 100:
        reason = f"the statistic is not finite on the data or on {failed} of {resamples} resamples"
        return Estimate.not_fitted(reason, failed=failed)
    # Exact division keeps squares within float64.
    size = unit(max(abs(raw), largest(finite)))
    raw, finite = raw / size, finite / size
    tails = np.array([(1 - level) / 2, (1 + level) / 2])
    if method == "bca":
        left_out = _leave_out(data, _join(codes, 100), statistic)
        if not np.isfinite(left_out).all():
            reason = "the statistic is not finite on a subset of the data, which the bca interval needs"
            return Estimate.not_fitted(reason, failed=failed)
        tails = _bca_levels(tails, raw, finite, left_out / size)
    low, high = np.quantile(finite, tails)
    if method == "basic":
        low, high = 2 * raw - high, 2 * raw - low
    bias, stderr = float(finite.mean()) - raw, float(finite.std(ddof=1))
    reason = ""
    if abs(bias) > max(BIAS_SHARE * stderr, ROUNDING):
        reason = (
            f"bootstrap bias {bias * size:+.3g} against a standard error of {stderr * size:.2g}: the interval is "
            "displaced"
        )
    details = {"bias": bias * size, "stderr": stderr * size, "groups": len(members), "failed": failed}
    ends = (raw * size, float(low) * size, float(high) * size)
    return Estimate(*ends, "flagged" if reason else "ok", reason, details)


def window_exponent_bootstrap(
    x: Numbers,
    lo: int,
    hi: int,
    rng: np.random.Generator,
    *,
    fit: Fit = "ols",
    groups: Labels | None = None,
    center: bool = True,
    resamples: int = 499,
    method: Interval = "basic",
    level: float = 0.95,
    precision: float | None = None,
) -> Estimate:
    """Bootstrap the window exponent of the covariance of x.

    The basic interval is the default because it reflects, where the percentile interval doubles, the bias of
    sample eigenvalues. This corrects the bias to first order only: read the status.

    Args:
        x: (n, d) samples.
        lo, hi: window of ranks (1-based, inclusive).
        rng: generator of the resamples.
        fit: ``"ols"``, ``"theil-sen"`` or ``"weighted"`` (the 1/j weights of `alpha_req`).
        groups, resamples, method, level: as in `bootstrap`.
        center, precision: as in `covariance_spectrum`.

    Returns:
        Estimate of α as from `bootstrap`, with details of the fit (``r2``, ``n_over_d``) added; flagged also
        where the fit itself is (`exponents.window_exponent`), "not fitted" where it cannot be made.

    Raises:
        InputError: as in `bootstrap` and `window_exponent`, or an unknown fit.

    >>> x = np.random.default_rng(0).standard_normal((200, 5)) * np.arange(1, 6) ** -0.5
    >>> found = window_exponent_bootstrap(x, 1, 5, np.random.default_rng(1), resamples=100)
    >>> found.low < found.value < found.high
    True
    """
    lo, hi = check_window(lo, hi)
    choice(fit, "fit", ("ols", "theil-sen", "weighted"))
    # An exponent has no scale: exact division keeps the energies within float64.
    rows, own_precision = to_float64(x, name="x", ndim=2), precision_of(x, precision)
    rows = rows / unit_of(rows)
    spectrum = covariance_spectrum(rows, center, precision=own_precision)

    def plain(energies: np.ndarray) -> Estimate:
        # Without n and d no verdict is simulated, which a resample does not need.
        return alpha_req(energies, lo, hi) if fit == "weighted" else window_exponent(energies, lo, hi, fit)

    own = alpha_req(spectrum, lo, hi) if fit == "weighted" else window_exponent(spectrum, lo, hi, method=fit)
    if own.status == "not fitted":
        return own

    def statistic(chosen: np.ndarray) -> float:
        try:
            resampled = covariance_spectrum(chosen, center, precision=own_precision)
        except InputError:
            # One row, drawn again and again, has no spectrum.
            return math.nan
        return math.nan if misfit_reason(resampled, lo, hi) else plain(resampled.energies).value

    result = bootstrap(rows, statistic, rng, groups=groups, resamples=resamples, method=method, level=level)
    reason = "; ".join(r for r in (own.reason, result.reason) if r)
    status = result.status if result.status == "not fitted" else ("flagged" if reason else "ok")
    return Estimate(result.value, result.low, result.high, status, reason, {**own.details, **result.details})


def _prepare(x: Numbers, groups: Labels | None, level: float, least: int) -> tuple[np.ndarray, np.ndarray]:
    data = to_float64(x, name="x")
    if data.ndim < 1 or len(data) == 0:
        raise InputError(f"x has shape {data.shape}; pass at least {least} rows")
    if not 0 < real(level, "level") < 1:
        raise InputError(f"level is {level}; a coverage lies strictly between 0 and 1")
    # A statistic that writes to its argument must not reach the caller's array.
    view = data.view()
    view.setflags(write=False)
    return view, group_codes(groups, len(data), least=least)


def _members(codes: np.ndarray) -> list[np.ndarray]:
    order = np.argsort(codes, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(codes[order])) + 1)


def _join(codes: np.ndarray, blocks: int) -> np.ndarray:
    groups = int(codes.max()) + 1
    return codes if groups <= blocks else codes * blocks // groups


def _leave_out(data: np.ndarray, codes: np.ndarray, statistic: Statistic) -> np.ndarray:
    return np.array([_number(statistic(data[codes != k])) for k in range(int(codes.max()) + 1)])


def _number(value: Any) -> float:
    """Return a statistic as a float: a number, or an Estimate (NaN where it is not fitted)."""
    return value.value if isinstance(value, Estimate) else real(value, "the statistic")


def _bca_levels(tails: np.ndarray, raw: float, values: np.ndarray, left_out: np.ndarray) -> np.ndarray:
    below = (np.count_nonzero(values < raw) + 0.5 * np.count_nonzero(values == raw)) / len(values)
    edge = 0.5 / len(values)
    z0 = float(scipy.special.ndtri(min(max(below, edge), 1 - edge)))
    spread = left_out.mean() - left_out
    spread = spread / unit(largest(spread))
    total = float((spread**2).sum())
    acceleration = 0.0 if total == 0 else float((spread**3).sum()) / (6 * total**1.5)
    z = z0 + scipy.special.ndtri(tails)
    return np.asarray(scipy.special.ndtr(z0 + z / (1 - acceleration * z)))
