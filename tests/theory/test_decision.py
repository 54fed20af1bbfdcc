"""Laws of the one rule behind every verdict, and of intervals within the values that a quantity can take."""

import ast
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from theory.decision import decide, side, why_undecided
from theory.predictions import PREDICTIONS, judge
from theory.ranges import CORRELATION, POSITIVE, REAL, SHARE, Range

ROOT = Path(__file__).parents[2]
BOUND = st.floats(-1e6, 1e6)
RANGES = [REAL, POSITIVE, SHARE, CORRELATION, Range(-1.0), Range(1.0, 64.0), Range(high=1.0), SHARE.change]


@given(BOUND, BOUND, BOUND)
def test_an_interval_that_holds_the_level_is_undecided(a, b, c):
    low, level, high = sorted((a, b, c))
    assert side(low, high, level) == 0
    for prediction in PREDICTIONS.values():
        judged = judge(prediction, low, min(max(level, low), high), high)
        if low <= prediction.limit <= high and prediction.relation != "equal":
            assert judged.outcome == "not testable"


@given(BOUND, BOUND)
def test_an_interval_without_width_decides_nothing(value, level):
    assert side(value, value, level) == 0
    assert side(value, math.nan, level) == side(math.nan, value, level) == 0
    for prediction in PREDICTIONS.values():
        assert judge(prediction, value, value, value).outcome == "not testable"


@given(BOUND, BOUND, BOUND, BOUND, BOUND, BOUND)
def test_narrower_evidence_keeps_a_decision(a, b, c, d, e, f):
    low, inner_low, inner_high, high = sorted((a, b, c, d))
    least, most = sorted((e, f))
    decided, inner = (decide(*bounds, least, most) for bounds in ((low, high), (inner_low, inner_high)))
    if decided != "undecided" and inner_high - inner_low > 1e-6 * max(abs(low), abs(high)):
        assert inner == decided


@given(BOUND, BOUND, BOUND)
def test_sides_are_opposite_when_everything_is_negated(low, high, level):
    assert side(low, high, level) == -side(-high, -low, -level)


def test_the_reason_names_what_is_missing():
    assert "width" in why_undecided(0.5, 0.5)
    assert "too few seeds" in why_undecided(math.nan, 1.0)
    assert why_undecided(-1.0, 1.0) == "the interval holds 0"


def test_equality_needs_a_narrow_interval():
    p = PREDICTIONS["null-h-s"]
    assert judge(p, 0.01, 0.45, 0.95).outcome == "not testable"
    assert judge(p, 0.4, 0.45, 0.5).outcome == "holds"
    assert judge(p, 0.7, 0.8, 0.9).outcome == "fails"


@pytest.mark.parametrize("within", RANGES, ids=str)
@given(st.floats(1e-6, 1 - 1e-6), st.floats(0, 1e4))
def test_intervals_stay_in_their_range_and_hold_the_value(within, place, half):
    low = within.low if math.isfinite(within.low) else -10.0
    high = within.high if math.isfinite(within.high) else low + 20.0
    value = low + place * (high - low)
    for bounds in (within.interval(value, half), within.widened(value, *within.interval(value, half), 2.0)):
        slack = 1e-9 * max(1.0, abs(low), abs(high), half)
        assert within.low <= bounds[0] <= value + slack
        assert value - slack <= bounds[1] <= within.high


@pytest.mark.parametrize("within", RANGES, ids=str)
def test_a_narrow_interval_is_the_plain_one(within):
    low, high = within.interval(0.5 if within.low < 0.5 else 3.0, 1e-7)
    assert high - low == pytest.approx(2e-7, rel=1e-5)


def test_without_bounds_the_interval_is_the_plain_one_to_the_bit():
    for value, half in np.random.default_rng(0).normal(size=(100, 2)):
        assert REAL.interval(value, abs(half)) == (value - abs(half), value + abs(half))


@pytest.mark.parametrize(
    ("within", "draw", "truth"),
    [
        (SHARE, lambda g, s: g.beta(9, 1, s), 0.9),
        (SHARE, lambda g, s: g.beta(1, 19, s), 0.05),
        (POSITIVE, lambda g, s: g.gamma(4, 1, s), 4.0),
        (Range(1.0, 64.0), lambda g, s: 1 + 63 * g.beta(2, 8, s), 1 + 63 * 0.2),
    ],
)
@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_intervals_of_few_seeds_cover_the_mean(within, draw, truth, seeds):
    """4,000 sets of seeds: 95 % reads within ±0.7 points; the plain interval of shares covers 89 %."""
    values = draw(np.random.default_rng(seeds), (4_000, seeds))
    halves = stats.t.ppf(0.975, seeds - 1) * values.std(axis=1, ddof=1) / math.sqrt(seeds)
    bounds = np.array([within.interval(m, h) for m, h in zip(values.mean(axis=1), halves, strict=True)])
    assert 0.925 < np.mean((bounds[:, 0] <= truth) & (truth <= bounds[:, 1])) < 0.97


def test_nothing_else_compares_a_bound_with_a_level():
    """A verdict that compares bounds by itself would have rules of its own."""
    kept = {"theory/decision.py", "theory/ranges.py"}
    found = []
    for package in ("sims/analysis", "sims/studies", "theory"):
        for path in sorted((ROOT / package).rglob("*.py")):
            name = str(path.relative_to(ROOT))
            if name in kept or "speedruns" in name:
                continue
            tree = ast.parse(path.read_text(encoding="utf-8"))
            compared = [node for node in ast.walk(tree) if isinstance(node, ast.Compare)]
            sides = [(node.lineno, x) for node in compared for x in (node.left, *node.comparators)]
            found += [f"{name}:{line}" for line, x in sides if _is_bound(x)]
    assert found == []


def _is_bound(node):
    """Whether an expression is r["…low"], r["…high"], x.low or x.high."""
    if (
        isinstance(node, ast.Subscript)
        and isinstance(node.slice, ast.Constant)
        and isinstance(node.slice.value, str)
    ):
        name = node.slice.value
        return name != "null_high" and (name.endswith(("_low", "_high")) or name in ("low", "high"))
    return isinstance(node, ast.Attribute) and node.attr in ("low", "high")


@pytest.mark.parametrize(
    "within", [REAL, POSITIVE, SHARE, CORRELATION, Range(-1.0), Range(high=1.0, cut=True)]
)
@settings(max_examples=300)
@given(st.floats(-1, 3), st.one_of(st.just(0.0), st.floats(0, 1e-12), st.floats(0, 5)))
def test_every_interval_holds_its_value_and_is_a_number(within, value, half):
    """Seeds of one value had an interval beside it, or none: nan for the smallest numbers of the scale."""
    if within.low <= value <= within.high:
        for tiny in (value, math.ldexp(value, -1060)):
            low, high = within.interval(tiny, half)
            assert low <= tiny <= high
            assert half or low == tiny == high
            assert within.low <= low
            assert high <= within.high


@pytest.mark.parametrize("within", RANGES, ids=str)
@given(st.floats(0.01, 0.99), st.floats(0.01, 0.99), st.floats(0.1, 10))
def test_an_interval_holds_a_level_once_it_reaches_it(within, one, two, factor):
    low = within.low if math.isfinite(within.low) else -10.0
    high = within.high if math.isfinite(within.high) else low + 20.0
    value, level = (low + place * (high - low) for place in (one, two))
    half = factor * within.reach(value, level)
    if abs(factor - 1) > 1e-6 and half > 1e-9:
        bounds = within.interval(value, half)
        assert (bounds[0] <= level <= bounds[1]) == (factor > 1)
