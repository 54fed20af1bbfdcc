"""Thresholds with a rate of false alarms that holds whatever the law of the runs."""

import math

import numpy as np
import pytest

from sims.analysis.conformal import conformal_threshold, largest_held
from sims.system.errors import MeasureError


@pytest.mark.parametrize(
    "draw",
    [
        "standard_cauchy",
        *(pytest.param(d, marks=pytest.mark.slow) for d in ("standard_normal", "standard_exponential")),
    ],
)
@pytest.mark.parametrize(
    ("n", "alpha"), [*(pytest.param(*p, marks=pytest.mark.slow) for p in ((9, 0.1), (19, 0.1))), (8, 0.25)]
)
def test_the_rate_of_false_alarms_is_kept_under_every_law(draw, n, alpha):
    """P(new > threshold) = 1 − ⌈(n+1)(1−α)⌉/(n+1) ≤ α for continuous laws: four standard errors of 1,000 draws."""
    generator = np.random.default_rng(5)
    false = 0
    for _ in range(1_000):
        *controls, new = getattr(generator, draw)(n + 1)
        false += new > conformal_threshold(controls, alpha).value
    exact = 1 - math.ceil((n + 1) * (1 - alpha) - 1e-9) / (n + 1)
    assert exact <= alpha + 1e-12
    assert abs(false / 1_000 - exact) < 4 * math.sqrt(exact * (1 - exact) / 1_000)


def test_the_rate_of_one_set_of_controls_lies_in_its_interval():
    """Of uniform values the rate of a threshold is what lies above it: 95 % of 600 sets, four standard errors."""
    generator = np.random.default_rng(6)
    for n, alpha in ((9, 0.1), (12, 0.25)):
        found = [conformal_threshold(generator.random(n), alpha) for _ in range(300)]
        rates = [1 - own.value for own in found]
        inside = np.mean([own.low <= rate <= own.high for own, rate in zip(found, rates, strict=True)])
        assert abs(inside - 0.95) < 4 * math.sqrt(0.95 * 0.05 / 300)
    assert found[0].told.startswith("at most 25% of runs like the controls exceed it in their whole length")
    assert conformal_threshold(range(40), 0.025).told.startswith("at most 2.5% of runs")
    assert "on average over sets of 12 controls; of one such set it is 0.05 to 0.48 (95 %)" in found[0].told


def test_two_looks_in_a_row_hold_a_level():
    assert largest_held([0.0, 9.0, 1.0, 4.0, 3.0]) == 3.0
    assert largest_held([1.0, math.nan, 5.0, 2.0]) == 2.0
    assert math.isnan(largest_held([1.0, math.nan]))


@pytest.mark.parametrize(
    ("values", "alpha", "message"),
    [
        ([1.0] * 8, 0.1, r"there are 8 control runs; a rate of false alarms of 0.1 needs 9;"),
        ([], 0.9, r"there are 0 control runs; a rate of false alarms of 0.9 needs 1;"),
        ([1.0] * 9 + [math.nan], 0.1, r"a control run has no value"),
        ([1.0] * 9, 0.0, r"alpha is 0; it is a probability"),
    ],
)
def test_too_few_controls_are_refused(values, alpha, message):
    with pytest.raises(MeasureError, match=message):
        conformal_threshold(values, alpha)
