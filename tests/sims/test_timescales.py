"""Shared times of relaxation: recovery, the likelihood of the definition, nothing better nearby, symmetries."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from relaxing import TIMES, relaxing
from scipy import stats

from sims.analysis.timescales import (
    ONE,
    ONE_WAVE,
    STRETCHED,
    TWO,
    TWO_WAVE,
    Clock,
    best_clock,
    checked_curves,
    fit_timescales,
    loss_of,
)
from sims.system.errors import MeasureError


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("memory", [0.0, 0.7])
def test_planted_times_are_recovered_within_ten_per_cent(seed, memory):
    values = relaxing(np.random.default_rng(seed), memory=memory)
    found = fit_timescales(TIMES, values)
    assert found.slow is not None
    assert found.ratio is not None
    assert (found.fast, found.slow) == (pytest.approx(30, rel=0.1), pytest.approx(300, rel=0.1))
    assert found.ratio == pytest.approx(found.slow / found.fast)
    # The weights of each curve take some of what is slow in its noise.
    assert memory - 0.3 < found.correlation < memory + 0.1
    assert not found.bounded


def test_curves_without_noise_are_found_exactly():
    values = relaxing(np.random.default_rng(0), noise=0.0)
    found = fit_timescales(TIMES, values)
    assert found.slow is not None
    assert (found.fast, found.slow) == (pytest.approx(30, rel=1e-3), pytest.approx(300, rel=1e-3))
    assert found.fitted == pytest.approx(values, abs=1e-4)
    assert found.start == pytest.approx(values[:, 0], abs=1e-3)
    assert ((found.fall > 0.9) & (found.fall < 1.7)).all()
    assert ((found.rise > 0.4) & (found.rise < 1.1)).all()


def test_one_time_is_found_and_has_no_second():
    found = fit_timescales(TIMES, relaxing(np.random.default_rng(0), fast=80, rise=0.0), ONE)
    assert found.fast == pytest.approx(80, rel=0.1)
    assert (found.slow, found.ratio, found.kappa) == (None, None, 0.0)
    assert (found.rise == 0).all()


@pytest.mark.parametrize("kappa", [-0.6, 0.8])
def test_a_planted_wave_is_recovered(kappa):
    found = fit_timescales(TIMES, relaxing(np.random.default_rng(1), kappa=kappa), TWO_WAVE)
    assert found.kappa == pytest.approx(kappa, abs=0.1)
    assert found.slow == pytest.approx(300, rel=0.15)
    alone = relaxing(np.random.default_rng(1), fast=60, kappa=kappa, rise=0.0)
    one = fit_timescales(TIMES, alone, ONE_WAVE)
    assert (one.kappa, one.fast) == (pytest.approx(kappa, abs=0.1), pytest.approx(60, rel=0.1))


def test_a_stretched_time_is_recovered():
    generator = np.random.default_rng(0)
    clean = 3 - (1 + generator.random(6)) * -np.expm1(-((TIMES[:, None] / 100) ** 0.6))
    found = fit_timescales(TIMES, clean + 0.01 * generator.standard_normal(clean.shape), STRETCHED)
    assert (found.fast, found.stretch) == (pytest.approx(100, rel=0.1), pytest.approx(0.6, abs=0.05))
    plain = fit_timescales(TIMES, relaxing(generator, fast=80, rise=0.0), STRETCHED)
    assert plain.stretch == pytest.approx(1.0, abs=0.1)


def test_a_drift_that_outlasts_training_has_no_time_that_could_be_told():
    generator = np.random.default_rng(0)
    drift = relaxing(generator, rise=0.0) + generator.uniform(0.5, 1, 8) * TIMES[:, None] / TIMES[-1]
    assert fit_timescales(TIMES, drift).bounded


@settings(deadline=None, max_examples=10)
@given(st.integers(0, 10**6), st.sampled_from([0.0, 0.5, 0.9]), st.sampled_from([None, 300.0]))
def test_the_loss_is_the_gaussian_likelihood_of_first_order_noise(seed, rho, slow):
    """The slow oracle: the full covariance, with the weights of generalised least squares and the best variance."""
    values = relaxing(np.random.default_rng(seed), layers=2, seeds=1, times=TIMES[::3])
    times, n = TIMES[::3], len(TIMES[::3])
    clock = Clock(math.log(25.0), None if slow is None else math.log(slow), 0.4, rho)
    covariance = rho ** np.abs(np.subtract.outer(np.arange(n), np.arange(n))) if rho else np.eye(n)
    total = 0.0
    for layer in range(2):
        columns = [np.ones(n), 1 - np.exp(-times / (25.0 * math.exp(0.4 * layer)))]
        columns += [] if slow is None else [1 - np.exp(-times / slow)]
        design, y = np.stack(columns, axis=1), values[0, :, layer]
        inverse = np.linalg.inv(covariance)
        rest = y - design @ np.linalg.solve(design.T @ inverse @ design, design.T @ inverse @ y)
        # first-order noise of stationary variance v: (1 − ρ²)·v is that of its steps
        variance = rest @ inverse @ rest / n
        total += stats.multivariate_normal(np.zeros(n), variance * covariance).logpdf(rest)
    expected = -loss_of(clock, checked_curves(times, values)) - n * (1 + math.log(2 * math.pi / n))
    # The loss counts the variance of the steps.
    assert expected == pytest.approx(total, abs=1e-6)


def test_the_reported_likelihood_is_that_of_the_fit():
    values = relaxing(np.random.default_rng(0), layers=3, seeds=2)
    found, n = fit_timescales(TIMES, values, ONE), len(TIMES)
    rest = values - found.fitted
    steps = np.concatenate(
        [
            np.sqrt(1 - found.correlation**2) * rest[:, :1],
            rest[:, 1:] - found.correlation * rest[:, :-1],
        ],
        axis=1,
    )
    size = np.sqrt((steps**2).mean(axis=1))
    expected = stats.norm.logpdf(steps / size[:, None]).sum() - n * np.log(size).sum()
    expected += size.size / 2 * math.log(1 - found.correlation**2)
    assert found.log_likelihood == pytest.approx(expected, abs=1e-6)


@settings(deadline=None, max_examples=10)
@given(st.integers(0, 10**6), st.sampled_from([ONE, TWO]))
def test_no_other_clock_is_better(seed, model):
    generator = np.random.default_rng(seed)
    curves = checked_curves(TIMES, relaxing(generator, layers=4, memory=0.4, noise=0.05))
    best = loss_of(best_clock(curves, model), curves)
    for _ in range(100):
        fast = generator.uniform(0, math.log(1_000))
        slow = generator.uniform(fast + math.log(1.5), math.log(3_500)) if model.slow else None
        other = Clock(fast, slow, 0.0, generator.uniform(0, 0.97))
        assert loss_of(other, curves) >= best - 0.05


@settings(deadline=None, max_examples=10)
@given(st.integers(0, 10**6), st.floats(0.1, 10), st.floats(0.1, 10), st.floats(-3, 3))
def test_times_scale_with_the_clock_and_know_neither_size_nor_level(seed, clock, size, level):
    values = relaxing(np.random.default_rng(seed), layers=5)
    plain = fit_timescales(TIMES, values)
    moved = fit_timescales(clock * TIMES + 7.0, size * values + level)
    assert plain.slow is not None
    assert (moved.fast, moved.slow) == (
        pytest.approx(clock * plain.fast, rel=0.02),
        pytest.approx(clock * plain.slow, rel=0.02),
    )


def test_richer_models_fit_at_least_as_well():
    values = relaxing(np.random.default_rng(3), noise=0.1)
    one, wave, two, both = (
        fit_timescales(TIMES, values, model).log_likelihood for model in (ONE, ONE_WAVE, TWO, TWO_WAVE)
    )
    assert one <= wave + 0.01
    assert one <= two + 0.01
    assert two <= both + 0.01


@pytest.mark.parametrize(
    ("times", "values", "said"),
    [
        (TIMES[:8], np.zeros((8, 4)), "at least 12"),
        (TIMES, np.zeros((9, 4)), "45 times"),
        (TIMES[::-1], np.zeros((45, 4)), "rise"),
        (TIMES, np.full((45, 4), np.nan), "finite"),
        (TIMES, np.zeros((45, 4)), "constant"),
    ],
)
def test_wrong_input_is_refused(times, values, said):
    with pytest.raises(MeasureError, match=said):
        fit_timescales(times, values)
