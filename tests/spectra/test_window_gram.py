"""Inner products of shorter windows, of parts of the parameters, and with another vector."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spectra import SketchedWindow, UpdateWindow, WindowGram, spectral_edge
from spectra.errors import InputError


@given(st.integers(0, 2**32 - 1), st.integers(2, 8), st.integers(0, 6))
def test_the_last_updates_of_a_window_are_a_shorter_window(seed, window, more):
    rng = np.random.default_rng(seed)
    updates = rng.standard_normal((window + more, 40))
    long, short = UpdateWindow(window + more), UpdateWindow(window)
    for update in updates:
        long.push(update)
        short.push(update)
    last = long.last(window)
    # Sums of products in another order.
    np.testing.assert_allclose(last.gram, short.gram, rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(last.rounding, short.rounding)
    assert spectral_edge(last, draws=20).gap == pytest.approx(spectral_edge(short, draws=20).gap, rel=1e-9)
    vector = rng.standard_normal(40)
    np.testing.assert_allclose(short.products(vector), updates[-window:] @ vector, rtol=1e-9, atol=1e-12)


@given(st.integers(0, 2**32 - 1), st.integers(1, 30))
def test_parts_of_the_parameters_add_up_to_all_of_them(seed, cut):
    updates = np.random.default_rng(seed).standard_normal((5, 31))
    whole, *parts = (UpdateWindow(4) for _ in range(3))
    for update in updates:
        whole.push(update)
        for part, own in zip(parts, (update[:cut], update[cut:]), strict=True):
            part.push(own)
    both = WindowGram.joined([part.last(4) for part in parts])
    np.testing.assert_allclose(both.gram, whole.gram, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(both.rounding, whole.rounding)
    assert (both.size, both.error) == (31, 0.0)


def test_windows_of_a_sketch_know_their_own_error():
    updates = np.random.default_rng(0).standard_normal((6, 500))
    long, short = (SketchedWindow(64, 3, window) for window in (6, 4))
    for update in updates:
        long.push(update)
        short.push(update)
    last = long.last(4)
    np.testing.assert_allclose(last.gram, short.gram)
    assert last.error == pytest.approx(short.gram_error)
    joined = WindowGram.joined([last, last])
    assert joined.error == pytest.approx(2**0.5 * last.error)
    np.testing.assert_allclose(short.products(updates[-1])[-1], short.gram[-1, -1])


@pytest.mark.parametrize(
    ("gram", "rounding", "message"),
    [
        ([[1.0, 0.5], [0.0, 1.0]], [0.0, 0.0], "not symmetric"),
        ([[1.0, 2.0], [2.0, 1.0]], [0.0, 0.0], "larger than the product"),
        ([[-1.0, 0.0], [0.0, 1.0]], [0.0, 0.0], "negative square"),
        ([[1.0, 0.0]], [0.0], "has shape"),
        ([[1.0, 0.0], [0.0, 1.0]], [0.0], "has shape"),
        ([[np.nan]], [0.0], "NaN"),
    ],
)
def test_what_is_no_gram_matrix_of_a_window_is_refused(gram, rounding, message):
    with pytest.raises(InputError, match=message):
        WindowGram(gram, 9, 0.0, rounding)


def test_more_updates_than_are_held_are_refused():
    window = UpdateWindow(3)
    with pytest.raises(InputError, match="holds 0 updates"):
        window.last(1)
    window.push([1.0, 2.0])
    with pytest.raises(InputError, match="count is 2, and the window holds 1 updates"):
        window.last(2)
    with pytest.raises(InputError, match="vector has 3 coordinates and the window 2"):
        window.products([1.0, 2.0, 3.0])
    with pytest.raises(InputError, match="pass parts of the same updates"):
        WindowGram.joined([])
