"""Two times against one on what was left out: planted times, one time under several noises, own times, verdicts."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from relaxing import TIMES, relaxing
from scipy import stats

from sims.analysis.timescale_gain import OWN, Gain, _block_score, held_out_gain, slow_exponents
from sims.analysis.timescales import ONE, STRETCHED, TWO, TWO_WAVE, checked_curves, grid_losses
from sims.analysis.two_times import TwoTimes, timescales_verdict, two_timescales
from sims.system.errors import MeasureError


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10**6))
def test_a_block_is_predicted_as_by_regression(seed):
    generator = np.random.default_rng(seed)
    basis, new = generator.standard_normal((14, 3)), generator.standard_normal((4, 3))
    z, at = generator.standard_normal(14), generator.standard_normal(4)
    weights, rss = np.linalg.lstsq(basis, z, rcond=None)[:2]
    spread = np.sqrt(rss[0] / 11 * (1 + np.diag(new @ np.linalg.inv(basis.T @ basis) @ new.T)))
    expected = stats.t.logpdf(at, 11, new @ weights, spread).sum()
    assert _block_score(basis, z, new, at, 1e6) == pytest.approx(expected, rel=1e-6)


def test_a_block_that_the_other_looks_do_not_determine_has_a_wide_prediction():
    basis = np.column_stack([np.ones(10), np.ones(10)])
    z = np.random.default_rng(0).standard_normal(10)
    far = _block_score(basis, z, np.array([[1.0, 0.0]]), np.array([50.0]), 100.0)
    near = _block_score(basis, z, np.array([[1.0, 1.0]]), np.array([50.0]), 100.0)
    assert near < far
    assert math.isfinite(far)


def test_planted_times_are_two_and_shown_under_two_schedules():
    found = two_timescales(TIMES, relaxing(np.random.default_rng(0), layers=6), resamples=39)
    assert found.two
    assert (found.fast, found.slow) == (pytest.approx(30, rel=0.1), pytest.approx(300, rel=0.1))
    assert 2 < found.low <= found.ratio <= found.high
    assert found.row()["two"]
    assert not found.reason
    assert timescales_verdict({"constant": found, "cosine": found}).outcome == "shown"
    assert timescales_verdict({"constant": found}).outcome == "not resolved"


CASES = {
    "white noise": {},
    "noise with memory": {"memory": 0.9},
    "stronger memory": {"memory": 0.97},
    "a wave": {"kappa": 1.5},
    "own times": {"spread": 0.6},
}


def chosen_two(seed, **options):
    """All gains of the rule, for curves with one time; the ratio is left to the verdict."""
    values = relaxing(np.random.default_rng(seed), layers=6, fast=80, rise=0.0, **options)
    gains = (held_out_gain(TIMES, values, simple) for simple in (ONE, OWN))
    return all(gain.positive for gain in gains)


@pytest.mark.parametrize("case", CASES)
def test_curves_with_one_time_are_not_two(case):
    assert sum(chosen_two(i, **CASES[case]) for i in range(6)) == 0


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_one_time_is_chosen_in_at_least_95_per_cent(case):
    hits = sum(chosen_two(1_000 + i, **CASES[case]) for i in range(240))
    assert hits <= 0.05 * 240


def test_independent_noise_would_make_two_times_of_one():
    """A mutant: one correlation for both models, 0, and an information criterion in place of layers left out."""
    twos = 0
    for i in range(10):
        values = relaxing(np.random.default_rng(i), layers=6, fast=80, rise=0.0, memory=0.9)
        curves = checked_curves(TIMES, values)
        best = []
        for model in (ONE, TWO):
            clocks, losses = grid_losses(curves, model)
            plain = [k for k, clock in enumerate(clocks) if clock.correlation == 0]
            best.append(float(losses[plain].sum(axis=1).min()))
        # Two times have one weight more a curve, and one time more.
        twos += best[0] - best[1] > (6 * 2 + 1) / 2 * math.log(values.size)
    assert twos > 5
    assert chosen_two(0, memory=0.9) is False


def test_own_times_alone_look_like_two_shared_ones():
    """A mutant: without one time of each layer's own as a rival."""
    values = relaxing(np.random.default_rng(0), fast=80, rise=0.0, spread=0.15)
    assert held_out_gain(TIMES, values, ONE).positive
    assert not held_out_gain(TIMES, values, OWN).positive


@pytest.mark.slow
def test_one_shape_that_is_no_exponential_looks_like_two_times():
    """A mutant: without a stretched time as a rival, curves that fall as a logarithm or a stretched exponential."""
    generator = np.random.default_rng(0)
    size = 1 + 0.5 * generator.random((1, 1, 8))
    for shape in (np.log1p(TIMES / 30) / 3, -np.expm1(-np.sqrt(TIMES / 100))):
        values = 3 - size * shape[:, None] + 0.02 * generator.standard_normal((2, len(TIMES), 8))
        assert held_out_gain(TIMES, values, ONE).positive
        assert held_out_gain(TIMES, values, OWN).positive
        assert not held_out_gain(TIMES, values, STRETCHED).positive


@pytest.mark.slow
def test_decay_of_the_learning_rate_makes_a_second_time_in_steps_and_not_in_its_sums():
    steps = np.concatenate([[0.0], np.geomspace(3, 1_000, 44)])
    every = np.arange(1_001.0)
    rate = np.minimum(every / 100, 1) * (
        0.1 + 0.45 * (1 + np.cos(np.pi * np.clip((every - 100) / 900, 0, 1)))
    )
    sums = np.interp(steps, every, np.concatenate([[0.0], np.cumsum(rate)[:-1]]))
    values = relaxing(np.random.default_rng(0), fast=150, rise=0.0, times=sums)
    in_steps = [held_out_gain(steps, values, simple).positive for simple in (ONE, OWN)]
    assert all(in_steps)
    assert not held_out_gain(sums, values).positive


@pytest.mark.slow
def test_a_wave_is_gained_where_there_is_one():
    waved = relaxing(np.random.default_rng(0), kappa=0.8)
    still = relaxing(np.random.default_rng(0))
    assert held_out_gain(TIMES, waved, TWO, TWO_WAVE).positive
    assert not held_out_gain(TIMES, still, TWO, TWO_WAVE).positive


def test_seeds_left_out_agree_with_layers_left_out():
    values = relaxing(np.random.default_rng(2), layers=5)
    assert held_out_gain(TIMES, values, unseen="seeds").positive
    noise = relaxing(np.random.default_rng(2), layers=5, rise=0.0)
    assert not held_out_gain(TIMES, noise, unseen="seeds").positive


def test_exponents_follow_the_time_they_were_made_with():
    ranks = relaxing(np.random.default_rng(0), layers=6)
    slow = relaxing(np.random.default_rng(1), layers=6, fast=300.0, rise=0.0)
    fast = relaxing(np.random.default_rng(1), layers=6, fast=30.0, rise=0.0)
    assert slow_exponents(TIMES, ranks, slow).positive
    other = slow_exponents(TIMES, ranks, fast)
    assert other.gain + 2 * other.error < 0
    assert slow_exponents(TIMES, ranks[..., :3], slow[..., :3]).status == "not resolved"
    with pytest.raises(MeasureError, match="the same layers"):
        slow_exponents(TIMES, ranks, slow[..., :5])


def made(**fields):
    good = Gain(8, 10.0, 1.0)
    plain = TwoTimes(8, 2, 30.0, 300.0, 10.0, 8.0, 12.0, 60.0, 0.3, False, good, good, good, good)
    return replace(plain, **fields)


def test_every_part_of_the_rule_is_needed():
    weak = Gain(8, 1.5, 1.0)
    assert made().two
    for fields in (
        {"layers_gain": weak},
        {"own_gain": weak},
        {"stretched_gain": weak},
        {"seeds_gain": weak},
        {"low": 1.9},
    ):
        one = made(**fields)
        assert not one.two
        assert timescales_verdict({"constant": made(), "cosine": one}).outcome == "not shown"
    assert "at the longest" in made(bounded=True).sentence
    assert not Gain(8, 1.0, 0.0).positive


def test_what_cannot_be_judged_says_why():
    values = relaxing(np.random.default_rng(0), layers=3, seeds=1)
    found = two_timescales(TIMES, values, resamples=19)
    assert found.reason == "layers left out: 3 layers; 4 are needed"
    assert found.reason in found.sentence
    assert not found.two
    single = held_out_gain(TIMES, relaxing(np.random.default_rng(0), seeds=1), unseen="seeds")
    assert (single.status, single.reason) == ("not resolved", "one seed; another must be left out")
    assert "one seed" in single.sentence
    verdict = timescales_verdict({"constant": found, "cosine": made()})
    assert (verdict.outcome, "3 layers" in verdict.reason) == ("not resolved", True)
    with pytest.raises(MeasureError, match="choose layers or seeds"):
        held_out_gain(TIMES, values, unseen="looks")  # type: ignore[arg-type]
    with pytest.raises(MeasureError, match="19"):
        two_timescales(TIMES, values, resamples=5)
