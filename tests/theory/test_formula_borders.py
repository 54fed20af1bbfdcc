"""Closed forms at the borders of their parameters: equal sizes, large heads, tiny and huge scales, whole numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from theory import select, verify
from theory.claims import features as feature_claims
from theory.compare import equal
from theory.fits import fit_batch_curve, lack_of_fit, profile_interval
from theory.formulas import dynamics, fourier, lms, markov, matrices, tying
from theory.roots import bracketed_root
from theory.simulate.features import decline
from theory.simulate.readout import cross_entropy, rms_normalise
from theory.simulate.walk_draws import draw_walks
from theory.values import Measurement, Tolerance
from theory.verification import check_cases

EVERY = settings(deadline=None, max_examples=30)
SCALES = st.floats(-12, 12).map(lambda power: 10.0**power)


@pytest.mark.parametrize(("d", "n"), [(8, 8), (64, 64), (32, 33), (64, 6400), (1, 1)])
def test_quantiles_of_white_noise_have_the_mass_of_the_density_above_them(d, n):
    """With as many samples as dimensions the density has no lower edge: all quantiles were 0 up to rounding."""
    quantiles = matrices.bulk_quantiles(d, n)
    assert (np.diff(quantiles) < 0).all()
    for j in {1, (d + 1) // 2, d}:
        assert matrices.bulk_mass_above(float(quantiles[j - 1]), d / n) == pytest.approx(
            (j - 0.5) / d, abs=1e-6
        )


def test_the_null_exponent_has_no_jump_where_the_sizes_become_equal():
    alphas = [matrices.null_exponent(128, n, 10, 40) for n in (128, 129, 130)]
    assert np.abs(np.diff(alphas)).max() < 0.005


@pytest.mark.parametrize("x", [-1.0, 0.0, 0.25, 2.25, 9.0])
def test_there_is_no_density_outside_the_bulk(x):
    assert matrices.bulk_density(x, 0.25) == 0.0


HEADS = st.tuples(st.integers(2, 8), st.integers(1, 4), st.floats(-3, 3), st.integers(0, 2**32 - 1))


def drawn_head(drawn):
    vocab, width, power, seed = drawn
    rng = np.random.default_rng(seed)
    return 10.0**power * rng.normal(size=(vocab, width)), rng.normal(size=(2, width))


@EVERY
@given(HEADS)
def test_a_path_is_at_least_as_long_as_its_laws_are_apart_whatever_the_size_of_the_head(drawn):
    head, ends = drawn_head(drawn)
    distance = markov.fisher_rao_distance(*(np.exp(markov_logs(head @ h)) for h in ends))
    length = markov.path_length(head, *ends)
    assert length >= distance - 1e-7
    if drawn[0] == 2:
        assert length == pytest.approx(distance, abs=1e-7)


def markov_logs(z):
    z = z - z.max()
    return z - np.log(np.exp(z).sum())


@EVERY
@given(HEADS, st.floats(0, 1))
def test_the_speed_of_a_path_is_that_of_the_fisher_metric(drawn, place):
    head, (start, end) = drawn_head(drawn)
    change = end - start
    (speed,) = markov._speeds(head @ start, head @ change, np.array([place]))
    squared = change @ markov.fisher_metric(head, start + place * change) @ change
    assert speed**2 == pytest.approx(squared, rel=1e-6, abs=1e-9 * np.abs(head @ change).max() ** 2)


def test_a_path_of_logits_that_no_rule_resolves_is_refused():
    with pytest.raises(ValueError, match="at most 1e\\+06"):
        markov.path_length([[1e9], [0.0]], [-1.0], [1.0])
    with pytest.raises(ValueError, match="pass finite states"):
        markov.path_length([[math.nan], [0.0]], [-1.0], [1.0])


@EVERY
@given(st.lists(st.floats(0.01, 1.0), min_size=1, max_size=6), st.sampled_from([1, 4, 64]), SCALES)
def test_the_critical_rate_goes_with_one_over_the_scale_of_the_inputs(lam, batch, scale):
    """A root was found to 1e-13 in absolute terms: of eigenvalues of 1e12 the rate was off by a hundredth."""
    found = lms.critical_rate(np.array(lam) * scale, batch) * scale
    assert found == pytest.approx(lms.critical_rate(lam, batch), rel=1e-10)


def test_roots_of_small_functions_on_small_brackets():
    assert bracketed_root(lambda x: 1e-200 * (x - 3e-13), 0.0, 1e-12) == pytest.approx(3e-13, rel=1e-9)
    with pytest.raises(ValueError, match="widen the bracket"):
        bracketed_root(lambda x: 1e-200 * (x + 1), 0.0, 1.0)
    assert bracketed_root(lambda x: x, 0.0, 1.0) == 0.0


def test_whole_numbers_are_numbers():
    assert dynamics.normalised_head_rate(1, 4) == dynamics.normalised_head_rate(1.0, 4)
    one, other = (draw_walks(np.random.default_rng(3), 9, 3, vocab=9, offset_power=p) for p in (2, 2.0))
    np.testing.assert_array_equal(one, other)


def test_curves_of_lists_have_the_intervals_of_arrays():
    sizes, logs = [32, 128, 512], [[1.0, 1.3, 2.1], [1.1, 1.2, 2.2]]
    curve = fit_batch_curve(sizes, logs)
    assert profile_interval(sizes, logs, curve) == profile_interval(np.array(sizes), np.array(logs), curve)
    assert lack_of_fit(logs, curve) == lack_of_fit(np.array(logs), curve)


@pytest.mark.parametrize("scale", [1e-200, 1.0, 1e200])
def test_the_effective_dimension_ignores_the_scale(scale):
    assert fourier.effective_dimension(np.array([3.0, 1.0]) * scale) == pytest.approx(1.6)


def test_a_total_variation_of_1_up_to_rounding_has_a_bound_and_another_is_refused():
    assert markov.entropy_gap_bound(1 + 1e-9, 5) == pytest.approx(math.log(4))
    assert math.isnan(markov.entropy_gap_bound(math.nan, 5))
    for wrong in (1.5, -0.1):
        with pytest.raises(ValueError, match="from 0 to 1"):
            markov.entropy_gap_bound([0.5, wrong], 5)


@pytest.mark.parametrize("energy", [0.0, -1.0, math.nan, math.inf])
def test_a_window_with_an_energy_that_is_not_positive_has_no_exponent(energy):
    with pytest.raises(ValueError, match="not positive and finite"):
        dynamics.exponent([4.0, 2.0, energy, 1.0], 1, 3)
    assert dynamics.exponent([4.0, 2.0, energy], 1, 2) == pytest.approx(1.0)


def test_another_profile_is_refused():
    with pytest.raises(ValueError, match="'quick' or 'full'"):
        verify(select("T7.scale")[0], "fulll")  # pyright: ignore[reportArgumentType]


def test_one_path_without_starts_has_no_decline():
    with pytest.raises(ValueError, match=r"none of \(T, S\)"):
        decline(np.array([3.0, 2.0, 4.0]))


def test_an_infinite_error_compares_nothing():
    measured = Measurement(np.array([5.0]), np.array([np.inf]))
    assert np.isnan(equal(np.array([1.0]), measured, Tolerance("draws", sigmas=5.0), {}))


def test_features_and_head_stay_balanced_where_squared_errors_are_learned_fastest():
    """Found when task and start no longer shared their draws: 200 steps missed the tolerance by a factor of 20."""
    case = {
        "vocab": 4,
        "std": 1.0,
        "width": 1,
        "seed": 1332595450,
        "time": 3.936699,
        "rows": 2,
        "loss": "squared",
    }
    (result,) = check_cases(select("T13")[0], [case], "quick", 0)
    assert result.score < 0.2


def test_the_start_of_free_features_is_not_drawn_from_the_stream_of_their_task():
    # numpy takes the seeds s and [s, 0] for one.
    case = {"rows": 3, "vocab": 3, "width": 2, "std": 1.0, "seed": 5}
    start = feature_claims._start(case).features[0]
    of_task = np.random.default_rng([5, 0]).standard_normal((6, 2))[:3]
    assert not np.isclose(start, of_task).any()


@pytest.mark.parametrize(("vocab", "d"), [(16, 14), (64, 20), (1024, 31)])
def test_other_tokens_add_little_to_a_tied_start_from_four_times_ln_2v_on(vocab, d):
    """The width from which `theory --against` asks tied runs for their loss at step 0."""
    from sims.studies.theory.tying import WIDTHS

    assert d >= WIDTHS * math.log(2 * vocab) > d - 1.5
    rng, added = np.random.default_rng(0), []
    for _ in range(1000 // vocab + 2):
        w = rng.standard_normal((vocab, d))
        logits = rms_normalise(w) @ w.T
        # The loss of the token itself is what the others add.
        added.append(cross_entropy(logits, np.arange(vocab)).mean())
    assert np.mean(added) < 0.07
    assert tying.tied_initial_loss(d) == pytest.approx(d - 0.25, abs=0.01)


@pytest.mark.parametrize("weights", [[0.0, 0.0], [-1.0, 0.0], [math.nan, 1.0], [math.inf, 1.0]])
def test_a_spectrum_without_shares_has_no_entropy_rank(weights):
    """They had the entropy rank 1, that of a single direction."""
    with pytest.raises(ValueError, match="spectrum"):
        fourier.exp_entropy(weights)


@EVERY
@given(st.integers(1, 6), st.integers(2, 6), st.booleans(), st.integers(0, 2**32 - 1))
def test_the_gradient_of_a_zero_head_is_a_number_where_states_cancel(n, vocab, cancel, seed):
    """States of one target that add up to 0 had the root of a negative number."""
    rng = np.random.default_rng(seed)
    states, targets = rng.normal(size=(n, 3)), rng.integers(0, vocab, n)
    if cancel:
        states, targets = np.vstack([states, -states.sum(axis=0)]), np.zeros(n + 1, int)
    gradient = (1 / vocab - np.eye(vocab)[targets]).T @ states / len(states)
    assert tying.zero_head_gradient_norm(states, targets, vocab) == pytest.approx(
        np.linalg.norm(gradient), rel=1e-9, abs=1e-12
    )


@pytest.mark.parametrize(
    ("mass", "inside", "rate"),
    [([0.0, 2.0], [True, False], 1.5), ([2.0, 0.0], [True, False], -0.5), ([1.0, 1.0], [True, True], 0.0)],
)
def test_a_side_without_mass_has_a_rate_of_its_share(mass, inside, rate):
    assert dynamics.replicator_rate(mass, [3.0, 1.0], inside) == pytest.approx(rate)


def test_zeros_have_no_effective_dimension_and_a_walk_needs_a_step():
    for wrong in ([0.0, 0.0], [math.nan, 1.0]):
        with pytest.raises(ValueError, match="not finite or all zero"):
            fourier.effective_dimension(wrong)
    for q in (0, 5):
        with pytest.raises(ValueError, match="1 ≤ q"):
            fourier.bigram_modulus(5, q)
