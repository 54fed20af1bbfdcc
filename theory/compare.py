"""Compare predicted with measured values: scores above 1 (or NaN) mean failure."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import stats

from theory.values import Array, Case, Measurement, Tolerance

Comparator = Callable[[Array, Measurement, Tolerance, Case], Array]


def _ratio(error: Array, allowed: Array) -> Array:
    """Return error/allowed with 0/0 = 0 and x/0 = ∞: without tolerance a claim must hold exactly.

    An infinite tolerance (of an infinite standard error) accepts anything, so that nothing is compared: NaN.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where((error == 0) & (allowed == 0), 0.0, error / allowed)
    return np.where(np.isposinf(allowed), np.nan, ratio)


def _aligned(predicted: Array, m: Measurement) -> Array:
    p = np.asarray(predicted, dtype=np.float64).ravel()
    if p.shape != m.value.shape:
        raise ValueError(
            f"predicted has shape {p.shape} but measured has {m.value.shape}; return the same components"
        )
    return p


def equal(predicted: Array, m: Measurement, tolerance: Tolerance, case: Case) -> Array:
    """Return the errors |measured − predicted| over the accepted ones, (k,).

    Raises:
        ValueError: different numbers of components.

    >>> equal(np.array([2.0]), Measurement.exact([2.5]), Tolerance("rounding", absolute=1.0), {})
    array([0.5])
    """
    p = _aligned(predicted, m)
    return _ratio(np.abs(m.value - p), tolerance.allowed(p, m.stderr))


Attained = Callable[[Case], bool | tuple[bool, ...]]


def at_most(attained: Attained) -> Comparator:
    """Make a comparator for measured ≤ predicted.

    Equality is required where ``attained(case)`` (one answer, or one for each component): a bound that is never reached
    could be wrong by any factor and still hold, so the check needs cases that reach it.

    An excess scores ``excess/allowed``; slack scores 0 unless the case must attain the bound.

    >>> compare = at_most(attained=lambda case: False)
    >>> compare(np.array([2.0]), Measurement.exact([1.0]), Tolerance("rounding", absolute=0.5), {})
    array([0.])
    """

    def compare(predicted: Array, m: Measurement, tolerance: Tolerance, case: Case) -> Array:
        p = _aligned(predicted, m)
        excess = m.value - p
        error = np.where(attained(case), np.abs(excess), np.maximum(excess, 0.0))
        return _ratio(error, tolerance.allowed(p, m.stderr))

    return compare


def at_least(attained: Attained) -> Comparator:
    """Make a comparator for measured ≥ predicted; see `at_most`.

    >>> compare = at_least(attained=lambda case: False)
    >>> compare(np.array([2.0]), Measurement.exact([1.0]), Tolerance("rounding", absolute=0.5), {})
    array([2.])
    """
    below = at_most(attained)

    def compare(predicted: Array, m: Measurement, tolerance: Tolerance, case: Case) -> Array:
        return below(-_aligned(predicted, m), Measurement(-m.value, m.stderr), tolerance, case)

    return compare


def equal_and_positive(predicted: Array, m: Measurement, tolerance: Tolerance, case: Case) -> Array:
    """Score equality; a measured value that is not positive fails.

    For a strict inequality whose size is predicted.

    >>> equal_and_positive(np.array([0.0]), Measurement.exact([0.0]), Tolerance("rounding", absolute=1.0), {})
    array([inf])
    """
    return np.where(m.value > 0, equal(predicted, m, tolerance, case), np.inf)


def kolmogorov_smirnov_beta(p_value: float) -> Comparator:
    """Make a comparator that tests samples of Beta laws by one-sample Kolmogorov–Smirnov tests.

    ``predicted`` is (2k,) = a_1, b_1, a_2, b_2, …; ``measured.value`` holds k equally long samples one after
    the other. Score = D_n / D_crit, D_crit being the exact critical value at ``p_value``.

    >>> draws = np.random.default_rng(0).beta(3, 5, 1000)
    >>> compare = kolmogorov_smirnov_beta(p_value=1e-5)
    >>> bool(compare(np.array([3.0, 5.0]), Measurement.exact(draws), Tolerance("its p-value"), {})[0] < 1)
    True
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
