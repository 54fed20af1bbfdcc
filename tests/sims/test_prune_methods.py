"""Methods of pruning on one matrix: exact numbers of zeros, the closed step of the surgeon, and the lower bound."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sims.prune.least_squares import best_on_mask, output_error
from sims.prune.magnitude import prune_magnitude
from sims.prune.prune import METHODS
from sims.prune.sparsegpt import inverse_factor, prune_sparsegpt, remove
from sims.prune.wanda import prune_wanda
from sims.system.errors import MeasureError

ROWS, COLUMNS = 64, 96


def layer(seed, rows=ROWS, columns=COLUMNS):
    """Return a matrix, and the second moments of correlated inputs of unequal scales."""
    draw = torch.Generator().manual_seed(seed)
    W = torch.randn(rows, columns, generator=draw, dtype=torch.float64)
    few = torch.randn(columns, columns // 4, generator=draw, dtype=torch.float64)
    noise = torch.randn(512, columns, generator=draw, dtype=torch.float64)
    X = torch.randn(512, columns // 4, generator=draw, dtype=torch.float64) @ few.mT + noise
    X = X * torch.exp(0.5 * torch.randn(columns, generator=draw, dtype=torch.float64))
    return W, X.mT @ X / len(X)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 10**6),
    st.integers(1, 12),
    st.integers(2, 20),
    st.floats(0, 1),
    st.sampled_from(sorted(METHODS)),
)
def test_exactly_as_many_weights_become_zero_as_asked_for(seed, rows, columns, share, method):
    W, gram = layer(seed, rows, columns)
    zeros = round(share * W.numel())
    found = METHODS[method](W.float(), gram, zeros)
    assert int((found == 0).sum()) == zeros
    assert found.dtype == torch.float32
    if method != "sparsegpt":
        assert torch.equal(found[found != 0], W.float()[found != 0])


def test_zeros_of_several_blocks_of_columns_are_as_many():
    W, gram = layer(1)
    for zeros in (0, 1, 3_001, W.numel()):
        assert int((prune_sparsegpt(W, gram, zeros, block=20) == 0).sum()) == zeros


def test_wanda_prunes_each_row_by_its_own_order():
    W, gram = layer(2)
    found = prune_wanda(W, gram, 64 * 57 + 30)
    counts = (found == 0).sum(dim=1)
    assert set(counts.tolist()) == {57, 58}
    scores = W.abs() * gram.diagonal().sqrt()
    for row in range(ROWS):
        gone = found[row] == 0
        assert scores[row][gone].max() < scores[row][~gone].min()
    # The rows that lose one more are those whose next score is smallest.
    following = scores.sort(dim=1).values[:, 57]
    assert set(following.argsort()[:30].tolist()) == set((counts == 58).nonzero()[:, 0].tolist())


def test_equal_inputs_leave_magnitudes_within_rows():
    W, _ = layer(3)
    found = prune_wanda(W, torch.eye(COLUMNS, dtype=torch.float64), 10 * ROWS)
    each = torch.cat([prune_magnitude(row[None], None, 10) for row in W])
    assert torch.equal(found, each)


def surgeon(W, H, column, rows):
    """Remove one column's weights in some rows; only that column and those to its right may change."""
    found = W.clone()
    P = torch.linalg.inv(H[column:, column:])
    for row in rows:
        found[row, column:] -= W[row, column] / P[0, 0] * P[0]
    return found


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 24), st.data())
def test_every_column_step_is_that_of_the_surgeon(seed, columns, data):
    W, gram = layer(seed, 6, columns)
    H = gram + 0.01 * gram.diagonal().mean() * torch.eye(columns, dtype=torch.float64)
    factor = inverse_factor(gram)
    np.testing.assert_allclose(factor.mT @ factor, torch.linalg.inv(H), atol=1e-10)
    column = data.draw(st.integers(0, columns - 1))
    rows = data.draw(st.sets(st.integers(0, 5), min_size=1))
    start = data.draw(st.integers(0, column))
    mask = torch.zeros(6, data.draw(st.integers(column - start + 1, columns - start)), dtype=torch.bool)
    mask[list(rows), column - start] = True
    found, expected = W.clone(), surgeon(W, H, column, rows)
    remove(found, mask, factor, start)
    np.testing.assert_allclose(found, expected, atol=1e-10)


@pytest.mark.parametrize("block", [7, 24, 128])
def test_the_sweep_is_the_surgeon_column_after_column(block):
    W, gram = layer(5, 8, 24)
    H = gram + 0.01 * gram.diagonal().mean() * torch.eye(24, dtype=torch.float64)
    found = prune_sparsegpt(W, gram, 96, block=block)
    expected = W
    for column in range(24):
        expected = surgeon(expected, H, column, (found[:, column] == 0).nonzero()[:, 0].tolist())
    np.testing.assert_allclose(found, expected, atol=1e-10)


def test_masks_are_chosen_by_the_corrected_weights():
    W, gram = layer(6)
    factor = inverse_factor(gram)
    found = prune_sparsegpt(W, gram, W.numel() // 2, block=32)
    own, scores = W.clone(), torch.empty(ROWS, 32, dtype=torch.float64)
    for start in range(0, COLUMNS, 32):
        scores = own[:, start : start + 32].square() / factor.diagonal()[start : start + 32].square()
        mask = found[:, start : start + 32] == 0
        assert int(mask.sum()) == ROWS * 16
        assert scores[mask].max() < scores[~mask].min()
        remove(own, mask, factor, start)
    assert torch.equal(own, found)


def _no_update(W, gram, zeros):
    factor = inverse_factor(gram)
    return W.masked_fill(prune_sparsegpt(W, gram, zeros) == 0, 0.0) + 0 * factor[0, 0]


def _update_to_the_left(W, gram, zeros):
    # Corrections flow from the right to the left, on the mask of the sweep to the right.
    mask = prune_sparsegpt(W, gram, zeros) == 0
    turned = W.flip(1).clone()
    remove(turned, mask.flip(1), inverse_factor(gram.flip(0, 1)))
    return turned.flip(1)


def test_with_one_block_of_columns_it_loses_least_and_never_less_than_least_squares():
    wins = {"magnitude": 0, "wanda": 0}
    lost, bounds, without, leftwards = [], [], [], []
    for seed in range(40):
        W, gram = layer(seed)
        zeros = W.numel() // 2
        own = prune_sparsegpt(W, gram, zeros)
        error = output_error(W, own, gram)
        for name in wins:
            wins[name] += error < output_error(W, METHODS[name](W, gram, zeros), gram)
        lost.append(error)
        without.append(output_error(W, _no_update(W, gram, zeros), gram))
        leftwards.append(output_error(W, _update_to_the_left(W, gram, zeros), gram))
        if seed < 8:
            bounds.append(output_error(W, best_on_mask(W, own == 0, gram), gram))
    assert min(wins.values()) >= 38, wins
    # It is not the best on its mask, and what it does is more than to choose a mask.
    assert all(0.1 < bound / error < 0.9 for bound, error in zip(bounds, lost, strict=False))
    assert sum(a < b for a, b in zip(lost, without, strict=True)) == 40
    # The mask was chosen for the sweep to the right: it fits no other.
    assert sum(a < b for a, b in zip(lost, leftwards, strict=True)) >= 38


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(sorted(METHODS)), st.integers(1, 59))
def test_least_squares_is_a_lower_bound_for_every_method(seed, method, zeros):
    W, gram = layer(seed, 5, 12)
    found = METHODS[method](W, gram, zeros)
    best = best_on_mask(W, found == 0, gram)
    assert ((best == 0) >= (found == 0)).all()
    error, least = output_error(W, found, gram), output_error(W, best, gram)
    assert least <= error * (1 + 1e-9)
    # The gradient vanishes in what is kept.
    assert float(((best - W) @ gram)[found != 0].abs().max()) < 1e-8


def test_narrow_blocks_of_columns_lose_more_where_scales_are_ordered():
    worse = 0
    for seed in range(10):
        W, gram = layer(seed)
        order = gram.diagonal().argsort()
        gram = gram[order][:, order]
        one, many = (prune_sparsegpt(W, gram, W.numel() * 6 // 10, block=b) for b in (128, 16))
        worse += output_error(W, many, gram) > output_error(W, one, gram)
    assert worse == 10


def test_inputs_of_any_unit_give_the_same_matrix():
    W, gram = layer(9)
    for method in METHODS.values():
        a, b = method(W, gram, 3_000), method(W, 37.0 * gram, 3_000)
        np.testing.assert_allclose(a, b, atol=1e-12)


def test_dead_inputs_cost_nothing_to_prune():
    W, gram = layer(10)
    gram[7], gram[:, 7] = 0.0, 0.0
    for name in ("wanda", "sparsegpt"):
        found = METHODS[name](W, gram, W.numel() // 2)
        assert (found[:, 7] == 0).float().mean() > 0.9, name
    nothing = prune_sparsegpt(W, torch.zeros_like(gram), 100)
    assert torch.equal(nothing, prune_magnitude(W, None, 100))


def test_refusals():
    W, gram = layer(0, 4, 5)
    for method in METHODS.values():
        with pytest.raises(MeasureError, match="25 zeros of 20 weights"):
            method(W, gram, 25)
    with pytest.raises(MeasureError, match="no inverse"):
        inverse_factor(torch.ones(3, 3), damping=0.0)
    with pytest.raises(MeasureError, match="no inverse"):
        inverse_factor(torch.full((3, 3), float("nan")))
