"""Inverted U: lines against plain regression, rates of rejection, planted peaks, moving peaks, verdicts."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from sims.analysis.peaks import InvertedU, inverted_u, inverted_u_verdict, peak_shift
from sims.system.errors import MeasureError


def profile(generator, layers, seeds=4, height=4.0, top=0.5, noise=0.2):
    x = np.linspace(0, 1, layers)
    clean = -height * (x - top) ** 2 / 0.25
    return (
        clean
        + noise * generator.standard_normal((1, layers))
        + 0.1 * generator.standard_normal((seeds, layers))
    )


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**6), st.sampled_from([6, 8, 13]))
def test_slopes_are_those_of_lines_up_to_the_break_and_after_it(seed, layers):
    y = np.random.default_rng(seed).standard_normal(layers)
    found = inverted_u(y)
    x = np.linspace(0, 1, layers)
    before, after = x <= found.break_at, x > found.break_at
    assert min(before.sum(), after.sum()) >= 3
    lines = [np.polyfit(x[part], y[part], 1) for part in (before, after)]
    assert (found.before, found.after) == pytest.approx((lines[0][0], lines[1][0]))
    degree = 3 if layers >= 9 else 2
    rest = y - np.polyval(np.polyfit(x, y, degree), x)
    rho = np.clip((rest[1:] * rest[:-1]).sum() / (rest**2).sum() + (degree + 1) / layers, 0, 0.6)
    error = math.sqrt((rest**2).sum() / (layers - degree - 1) * (1 + rho) / (1 - rho))
    for part, slope, p in ((before, found.before, found.p_before), (after, found.after, found.p_after)):
        own = x[part] - x[part].mean()
        t = slope * math.sqrt(own @ own) / error
        assert p == pytest.approx(2 * stats.t.sf(abs(t), layers - degree - 1))


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10**6), st.floats(0.1, 10), st.floats(-5, 5))
def test_units_do_nothing_and_the_reverse_order_mirrors(seed, unit, level):
    values = profile(np.random.default_rng(seed), 10)
    plain, moved = inverted_u(values), inverted_u(unit * values + level)
    assert (moved.p_before, moved.p_after, moved.peak) == pytest.approx(
        (plain.p_before, plain.p_after, plain.peak), rel=1e-4
    )
    turned = inverted_u(values[:, ::-1])
    assert (turned.peak, turned.peak_low, turned.peak_high) == pytest.approx(
        (1 - plain.peak, 1 - plain.peak_high, 1 - plain.peak_low), abs=1e-6
    )


SHAPES = {
    "flat": lambda x: 0 * x,
    "line": lambda x: 3 * x,
    "levels off": lambda x: 3 * (1 - np.exp(-5 * x)),
    "rises, then is flat": lambda x: 8 * np.minimum(x, 0.5),
    "is flat, then falls": lambda x: -8 * np.maximum(x - 0.5, 0),
    "convex": lambda x: 4 * x**3,
    "step": lambda x: 6 * (x > 0.4),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("layers", [6, 12, 24])
def test_monotone_profiles_seldom_pass(shape, layers):
    """At most 5 % of 200 draws, up to chance, with independent layers."""
    clean, hits = SHAPES[shape](np.linspace(0, 1, layers)), 0
    for i in range(200):
        found = inverted_u(clean + np.random.default_rng([layers, i]).standard_normal(layers))
        hits += found.before > 0 > found.after and max(found.p_before, found.p_after) < 0.05
    assert stats.binomtest(hits, 200, 0.05, "greater").pvalue > 1e-2


def test_a_quadratic_or_the_best_break_alone_would_pass_far_too_often():
    """Mutants: the sign of a quadratic, and the break at which both lines are most significant, for a plateau."""
    x = np.linspace(0, 1, 24)
    quadratic = best = 0
    for i in range(100):
        y = 8 * np.minimum(x, 0.5) + np.random.default_rng(i).standard_normal(24)
        square, slope, _ = np.polyfit(x, y, 2)
        quadratic += square < 0 and 0 < -slope / 2 / square < 1
        for k in range(3, 22):
            rises = stats.linregress(x[:k], y[:k], alternative="greater")
            falls = stats.linregress(x[k:], y[k:], alternative="less")
            if np.max([rises[3], falls[3]]) < 0.025:
                best += 1
                break
    assert quadratic > 80
    assert best > 8


def test_a_planted_peak_is_found_with_and_without_the_ends():
    generator = np.random.default_rng(0)
    values = profile(generator, 16, top=0.4)
    whole, inner = inverted_u(values), inverted_u(values, interior=True)
    assert whole.peaked
    assert whole.peak_low < 0.4 + 0.05
    assert whole.peak == pytest.approx(0.4, abs=0.05)
    assert inner.peak == pytest.approx(0.4, abs=0.1)
    assert whole.block == pytest.approx(whole.peak * 15)
    assert inner.block == pytest.approx(inner.peak * 15)
    assert inner.layers == 14
    assert inverted_u_verdict(whole, inner).outcome == "shown"


def test_a_peak_made_by_the_ends_is_not_shown():
    values = np.tile(np.array([-9.0, *np.linspace(0, 0.4, 10), -9.0]), (4, 1))
    values = values + 0.05 * np.random.default_rng(1).standard_normal(values.shape)
    whole, inner = inverted_u(values), inverted_u(values, interior=True)
    assert whole.interior == 1.0
    assert not inner.peaked
    assert inverted_u_verdict(whole, inner).outcome == "not shown"


def test_an_exact_profile_has_the_peak_of_its_quadratic():
    x = np.linspace(0, 1, 9)
    assert inverted_u(-((x - 0.3) ** 2)).peak == pytest.approx(0.3)
    assert inverted_u(x).peak == pytest.approx(1.0)
    assert inverted_u(-x).peak == pytest.approx(0.0)
    assert inverted_u((x - 0.3) ** 2).peak == pytest.approx(1.0)


def moved(tops):
    return {n: inverted_u(profile(np.random.default_rng(n), n, top=t)) for n, t in tops.items()}


def test_peaks_that_come_earlier_are_found_by_permutation():
    found = peak_shift(moved({8: 0.65, 12: 0.57, 16: 0.5, 24: 0.42, 36: 0.35}))
    assert (found.rho, found.p) == pytest.approx((-1.0, 2 / 120))
    assert found.rho_block == pytest.approx(1.0)
    assert found.verdict.outcome == "shown"
    later = peak_shift(moved({8: 0.35, 12: 0.42, 16: 0.5, 24: 0.57, 36: 0.65}))
    assert later.verdict.outcome == "not shown"


def test_peaks_at_random_seldom_move():
    hits = 0
    for i in range(200):
        tops = np.random.default_rng(i).uniform(0.3, 0.7, 5)
        made = {
            8 + k: InvertedU(8 + k, 3, peak=t, block=t * (7 + k), interior=1.0) for k, t in enumerate(tops)
        }
        hits += peak_shift(made).verdict.outcome == "shown"
    assert stats.binomtest(hits, 200, 0.05, "greater").pvalue > 1e-2


def test_depths_without_a_peak_are_left_out_and_four_are_too_few():
    some = moved({8: 0.65, 12: 0.57, 16: 0.5, 24: 0.42})
    flat = inverted_u(np.tile(np.linspace(0, 1, 36), (3, 1)))
    found = peak_shift({**some, 36: flat})
    assert (found.left_out, found.status) == ((36,), "not resolved")
    assert "between the ends: 4" in found.verdict.reason
    same = InvertedU(8, 3, peak=0.5, block=3.5, interior=1.0)
    assert "same depth" in peak_shift(dict.fromkeys(range(8, 13), same)).reason


def test_what_has_no_profile_says_why():
    values = profile(np.random.default_rng(0), 12, seeds=2)
    assert inverted_u(values).status == "ok"
    found = inverted_u_verdict(inverted_u(values), inverted_u(values, interior=True))
    assert found.outcome == "not resolved"
    assert "2 seeds" in found.reason
    assert "5 layers" in inverted_u(np.arange(5.0)).reason
    assert "same value" in inverted_u(np.ones(8)).reason
    assert "1 values are missing" in inverted_u(np.array([*range(7), np.nan])).sentence
    with pytest.raises(MeasureError, match="finite"):
        inverted_u(np.array([1.0, np.inf, 2, 3, 4, 5]))
