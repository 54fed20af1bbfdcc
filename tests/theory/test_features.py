"""Free features under a head: the simulator against plain loops, its starts, its summaries, its errors."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from theory.formulas.entropy import effective_rank
from theory.formulas.features import balance
from theory.simulate import feature_table as table
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


CASES = st.tuples(st.integers(2, 6), st.integers(1, 4), st.booleans(), st.integers(0, 10**6))


def drawn_case(case):
    """A task of random laws and frequencies, and one start."""
    rows, width, _, seed = case
    rng = np.random.default_rng(seed)
    weights = rng.dirichlet(np.ones(rows)) + 0.1
    task = FeatureTask(weights / weights.sum(), rng.dirichlet(np.ones(4), rows))
    return task, iid_start(task, width, 0.5, (seed,))


@given(CASES)
@settings(deadline=None, max_examples=30)
def test_a_turn_of_the_directions_changes_nothing_that_is_seen(case):
    task, start = drawn_case(case)
    turn = np.linalg.qr(np.random.default_rng(case[-1] + 1).standard_normal((case[1], case[1])))[0]
    turned = FeatureState(start.features @ turn, turn.T @ start.head, start.bias)
    one, other = (descend(task, s, 0.5, (0, 5, 30), bias=case[2]) for s in (start, turned))
    for name in simulate.RANKS:
        np.testing.assert_allclose(one.ranks[name], other.ranks[name], rtol=1e-8)
    np.testing.assert_allclose(one.loss, other.loss, rtol=1e-10)
    np.testing.assert_allclose(one.final.features @ turn, other.final.features, atol=1e-10)


@given(CASES)
@settings(deadline=None, max_examples=30)
def test_a_row_that_is_split_in_two_leaves_the_head_and_halves_the_step_of_its_feature(case):
    task, start = drawn_case(case)
    weights = np.append(task.weights, task.weights[-1] / 2)
    weights[-2] /= 2
    split = FeatureTask(weights, np.concatenate([task.targets, task.targets[-1:]]))
    doubled = FeatureState(
        np.concatenate([start.features, start.features[:, -1:]], axis=1), start.head, start.bias
    )
    one, other = (descend(t, s, 0.5, (0, 1)) for t, s in ((task, start), (split, doubled)))
    np.testing.assert_allclose(one.loss[0], other.loss[0], rtol=1e-12)
    np.testing.assert_allclose(one.final.head, other.final.head, atol=1e-13)
    moved, halves = (run.final.features - s.features for run, s in ((one, start), (other, doubled)))
    np.testing.assert_allclose(halves[:, -2:], np.repeat(moved[:, -1:] / 2, 2, axis=1), atol=1e-13)
    for name in ("weighted", "weighted, uncentred"):
        np.testing.assert_allclose(one.ranks[name][0], other.ranks[name][0], rtol=1e-9)


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


@pytest.mark.slow
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


def test_counts_have_wilsons_interval():
    hits, low, high = table.rate_interval(np.array([0.0] * 37 + [0.0011, 0.01, 0.5]))
    # (p + z²/2n ± z√(p(1−p)/n + z²/4n²))/(1 + z²/n)
    p, n, z = 3 / 40, 40, 1.959964
    middle, half = p + z**2 / (2 * n), z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    assert hits == 3
    assert low == pytest.approx((middle - half) / (1 + z**2 / n), abs=1e-6)
    assert high == pytest.approx((middle + half) / (1 + z**2 / n), abs=1e-6)


def named(settings_of, name):
    (found,) = (setting for setting in settings_of if setting.name == name)
    return found


def test_constructed_starts_fall_again_and_drawn_ones_rarely():
    placed = table.falls_of(named(table.CLASSES, "clusters, jitter 0.01"), seeds=6)
    assert (placed.largest > table.THRESHOLD).all()
    drawn = table.falls_of(named(table.CLASSES, "drawn, std 0.01"), seeds=40)
    assert table.rate_interval(drawn.last)[2] < 0.2
    # Most falls are made up for.
    assert (drawn.largest >= drawn.last - 1e-12).all()
    assert (drawn.largest > table.THRESHOLD).sum() > (drawn.last > table.THRESHOLD).sum()


@pytest.mark.slow
def test_published_controls_do_not_separate_as_published():
    reference = table.falls_of(named(table.CLASSES, table.REFERENCE), seeds=100)
    rate = (reference.last > table.THRESHOLD).mean()
    assert rate <= 0.1
    for name in ("drawn, d = 4: no bottleneck", "drawn, squared error"):
        control = table.falls_of(named(table.CLASSES, name), seeds=100)
        assert table.rate_interval(control.last)[1] > rate, name


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("one-hot labels", 0.0, 0.001),
        ("5% unigram", 0.03, 0.075),
        ("30% unigram", 0.045, 0.075),
        ("60% unigram", 0.03, 0.075),
        ("30% unigram, bias", 0.0, 0.002),
        ("30% unigram, equal frequencies", 0.0, 0.002),
        ("30% uniform law", 0.0, 0.007),
    ],
)
def test_floors_of_the_unigram_law_without_a_bias_make_a_late_fall(name, low, high):
    falls = table.falls_of(named(table.FLOORS, name), seeds=3).last
    assert (low <= falls).all(), falls
    assert (falls <= high).all(), falls


@pytest.mark.slow
def test_the_table_has_a_line_for_every_setting_and_a_p_value_for_every_control():
    lines = [line.split(" | ") for line in table._classes_table(seeds=5).splitlines()[2:]]
    assert [line[0].removeprefix("| ") for line in lines] == [setting.name for setting in table.CLASSES]
    tested = {line[0].removeprefix("| ") for line in lines if line[-1].removesuffix("|").strip()}
    assert tested == set(table.CONTROLS)
    for line in lines:
        some, last = (int(cell.split(" / 5 [")[0]) for cell in line[1:3])
        assert 0 <= last <= some <= 5


def test_controls_have_other_starts_than_their_reference_and_p_values_of_holm():
    seeds = {name: _seeds_of(named(table.CLASSES, name)) for name in (*table.CONTROLS, table.REFERENCE)}
    assert not any(seeds[name] & seeds[table.REFERENCE] for name in table.CONTROLS)
    fallen = [np.repeat([1.0, 0.0], [hits, 20 - hits]) for hits in (12, 3, 9, 3)]
    found = table._against(fallen[:3], fallen[3])
    plain = np.array([stats.fisher_exact([[hits, 20 - hits], [3, 17]])[1] for hits in (12, 3, 9)])
    assert found == pytest.approx([3 * plain[0], 1.0, 2 * plain[2]])


def _seeds_of(setting):
    return set(range(setting.first, setting.first + setting.seeds))


def test_every_setting_has_a_name_of_its_own_and_controls_are_settings():
    for settings_of in (table.CLASSES, table.FLOORS):
        names = [setting.name for setting in settings_of]
        assert len(set(names)) == len(names)
    names = [setting.name for setting in table.CLASSES]
    assert {table.REFERENCE, *table.CONTROLS} <= set(names)
    assert table.REFERENCE not in table.CONTROLS
