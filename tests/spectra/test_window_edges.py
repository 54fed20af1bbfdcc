"""All windows of a run from one Gram matrix, against the updates themselves; and what a sketch does to an edge."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spectra import SketchedWindow, UpdateWindow, sketch_error, spectral_edge, window_edges
from spectra.errors import InputError
from spectra.reference import updates as slow
from spectra.spectrum import Spectrum
from spectra.testing import check_estimator

# σ of the published window of step 2,000 (mini_gpt, make_figures.py).
PUBLISHED = np.array([198.58, 169.08, 122.47, 110.73, 106.22, 92.66, 78.30, 61.27, 44.58, 22.79])


@settings(max_examples=25)
@given(
    st.integers(2, 6), st.integers(0, 5), st.integers(20, 60), st.booleans(), st.integers(-300, 300), st.integers(0, 99)
)  # fmt: skip
def test_windows_of_one_gram_matrix_against_the_updates(window, more, dimension, normalised, power, seed):
    """Every number of every window; powers of two leave what has no unit as it is."""
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((window + more, dimension)) * rng.uniform(0.3, 3.0, (window + more, 1)) + 0.2
    edges = window_edges(rows @ rows.T * 4.0**power, window, row_normalised=normalised)
    table = edges.to_frame()
    assert table["end"].tolist() == list(range(window - 1, window + more))
    unit = 1.0 if normalised else 2.0**power
    for i in range(more + 1):
        held, row = rows[i : i + window], table.iloc[i]
        for name, number in slow.window_numbers(held, normalised).items():
            scale = {"g23": unit**2, "drift": unit}.get(name, 1.0)
            assert row[name] == pytest.approx(number * scale, rel=1e-9, abs=1e-9 * scale), name
    held = rows / np.linalg.norm(rows, axis=1, keepdims=True) if normalised else rows
    turns = [slow.direction_change(held[i : i + window], held[i + 1 : i + 1 + window]) for i in range(more)]
    np.testing.assert_allclose(edges.turns, turns, atol=1e-7)


@pytest.mark.parametrize("dimension", [7, 100, 10**5])
def test_singular_values_of_every_window_length(dimension):
    rows = np.random.default_rng(dimension).standard_normal((25, dimension))
    whole = UpdateWindow(25)
    for row in rows:
        whole.push(row)
    for window in range(2, 26):
        values = window_edges(whole.gram, window).values
        # All windows of narrow updates, the last of wide ones.
        for i in range(26 - window)[-1 if dimension == 10**5 else 0 :]:
            exact = np.linalg.svd(rows[i : i + window], compute_uv=False)
            np.testing.assert_allclose(values[i, : len(exact)], exact, rtol=1e-10)
            assert not values[i, len(exact) :].any()


def test_the_edge_of_the_published_window_depends_on_how_far_it_is_sought():
    edges = window_edges(np.diag(PUBLISHED**2), 10)
    (k, gap), (k_half, gap_half) = edges.edges(), edges.edges(5)
    assert (k[0], k_half[0]) == (9, 2)
    assert (gap[0], gap_half[0]) == (pytest.approx(1.9561, abs=1e-4), pytest.approx(1.3806, abs=1e-4))
    found = spectral_edge(np.diag(PUBLISHED), most=5, draws=20)
    assert (found.k, found.gap) == (2, pytest.approx(gap_half[0], rel=1e-12))


def test_the_laws_of_singular_values_hold():
    def values(w):
        w = np.asarray(w, dtype=float)
        return window_edges(w @ w.T, len(w)).values[0][: min(w.shape)]

    assert check_estimator(values, "singular values", may_refuse=True, max_examples=10, quiet=True).passed


@settings(max_examples=25)
@given(st.integers(2, 5), st.integers(1, 3), st.booleans(), st.integers(0, 99))
def test_a_run_cut_short_has_the_same_windows(window, more, normalised, seed):
    rows = np.random.default_rng(seed).standard_normal((window + more, 30))
    gram = rows @ rows.T
    whole = window_edges(gram, window, row_normalised=normalised)
    part = window_edges(gram[:-1, :-1], window, row_normalised=normalised)
    for name in ("values", "norms", "correlations", "drift"):
        np.testing.assert_allclose(getattr(whole, name)[:-1], getattr(part, name), rtol=1e-9, atol=1e-12)


@settings(max_examples=25)
@given(st.integers(3, 8), st.integers(0, 99))
def test_rows_that_are_normalised_forget_their_lengths(window, seed):
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((window, 40))
    longer = rows * 10.0 ** rng.uniform(-6, 6, (window, 1))
    plain, scaled = (window_edges(x @ x.T, window, row_normalised=True) for x in (rows, longer))
    np.testing.assert_allclose(scaled.values, plain.values, rtol=1e-6)
    np.testing.assert_allclose(
        scaled.correlations, window_edges(rows @ rows.T, window).correlations, atol=1e-12
    )
    found = [spectral_edge(x, draws=20, row_normalised=True) for x in (rows, longer)]
    assert found[0].k == found[1].k == plain.edges()[0][0]
    assert found[0].p_any == found[1].p_any


@settings(max_examples=25)
@given(st.integers(4, 8), st.integers(1, 3), st.booleans(), st.integers(0, 99))
def test_a_rank_is_an_infinite_gap_and_never_nan(window, rank, normalised, seed):
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((window, rank)) @ rng.standard_normal((rank, 50))
    edges = window_edges(rows @ rows.T, window, row_normalised=normalised)
    assert edges.rank[0] == edges.edges()[0][0] == edges.weighted_edges[0][0] == rank
    assert np.isinf(edges.ratios[0, rank - 1 :]).all()
    assert np.isfinite(edges.ratios[0, : rank - 1]).all()
    assert not edges.to_frame().drop(columns="direction_change").isna().any(axis=None)
    # A zero update takes one from the rank of others, and its cosines count as 0.
    rows[0] = 0.0
    edges = window_edges(rows @ rows.T, window, row_normalised=normalised)
    assert np.isfinite(edges.correlations).all()
    assert edges.norms[0, 0] == 0.0


def test_a_gram_matrix_in_float32_says_less():
    """The third direction is a ten-thousandth of the first, and its energy less than float32 keeps."""
    rows = np.random.default_rng(4).standard_normal((3, 3)) @ np.diag([1.0, 0.5, 1e-4]) @ np.eye(3, 40)
    gram = rows @ rows.T
    assert window_edges(gram, 3).rank[0] == 3
    narrow = window_edges(gram.astype(np.float32), 3)
    assert (narrow.rank[0], narrow.edges()[0][0]) == (2, 2)


@pytest.mark.parametrize(
    ("gram", "window", "message"),
    [
        (np.ones((2, 3)), 2, "inner products"),
        (np.eye(3), 4, "window is 4"),
        (np.eye(3), 1, "window is 1"),
        ([[1.0, 0.5], [0.0, 1.0]], 2, "not symmetric"),
        ([[1.0, 2.0], [2.0, 1.0]], 2, "larger than the product"),
        ([[1.0, -0.9, -0.9], [-0.9, 1.0, -0.9], [-0.9, -0.9, 1.0]], 3, "none below 0"),
        (np.diag([1.0, 0.0, 0.0]), 2, "updates 1 to 2 are all zero"),
        (np.zeros((3, 3)), 2, "not all 0"),
        (np.diag([1.0, -1.0]), 2, "not negative"),
    ],
)
def test_what_is_no_gram_matrix_is_refused(gram, window, message):
    with pytest.raises(InputError, match=message):
        window_edges(gram, window)


# --------------------------------------------------------------------------------------------------------- sketches


@pytest.mark.parametrize(
    ("values", "j", "mean", "bias"),
    [
        (PUBLISHED, 2, 0.071, None),
        ([1.747, 1.747, *[1.0] * 8], 2, 0.207, -0.207),
        ([1.0] * 10, 3, 0.054, 0.054),
    ],
)
def test_the_error_of_a_sketch_of_ten_times_the_window(values, j, mean, bias):
    error = sketch_error(Spectrum(values, "singular"), 100, j=j)
    assert error.mean == pytest.approx(mean, abs=0.004)
    assert bias is None or error.bias == pytest.approx(bias, abs=0.004)
    if j == 2 and bias is None:
        # Three standard errors of 4,000 draws.
        assert error.kept == pytest.approx(0.975, abs=0.008)
        assert error.quantile_95 == pytest.approx(0.167, abs=0.006)


@pytest.mark.parametrize("values", [PUBLISHED, np.array([3.0, 2.0, 1.9, 1.0])])
def test_the_error_of_a_sketch_against_projections(values):
    j, size, draws = 2, 10 * len(values), 1500
    error = sketch_error(Spectrum(values, "singular"), size, j=j)
    ratios = slow.sketched_ratios(values, size, j, draws, np.random.default_rng(0))
    measured = ratios / error.ratio - 1.0
    # Four standard errors.
    assert np.abs(measured).mean() == pytest.approx(
        error.mean, abs=4 * np.abs(measured).std() / np.sqrt(draws)
    )
    assert measured.mean() == pytest.approx(error.bias, abs=4 * measured.std() / np.sqrt(draws))
    assert np.mean((measured >= error.low) & (measured <= error.high)) == pytest.approx(0.95, abs=0.025)


def test_the_count_sketch_errs_like_a_projection():
    """250 sketches of the published window; 10 % of the error is 2.1 standard errors."""
    rows = np.linalg.qr(np.random.default_rng(3).standard_normal((600, 10)))[0].T * PUBLISHED[:, None]
    errors = []
    for seed in range(250):
        window = SketchedWindow(100, seed=seed)
        for row in rows:
            window.push(row)
        errors.append(abs(window_edges(window.gram, 10).ratios[0, 1] / (169.08 / 122.47) - 1.0))
    assert np.mean(errors) == pytest.approx(
        sketch_error(Spectrum(PUBLISHED, "singular"), 100, j=2).mean, rel=0.1
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: sketch_error([1.0, 0.0], 10), "needs two"),
        (lambda: sketch_error([2.0, 1.0, 1.0], 2), "size is 2"),
        (lambda: sketch_error([2.0, 1.0], 9, j=2), "j is 2"),
        (lambda: sketch_error([2.0, 1.0], 9, most=2), "most is 2"),
    ],
)
def test_sketches_that_have_no_ratio_are_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_the_first_of_equal_directions_does_not_turn():
    """Rounding alone would choose it: .30 or .06 for two bases of the same windows."""
    orthogonal = window_edges(np.eye(6), 4)
    assert np.isnan(orthogonal.turns).all()
    # Only the windows of the first updates have a first direction.
    first = window_edges(np.diag([9.0, 4.0, 1.0, 1.0, 1.0]), 3).turns
    assert np.isnan(first).tolist() == [False, True]
