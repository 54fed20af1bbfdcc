"""Ratios of pruning: exact totals, equal zeros, and what must not matter to them."""

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from sims.prune.allocation import MOST, allocate, block_means, ratios, zero_counts
from sims.system.errors import MeasureError

SCORE = st.floats(-50, 50, allow_nan=False)
CASES = st.integers(1, 24).flatmap(
    lambda m: st.tuples(
        st.lists(SCORE, min_size=m, max_size=m),
        st.lists(st.integers(50, 10**7), min_size=m, max_size=m),
    )
)
SPARSITY = st.floats(0.01, MOST)
EPSILON = st.floats(0, 0.95)
SLOTS = ("attn.q", "attn.o", "mlp.fc")


@settings(max_examples=300, deadline=None)
@given(CASES, SPARSITY, EPSILON)
def test_the_total_is_exact_and_no_ratio_exceeds_the_most(case, sparsity, epsilon):
    scores, sizes = case
    found = ratios(scores, sizes, sparsity, epsilon)
    n = np.array(sizes, float)
    assert abs((n * found).sum() / n.sum() - sparsity) <= 1e-12
    assert found.min() >= 0
    assert found.max() <= MOST + 1e-12
    # A higher score never has a lower ratio.
    assert (np.diff(found[np.argsort(scores, kind="stable")]) >= -1e-12).all()


@settings(max_examples=300, deadline=None)
@given(CASES, SPARSITY, EPSILON)
def test_every_allocation_has_the_same_number_of_zeros(case, sparsity, epsilon):
    scores, sizes = case
    counts = zero_counts(ratios(scores, sizes, sparsity, epsilon), sizes, sparsity)
    uniform = zero_counts(ratios(scores, sizes, sparsity, 0.0), sizes, sparsity)
    assert counts.sum() == uniform.sum() == round(sparsity * sum(sizes))
    assert (counts >= 0).all()
    assert (counts <= np.array(sizes)).all()
    # No share that is rounded up has a smaller remainder than one that is rounded down.
    wanted = ratios(scores, sizes, sparsity, epsilon) * np.array(sizes)
    rest, up = wanted - np.floor(wanted), counts > np.floor(wanted)
    assert not up.any() or up.all() or rest[up].min() >= rest[~up].max()


@settings(max_examples=200, deadline=None)
@given(CASES, SPARSITY)
def test_without_a_spread_all_ratios_are_the_sparsity_to_the_last_bit(case, sparsity):
    scores, sizes = case
    assert (ratios(scores, sizes, sparsity, 0.0) == sparsity).all()
    assert (ratios([3.0] * len(sizes), sizes, sparsity, 0.4) == sparsity).all()
    # Equal but for rounding: which of them is the highest would depend on the processor.
    assert (ratios([0.1 + 0.2] + [0.3] * (len(sizes) - 1), sizes, sparsity, 0.4) == sparsity).all()


@settings(max_examples=200, deadline=None)
@given(CASES, SPARSITY, EPSILON, st.floats(0.01, 100), st.floats(-100, 100))
def test_unit_and_origin_of_the_scores_do_not_matter(case, sparsity, epsilon, a, b):
    scores, sizes = np.array(case[0]), case[1]
    # Below this spread the sum a·score + b itself is rounded.
    assume(np.ptp(scores) == 0 or np.ptp(scores) > 1e-2 * (1 + abs(b) / a))
    moved = ratios(a * scores + b, sizes, sparsity, epsilon)
    assume(np.ptp(scores) > 0)
    np.testing.assert_allclose(moved, ratios(scores, sizes, sparsity, epsilon), atol=1e-12, rtol=0)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(SCORE, SCORE, SCORE), min_size=2, max_size=8),
    st.tuples(SCORE, SCORE, SCORE),
    SPARSITY,
    EPSILON,
)
def test_by_blocks_what_one_kind_of_matrix_has_more_everywhere_does_not_matter(
    own, shifts, sparsity, epsilon
):
    names = {
        f"blocks.{i}.{slot}": value
        for i, row in enumerate(own)
        for slot, value in zip(SLOTS, row, strict=True)
    }
    moved = {
        f"blocks.{i}.{slot}": value + shift
        for i, row in enumerate(own)
        for slot, value, shift in zip(SLOTS, row, shifts, strict=True)
    }
    sizes = [100 + 200 * name.endswith("fc") for name in names]
    a, b = (np.array(list(block_means(s).values())) for s in (names, moved))
    assume(np.ptp(a) > 1e-2 * (1 + max(map(abs, shifts))))
    np.testing.assert_allclose(
        ratios(a, sizes, sparsity, epsilon), ratios(b, sizes, sparsity, epsilon), atol=1e-12, rtol=0
    )


def test_by_matrices_the_same_shift_does_matter():
    scores = {f"blocks.{i}.{slot}": float(i) for i in range(3) for slot in SLOTS}
    moved = {name: value + 1.7 * name.endswith("fc") for name, value in scores.items()}
    sizes = dict.fromkeys(scores, 1_000)
    assert allocate(scores, sizes, 0.5, 0.2, "block") == allocate(moved, sizes, 0.5, 0.2, "block")
    assert allocate(scores, sizes, 0.5, 0.2) != allocate(moved, sizes, 0.5, 0.2)


def test_what_is_cut_is_pruned_elsewhere():
    # Without the redistribution the total would be 0.8·(1.3, 1, 0.7) cut to 0.99, 0.8, 0.56.
    found = ratios([3.0, 2.0, 1.0], [1, 1, 1], 0.8, 0.3)
    assert found[0] == MOST
    assert found[1] / found[2] == pytest.approx(1 / 0.7)
    assert found.mean() == pytest.approx(0.8, abs=1e-12)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (([1.0], [10, 10], 0.5, 0.1), "one of each"),
        (([1.0, math.nan], [10, 10], 0.5, 0.1), "not finite"),
        (([1.0, 2.0], [10, 0], 0.5, 0.1), "without weights"),
        (([1.0, 2.0], [10, 10], 0.995, 0.1), "at most 0.99"),
        (([1.0, 2.0], [10, 10], 0.0, 0.1), "above 0"),
        (([1.0, 2.0], [10, 10], 0.5, 1.0), "ε is 1.0"),
        (([], [], 0.5, 0.1), "one of each"),
    ],
)
def test_refusals(arguments, told):
    with pytest.raises(MeasureError, match=told):
        ratios(*arguments)


def test_refusals_of_names():
    with pytest.raises(MeasureError, match="no score of"):
        allocate({}, {"blocks.0.attn.q": 4}, 0.5, 0.1)
    with pytest.raises(MeasureError, match="in no block"):
        allocate({"up": 1.0}, {"up": 4}, 0.5, 0.1, "block")
    unit: object = "layer"
    with pytest.raises(MeasureError, match="by matrix or by block"):
        allocate({"blocks.0.attn.q": 1.0}, {"blocks.0.attn.q": 4}, 0.5, 0.1, unit)  # pyright: ignore[reportArgumentType]
