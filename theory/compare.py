"""Comparators: from predicted and measured values to scores, where above 1 (or NaN) means the check failed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import stats

from theory.values import Array, Case, Measurement, Tolerance

Comparator = Callable[[Array, Measurement, Tolerance, Case], Array]


def _ratio(error: Array, allowed: Array) -> Array:
    """error/allowed with 0/0 = 0 and x/0 = ∞: an exact claim with no tolerance must be met exactly."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where((error == 0) & (allowed == 0), 0.0, error / allowed)


def _aligned(predicted: Array, m: Measurement) -> Array:
    p = np.asarray(predicted, dtype=np.float64).ravel()
    if p.shape != m.value.shape:
        raise ValueError(
            f"predicted has shape {p.shape} but measured has {m.value.shape}; return the same components"
        )
    return p


def equal(predicted: Array, m: Measurement, tolerance: Tolerance, case: Case) -> Array:
    """(k,) |measured − predicted| in units of the accepted error."""
    p = _aligned(predicted, m)
    return _ratio(np.abs(m.value - p), tolerance.allowed(p, m.stderr))


Attained = Callable[[Case], bool | tuple[bool, ...]]


def at_most(attained: Attained) -> Comparator:
    """measured ≤ predicted, with equality demanded where ``attained(case)`` (one answer, or one a
    component): a bound that is never reached could be wrong by any factor and still hold, so sharp cases
    belong to the check.

    An excess scores ``excess/allowed``; slack scores 0 unless the case must attain the bound.
    """

    def compare(predicted: Array, m: Measurement, tolerance: Tolerance, case: Case) -> Array:
        p = _aligned(predicted, m)
        excess = m.value - p
        error = np.where(attained(case), np.abs(excess), np.maximum(excess, 0.0))
        return _ratio(error, tolerance.allowed(p, m.stderr))

    return compare


def at_least(attained: Attained) -> Comparator:
    """measured ≥ predicted, with equality demanded where ``attained(case)``; see `at_most`."""
    below = at_most(attained)

    def compare(predicted: Array, m: Measurement, tolerance: Tolerance, case: Case) -> Array:
        return below(-_aligned(predicted, m), Measurement(-m.value, m.stderr), tolerance, case)

    return compare


def equal_and_positive(predicted: Array, m: Measurement, tolerance: Tolerance, case: Case) -> Array:
    """`equal`, and every measured component must be strictly positive: a strict inequality with its size."""
    return np.where(m.value > 0, equal(predicted, m, tolerance, case), np.inf)


def kolmogorov_smirnov_beta(p_value: float) -> Comparator:
    """One-sample Kolmogorov–Smirnov tests of Beta laws.

    ``predicted`` is (2k,) = a_1, b_1, a_2, b_2, …; ``measured.value`` holds k equally long samples one after
    the other. Score = D_n / D_crit, D_crit being the exact critical value at ``p_value``.
    """

    def compare(predicted: Array, m: Measurement, tolerance: Tolerance, case: Case) -> Array:
        shapes = np.asarray(predicted, dtype=np.float64).reshape(-1, 2)
        samples = m.value.reshape(len(shapes), -1)
        critical = float(stats.kstwo.isf(p_value, samples.shape[1]))
        scores = np.full(len(shapes), np.nan)
        for i, ((a, b), x) in enumerate(zip(shapes, samples, strict=True)):
            if a > 0 and b > 0:
                scores[i] = stats.kstest(x, stats.beta(a, b).cdf).statistic / critical
        return scores

    return compare
