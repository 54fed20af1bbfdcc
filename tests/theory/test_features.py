"""Free features under a head: the simulator against plain loops, its starts, its summaries, its errors."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from theory.formulas.entropy import effective_rank
from theory.formulas.features import balance
from theory.simulate import features as simulate
from theory.simulate.features import FeatureState, FeatureTask, decline, descend, iid_start, log_looks

SKEWED = FeatureTask.counted((2, 2, 1, 1))


def mean_loss(task, features, head, bias, squared=False):
    """The loss of one start, row by row and token by token."""
    total = 0.0
    for weight, target, row in zip(task.weights, task.targets, features, strict=True):
        logits = [float(row @ head[:, j] + bias[j]) for j in range(head.shape[1])]
        if squared:
            total += weight * sum((z - y) ** 2 for z, y in zip(logits, target, strict=True)) / 2
        else:
            shift = np.log(sum(np.exp(z) for z in logits))
            total += weight * sum(y * (shift - z) for z, y in zip(logits, target, strict=True))
    return total


@pytest.mark.parametrize("loss", ["cross-entropy", "squared"])
@pytest.mark.parametrize("bias", [False, True])
def test_a_step_follows_the_gradient_of_the_loss(loss, bias):
    task = FeatureTask.zipf(4).with_floor(0.3)
    start = iid_start(task, 2, 0.7, (3,))
    run = descend(task, start, 0.1, (0, 1), bias=bias, loss=loss)
    parts = [start.features[0], start.head[0], start.bias[0]]
    assert run.loss[0, 0] == pytest.approx(mean_loss(task, *parts, squared=loss == "squared"))
    after = (run.final.features[0], run.final.head[0], run.final.bias[0])
    for k, (old, new) in enumerate(zip(parts, after, strict=True)):
        slope, h = np.zeros_like(old), 1e-6
        for index in np.ndindex(old.shape):
            values = []
            for sign in (1, -1):
                moved = [part.copy() for part in parts]
                moved[k][index] += sign * h
                values.append(mean_loss(task, *moved, squared=loss == "squared"))
            slope[index] = (values[0] - values[1]) / (2 * h)
        learned = bias or k < 2
        np.testing.assert_allclose(new - old, -0.1 * slope * learned, atol=1e-9)
    # What was passed is left alone.
    np.testing.assert_array_equal(start.features, iid_start(task, 2, 0.7, (3,)).features)


def test_starts_of_several_seeds_are_those_of_each_and_run_as_alone():
    task, looks = FeatureTask.zipf(6).with_floor(0.2), (0, 3, 20)
    together = descend(task, iid_start(task, 3, 0.3, (5, 9)), 1.0, looks, bias=True)
    for i, seed in enumerate((5, 9)):
        alone = descend(task, iid_start(task, 3, 0.3, (seed,)), 1.0, looks, bias=True)
        for name in simulate.RANKS:
            np.testing.assert_allclose(together.ranks[name][:, i], alone.ranks[name][:, 0], rtol=1e-12)
        np.testing.assert_allclose(together.final.features[i], alone.final.features[0], rtol=1e-12)


def test_ranks_are_those_of_the_four_covariances():
    task = FeatureTask.zipf(5)
    run = descend(task, iid_start(task, 3, 0.5, (1,)), 1.0, (7,))
    x = run.final.features[0]
    for weights, name in ((task.weights, "weighted"), (np.full(5, 0.2), "unweighted")):
        mean = sum(w * row for w, row in zip(weights, x, strict=True))
        moment = sum(w * np.outer(row, row) for w, row in zip(weights, x, strict=True))
        centred = np.linalg.eigvalsh(moment - np.outer(mean, mean))
        assert run.ranks[name][0, 0] == pytest.approx(effective_rank(centred))
        assert run.ranks[f"{name}, uncentred"][0, 0] == pytest.approx(
            effective_rank(np.linalg.eigvalsh(moment))
        )
        if name == "weighted":
            np.testing.assert_allclose(run.spectra[0, 0], centred[::-1], rtol=1e-9)


def test_widths_beyond_the_rows_have_eigenvalues_of_zero():
    task = FeatureTask.zipf(3)
    run = descend(task, iid_start(task, 5, 0.5, (0,)), 0.5, (0,))
    assert run.spectra.shape == (1, 1, 5)
    np.testing.assert_array_equal(run.spectra[0, 0, 3:], 0.0)
    assert run.ranks["weighted"][0, 0] <= 2.0 + 1e-9


def test_starts_are_what_they_say():
    placed = simulate.constructed_start(SKEWED, 1e-3, (0, 1))
    np.testing.assert_allclose(placed.features[1], np.repeat([[1, 0], [0, 1], [0, 0]], 2, axis=0), atol=5e-3)
    assert np.abs(placed.features[0] - placed.features[1]).max() > 0
    assert np.abs(placed.head).max() < 5e-3
    balanced = simulate.balanced_start(SKEWED, [3.0, 1.0, 0.5], seed=4)
    np.testing.assert_allclose(balance(balanced.features[0], balanced.head[0]), 0.0, atol=1e-12)
    np.testing.assert_allclose(np.linalg.svd(balanced.features[0], compute_uv=False), [3.0, 1.0, 0.5])
    wide = iid_start(FeatureTask.zipf(400), 50, 0.2, (0,))
    for part in (wide.features, wide.head):
        assert part.std() == pytest.approx(0.2, rel=0.03)
    assert abs(np.corrcoef(wide.features[0].ravel(), wide.head[0].ravel())[0, 1]) < 0.03


def test_the_drift_of_the_balance_is_proportional_to_the_rate():
    start = iid_start(SKEWED, 2, 0.3, tuple(range(20)))
    drifts = []
    for rate, steps in ((0.25, 300), (0.025, 3_000), (0.0025, 30_000)):
        end = descend(SKEWED, start, rate, (steps,)).final
        change = [
            balance(end.features[i], end.head[i]) - balance(start.features[i], start.head[i])
            for i in range(20)
        ]
        drifts.append(float(np.median([np.linalg.norm(x) for x in change])))
    assert drifts[0] / drifts[1] == pytest.approx(10, rel=0.1)
    assert drifts[1] / drifts[2] == pytest.approx(10, rel=0.02)


PATHS = st.lists(st.floats(1.0, 8.0), min_size=1, max_size=12)


@given(PATHS)
@settings(deadline=None, max_examples=80)
def test_a_decline_is_the_largest_fall_between_two_looks_after_the_minimum(values):
    lowest = values.index(min(values))
    after = values[lowest:]
    pairs = [1 - after[j] / after[i] for j in range(len(after)) for i in range(j + 1)]
    found = decline(np.array(values)[:, None])
    assert found.largest[0] == pytest.approx(max(pairs), abs=1e-12)
    assert found.last[0] == pytest.approx(1 - after[-1] / max(after), abs=1e-12)


@given(PATHS)
@settings(deadline=None, max_examples=40)
def test_a_path_that_never_rises_has_no_decline(values):
    falling = np.sort(values)[::-1][:, None]
    assert not decline(falling).largest.any()
    assert not decline(falling[::-1]).largest.any()


@given(st.integers(1, 10**6), st.integers(3, 200))
@settings(deadline=None, max_examples=40)
def test_looks_ascend_from_the_start_to_the_end(steps, count):
    looks = log_looks(steps, count)
    assert looks[0] == 0
    assert looks[-1] == steps
    assert all(b > a for a, b in pairwise(looks))
    assert len(looks) <= count


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: FeatureTask.counted((2, 0)), "at least one row for every class"),
        (lambda: FeatureTask(np.array([0.5, 0.4]), np.eye(2)), "with sum 1"),
        (lambda: FeatureTask(np.array([0.5, 0.5]), np.eye(2) * 2), "must be a law"),
        (lambda: FeatureTask.zipf(4).with_floor(1.5), "from 0 to 1"),
        (lambda: FeatureTask.zipf(4).with_floor(0.5, np.ones(4)), "must be a law"),
        (lambda: iid_start(SKEWED, 0, 0.1, (0,)), "width of at least 1"),
        (lambda: iid_start(SKEWED, 2, 0.0, (0,)), "positive std"),
        (lambda: simulate.constructed_start(SKEWED, -1.0, (0,)), "jitter ≥ 0"),
        (lambda: simulate.balanced_start(SKEWED, np.ones(5), 0), "at most 4"),
        (lambda: log_looks(0, 5), "at least 1 step"),
        (lambda: log_looks(5, 2), "3 looks"),
        (lambda: descend(SKEWED, iid_start(SKEWED, 2, 0.1, (0,)), 1.0, (3, 3)), "ascending"),
        (lambda: descend(SKEWED, iid_start(SKEWED, 2, 0.1, (0,)), 1.0, ()), "ascending"),
        (
            lambda: descend(SKEWED, iid_start(SKEWED, 2, 1.0, (0,)), 1e3, (0, 100), loss="squared"),
            "lower the rate",
        ),
        (lambda: decline(np.array([[1.0], [np.nan]])), "not finite"),
    ],
)
def test_errors_name_the_remedy(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_features_that_are_all_equal_have_no_rank():
    state = FeatureState(np.ones((1, 6, 2)), np.zeros((1, 2, 4)), np.zeros((1, 4)))
    with pytest.raises(ValueError, match="zero everywhere"):
        descend(SKEWED, state, 0.1, (0,))
