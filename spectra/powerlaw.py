"""Estimate density exponents p(λ) ∝ λ^−β: Hill, Clauset–Shalizi–Newman, and FARMS for matrices.

These treat energies as a sample from a heavy tail. The decay of a spectrum with rank is another quantity (see
`exponents`; for a pure power law β = 1 + 1/α). Standard errors and tests assume independent values;
eigenvalues repel each other, so for spectra the errors are somewhat too wide and the tests conservative.
"""

from __future__ import annotations

import itertools
import math
import operator
from typing import Any

import numpy as np
import scipy

from spectra.arrays import largest, require_squares, to_float64, to_tensor
from spectra.covariance import precision_of, rounding_floor, squared_singular_values, to_rows
from spectra.errors import InputError
from spectra.results import Estimate
from spectra.spectrum import Spectrum

# 5 % point of Stephens' modified KS statistic for an exponential law with fitted rate (JASA 69, 1974).
STEPHENS_5_PERCENT = 1.094

# Below this many tail values neither the fit nor its tests have enough power.
MIN_TAIL = 25

LIKELIHOOD_RATIO_LEVEL = 0.1


def hill(spectrum: Spectrum | Any, k: int | None = None) -> Estimate:
    """Estimate the density exponent from the k largest energies.

    β = 1 + (k−1)/Σ_{i≤k} ln(λ_i/λ_{k+1}); the maximum-likelihood form has k in place of k−1 and exceeds β − 1
    by the factor k/(k−1) in the mean; the form here is unbiased.

    Args:
        spectrum: Spectrum (its energies are used), or (r,) non-negative values; zeros have no logarithm and
            are dropped (details ``dropped``).
        k: how many of the largest values, 2 ≤ k ≤ r − 1; None means half of the positive values.

    Returns:
        Estimate of β with the exact 95 % interval of independent Pareto tails, and details ``mle``,
        ``stderr`` (β−1)/√k, ``k``, ``xmin`` = λ_{k+1}, ``ks``, ``likelihood_ratio`` and ``likelihood_p``
        (see `clauset`), ``dropped``. Flagged on a misfit as in `clauset`; "not fitted" when fewer than three
        positive values exist or the tail is constant.

    Raises:
        InputError: NaN or Inf, negative or no values, or k outside its range.

    Source: Hill, Ann. Stat. 3 (1975); half of the values as in Martin & Mahoney's practice.

    >>> round(hill(np.arange(1, 201) ** -1.0).value, 1)
    2.0
    """
    values, dropped = _positive(spectrum)
    if len(values) < 3:
        return Estimate.not_fitted(
            f"{len(values)} positive values; a tail needs at least three", dropped=dropped
        )
    count = max(len(values) // 2, 2) if k is None else _whole(k)
    if not 2 <= count <= len(values) - 1:
        raise InputError(f"k is {count} with {len(values)} positive values; pass 2 ≤ k ≤ {len(values) - 1}")
    xmin = float(values[-count - 1])
    return _tail_estimate(
        np.log(values[-count:] / xmin), xmin, {"k": count, "dropped": dropped}, anchored=False
    )


def clauset(values: Spectrum | Any, xmin: float | None = None) -> Estimate:
    """Estimate a density exponent above a threshold by maximum likelihood.

    The threshold is chosen by the KS distance unless it is given.

    For each candidate x_min among the values, β − 1 = m/Σ ln(x_i/x_min) over the m values at or above it;
    the candidate whose fitted law is closest to the tail's empirical distribution function (both sides of
    its steps) wins. The result is corrected by n/(n−1), n the number of values strictly above x_min: the
    threshold value itself adds nothing to the sum.

    Args:
        values: Spectrum (its energies are used), or (r,) non-negative values; zeros are dropped.
        xmin: fixed threshold, or None to choose it.

    Returns:
        Estimate of β with the exact 95 % interval of independent Pareto tails at this x_min, and details
        ``mle`` (the uncorrected 1 + m/Σ), ``stderr`` (β−1)/√n, ``k`` = m, ``xmin``, ``ks``, ``ks_critical``
        (5 % point for a fitted exponent; conservative where x_min was chosen), ``likelihood_ratio`` Σ ln
        p_power/p_lognormal over the tail (negative favours the log-normal), ``likelihood_p`` (two-sided,
        Vuong), ``dropped``. Flagged when the KS distance exceeds its critical value, when the log-normal is
        preferred at p < 0.1, or when n < 25. "not fitted" below three positive values.

    Raises:
        InputError: NaN or Inf, negative or no values, or xmin not positive.

    Source: Clauset, Shalizi & Newman, SIAM Review 51 (2009). Their code compares one side of each step only;
    distances differ from it by at most 1/m.

    >>> round(clauset(np.arange(1, 201) ** -1.0, xmin=0.01).value, 1)
    2.0
    """
    data, dropped = _positive(values)
    if xmin is not None and not (math.isfinite(xmin) and xmin > 0):
        raise InputError(f"xmin is {xmin}; a power law starts at a positive, finite value")
    if len(data) < 3:
        return Estimate.not_fitted(
            f"{len(data)} positive values; a tail needs at least three", dropped=dropped
        )
    threshold = _scan_thresholds(data) if xmin is None else float(xmin)
    if threshold is None:
        return Estimate.not_fitted("all values are equal: there is no tail to fit", dropped=dropped)
    tail = data[data >= threshold]
    if len(tail) < 3:
        return Estimate.not_fitted(
            f"{len(tail)} values lie at or above xmin = {threshold:.4g}", dropped=dropped
        )
    logs = np.log(tail / threshold)
    return _tail_estimate(logs, threshold, {"k": len(tail), "dropped": dropped}, anchored=xmin is None)


def farms(W: Any, aspect: float = 1.0, size: int | None = None, k: int | None = None) -> Estimate:
    """Estimate a matrix's tail exponent without the bias of its shape.

    Hill exponent of pooled eigenvalues of submatrices that all have one shape.

    The eigenvalues of a random matrix spread by an amount that depends on rows/columns only, and the Hill
    estimate of the whole matrix reports this spread as a change of tail. Tiles of one fixed aspect ratio cover W evenly
    (overlapping where they must), σ² of every tile are pooled, and `hill` is applied to the pool.

    Args:
        W: (m, n) numpy array or torch tensor.
        aspect: long side over short side of a tile, ≥ 1, lying along the long side of W.
        size: short side of a tile, ≥ 3; None means the largest that fits, min(m, n, max(m, n)/aspect).
        k: as in `hill`, on the pooled values; None means half.

    Returns:
        Estimate as from `hill` with further details ``tiles``, ``tile_short``, ``tile_long``.

    Raises:
        InputError: what `weight_spectrum` rejects, aspect < 1, or a tile that does not fit in W.

    Source: Hu et al., "Eigenspectrum analysis of neural networks without aspect ratio bias", arXiv
        2506.06280.

    >>> W = np.random.default_rng(0).standard_normal((20, 40))
    >>> found = farms(W)
    >>> found.details["tiles"], found.details["tile_short"], found.details["tile_long"]
    (2, 20, 20)
    """
    matrix = to_rows(W, "W")
    if matrix.shape[0] > matrix.shape[1]:
        matrix = matrix.T
    short, long = (int(s) for s in matrix.shape)
    if not (math.isfinite(aspect) and aspect >= 1):
        raise InputError(f"aspect is {aspect}; it is the long side of a tile over its short side, at least 1")
    rows = min(short, int(long / aspect)) if size is None else _whole(size)
    cols = round(rows * aspect)
    if rows < 3 or rows > short or cols > long:
        raise InputError(
            f"tiles of {rows}×{cols} do not suit a {short}×{long} matrix; "
            f"pass a size from 3 to {min(short, int(long / aspect))}, or a smaller aspect"
        )
    require_squares(largest(matrix))
    precision = precision_of(W, None)
    tiles = []
    for i, j in itertools.product(_even_offsets(short, rows), _even_offsets(long, cols)):
        tile = to_tensor(matrix[i : i + rows, j : j + cols], name="W")
        tiles.append(squared_singular_values(tile, rank=rows, floor=rounding_floor(tile, precision)))
    pooled = hill(np.concatenate(tiles), k)
    details = {**pooled.details, "tiles": len(tiles), "tile_short": rows, "tile_long": cols}
    return Estimate(pooled.value, pooled.low, pooled.high, pooled.status, pooled.reason, details)


def lognormal_log_likelihoods(logs: np.ndarray) -> np.ndarray:
    """Fit a log-normal tail and return its log densities.

    Log densities of y = ln(x/x_min) ≥ 0 under the best truncated normal.

    f(y) = exp(−a y − b y²/2)/Z(a, b), b ≥ 0: natural parameters make the likelihood concave and hold the
    power law (b = 0) as their limit, where the (μ, σ) form diverges.
    """
    scale = float(logs.mean())
    y = logs / scale
    first, second = 1.0, float((y**2).mean()) / 2.0

    def cost(theta: np.ndarray) -> float:
        a, b = float(theta[0]), float(np.exp(theta[1]))
        return _log_normaliser(a, b) + a * first + b * second

    # Two starts: nearly a power law, and a plain normal far from its truncation.
    spread = max(float(y.var()), 1e-3)
    starts = [np.array([1.0, math.log(1e-3)]), np.array([-1.0 / spread, -math.log(spread)])]
    options = {"xatol": 1e-7, "fatol": 1e-12}
    fits = [scipy.optimize.minimize(cost, s, method="Nelder-Mead", options=options) for s in starts]
    best = min(fits, key=lambda fit: fit.fun)
    if best.fun >= 1.0:
        return -y - math.log(scale)
    a, b = float(best.x[0]), float(np.exp(best.x[1]))
    return -a * y - b * y**2 / 2 - _log_normaliser(a, b) - math.log(scale)


def _log_normaliser(a: float, b: float) -> float:
    """ln ∫_0^∞ exp(−a y − b y²/2) dy, by whichever of two equal forms does not overflow."""
    if a >= 0:
        return 0.5 * math.log(math.pi / (2 * b)) + math.log(float(scipy.special.erfcx(a / math.sqrt(2 * b))))
    return (
        0.5 * math.log(2 * math.pi / b) + a * a / (2 * b) + float(scipy.special.log_ndtr(-a / math.sqrt(b)))
    )


def _tail_estimate(logs: np.ndarray, xmin: float, details: dict[str, float], *, anchored: bool) -> Estimate:
    """Estimate β with details from y_i = ln(x_i/x_min), i ≤ m, ascending; anchored when x_1 = x_min."""
    m, total = len(logs), float(logs.sum())
    n = m - 1 if anchored else m
    if total <= 0.0:
        return Estimate.not_fitted("all tail values are equal: there is no tail to fit", **details)
    mle = m / total
    excess = (n - 1) / total
    model = -np.expm1(-mle * logs)
    steps = np.arange(m + 1) / m
    ks = float(max(np.max(model - steps[:-1]), np.max(steps[1:] - model)))
    power = math.log(mle) - mle * logs
    difference = power - lognormal_log_likelihoods(logs)
    ratio, deviation = float(difference.sum()), float(difference.std())
    p = float(scipy.special.erfc(abs(ratio) / (math.sqrt(2 * m) * deviation))) if deviation > 1e-12 else 1.0
    critical = STEPHENS_5_PERCENT / (math.sqrt(m) + 0.26 + 0.5 / math.sqrt(m)) + 0.2 / m
    reasons = []
    if n < MIN_TAIL:
        reasons.append(f"the tail has {n} values, fewer than {MIN_TAIL}")
    if ks > critical:
        reasons.append(f"KS distance {ks:.3g} exceeds {critical:.3g}: not a power law above xmin")
    if ratio < 0 and p < LIKELIHOOD_RATIO_LEVEL:
        reasons.append(f"a log-normal tail is preferred (log-likelihood ratio {ratio:.3g}, p = {p:.2g})")
    # (β−1)·Σy of independent Pareto values is Gamma(n) distributed.
    low, high = (float(q) / total for q in scipy.stats.gamma.ppf([0.025, 0.975], n))
    figures = {
        "mle": 1 + mle, "stderr": excess / math.sqrt(n), "xmin": xmin, "ks": ks, "ks_critical": critical,
        "likelihood_ratio": ratio, "likelihood_p": p,
    }  # fmt: skip
    status = "flagged" if reasons else "ok"
    return Estimate(1 + excess, 1 + low, 1 + high, status, "; ".join(reasons), {**details, **figures})


def _scan_thresholds(data: np.ndarray, chunk: int = 256) -> float | None:
    """Return the value of an ascending array above which a power law has the smallest KS distance, or None."""
    logs = np.log(data)
    size = len(data)
    suffix = np.cumsum(logs[::-1])[::-1]
    # Of equal values the first is the candidate; a distance needs at least two values above it.
    starts = np.flatnonzero(np.r_[True, np.diff(data) > 0])
    starts = starts[starts <= size - 3]
    best, best_distance = None, math.inf
    for block in np.array_split(starts, max(len(starts) // chunk, 1)):
        if not len(block):
            continue
        m = size - block
        sums = suffix[block] - m * logs[block]
        fitted = sums > 0
        rate = np.divide(m, sums, out=np.zeros(len(block)), where=fitted)
        y = logs[None, block[0] :] - logs[block, None]
        model = -np.expm1(-rate[:, None] * np.maximum(y, 0.0))
        position = np.arange(block[0], size)[None, :] - block[:, None]
        gaps = np.maximum(model - position / m[:, None], (position + 1) / m[:, None] - model)
        distance = np.where(position >= 0, gaps, 0.0).max(axis=1)
        distance[~fitted] = math.inf
        winner = int(np.argmin(distance))
        if distance[winner] < best_distance:
            best, best_distance = float(data[block[winner]]), float(distance[winner])
    return best


def _positive(values: Spectrum | Any) -> tuple[np.ndarray, int]:
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


def _even_offsets(length: int, tile: int) -> list[int]:
    """Return the starts of the fewest tiles that cover a length, evenly spaced."""
    count = math.ceil(length / tile)
    return [round(i * (length - tile) / (count - 1)) for i in range(count)] if count > 1 else [0]


def _whole(value: Any) -> int:
    try:
        return operator.index(value)
    except TypeError:
        raise InputError(f"{value!r} is not a whole number") from None
