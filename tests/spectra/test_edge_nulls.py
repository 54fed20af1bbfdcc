"""What momentum at a stride, unequal lengths and correlations make of noise, and that their nulls say so."""

import numpy as np
import pytest
import scipy
from hypothesis import given, settings
from hypothesis import strategies as st

from spectra import edge_null, edge_p_range, spectral_edge, window_edges
from spectra.errors import InputError
from spectra.nulls.edge import find_edges, momentum_correlations, noise_factors
from spectra.reference import updates as slow


def momentum_windows(stride: int, dimension: int, windows: int, momentum: float = 0.9) -> list[np.ndarray]:
    """Windows of ten updates of stationary momentum noise, 60 steps apart."""
    rng, found = np.random.default_rng((stride, dimension)), []
    for _ in range(windows):
        start = rng.standard_normal(dimension) / np.sqrt(1 - momentum**2)
        noise = rng.standard_normal((10 * stride, dimension))
        # The first value has the variance of the stationary state.
        noise[0] = start
        averages = scipy.signal.lfilter([1.0], [1.0, -momentum], noise, axis=0)
        found.append(slow.block_sums(averages, stride))
    return found


@pytest.mark.parametrize(
    ("momentum", "stride", "correlation", "gap"),
    [
        (0.9, 1, 0.900, 2.246),
        (0.9, 5, 0.709, 1.300),
        (0.9, 25, 0.252, 1.079),
        (0.9, 50, 0.116, 1.035),
        (0.9, 200, 0.025, 1.008),
        (0.95, 1, 0.95, 3.148),
        (0.95, 5, 0.843, 1.563),
        (0.95, 25, 0.466, 1.151),
        (0.95, 50, 0.259, 1.081),
        (0.95, 200, 0.054, 1.016),
    ],
)
def test_correlation_and_gap_of_momentum_at_a_stride(momentum, stride, correlation, gap):
    assert momentum_correlations(10, momentum, stride)[1] == pytest.approx(correlation, abs=5e-4)
    assert edge_null(10, 1e9, momentum, 20, stride=stride).gap == pytest.approx(gap, abs=0.003)


@given(st.floats(0.0, 0.9999), st.integers(1, 30), st.integers(2, 8))
def test_correlations_of_momentum_against_the_sum_over_all_pairs(momentum, stride, window):
    found = momentum_correlations(window, momentum, stride)
    want = [slow.momentum_correlation(lag, momentum, stride) for lag in range(window)]
    np.testing.assert_allclose(found, want, rtol=1e-9, atol=1e-300)
    assert (np.diff(found) <= 0).all()
    assert np.linalg.eigvalsh(scipy.linalg.toeplitz(found)).min() > -1e-12


def test_correlations_of_momentum_against_a_simulation():
    """Cosines of updates in 10⁴ dimensions, of standard error 0.01."""
    rows = np.stack(momentum_windows(5, 10_000, 1)[0])
    cosines = window_edges(rows @ rows.T, 10).correlations[0]
    assert cosines[:5] == pytest.approx(momentum_correlations(10, 0.9, 5)[1:6], abs=0.04)


@given(
    st.sampled_from([0.0, 0.5, 0.9, 0.99]),
    st.integers(2, 12),
    st.sampled_from([3, 40.5, 1e6]),
    st.integers(0, 9),
)
def test_a_stride_of_one_draws_what_it_always_drew(momentum, window, dimension, seed):
    scale = np.linalg.cholesky(scipy.linalg.toeplitz(momentum ** np.arange(window)))
    values = np.linalg.svd(
        scale @ noise_factors(window, dimension, 15, np.random.default_rng(seed)), compute_uv=False
    )
    values = np.pad(values, ((0, 0), (0, window - values.shape[1])))
    null = edge_null(window, dimension, momentum, 15, seed)
    for k, gap, row in zip(null.ks, null.gaps, values, strict=True):
        rank = np.count_nonzero(row)
        assert (k, gap) == ((rank, np.inf) if rank < window else slow.edge(row))


@pytest.mark.parametrize(
    ("stride", "dimension"),
    [(1, 4000), (5, 4000), (25, 1000), pytest.param(25, 4000, marks=pytest.mark.slow)],
)
def test_momentum_noise_at_a_stride_has_uniform_p(stride, dimension):
    """200 windows; the null of single steps calls nearly all of them significant at strides of 5 and 25."""
    edges = [
        find_edges(np.linalg.svd(rows, compute_uv=False)[None], 9)
        for rows in momentum_windows(stride, dimension, 200)
    ]
    own = edge_null(10, dimension, 0.9, 999, stride=stride)
    p = [own.p_value(None, float(gap[0])) for _, gap in edges]
    assert scipy.stats.kstest(p, "uniform").pvalue > 0.01
    single = edge_null(10, dimension, 0.9, 999)
    same = [single.p_value(int(k[0]), float(gap[0])) for k, gap in edges]
    assert (np.median(same) == 0.001) == (stride > 1)


def test_lengths_alone_make_an_edge_and_their_null_knows_it():
    """A hundred windows of independent updates, the last three 1.3 times longer."""
    rng, norms = np.random.default_rng(5), np.repeat([1.0, 1.3], [7, 3])
    gaps, plain, known = [], [], []
    for _ in range(100):
        rows = rng.standard_normal((10, 4000)) * norms[:, None]
        edge = spectral_edge(rows, draws=199)
        assert edge.k == 3
        gaps.append(edge.gap)
        plain.append(edge.p_any)
        known.append(spectral_edge(rows, null="norms", draws=199).p_any)
    assert 1.23 < np.median(gaps) < 1.25
    assert max(plain) < 0.01
    assert np.mean(np.array(known) > 0.05) >= 0.9
    # Divided by their lengths the updates have no edge.
    assert spectral_edge(rows, row_normalised=True, draws=199).p_any > 0.05


def test_correlations_of_the_window_itself_leave_what_changes_within_it():
    """Correlated noise of unequal lengths is explained; two directions that come with its second half are not."""
    rng, found = np.random.default_rng(6), []
    for rows in momentum_windows(3, 2000, 60):
        rows *= rng.uniform(0.5, 2.0, (10, 1))
        found.append(spectral_edge(rows, null="correlations", effective_dimension=2000, draws=199).p_any)
    # A binomial of 60 and 0.05 exceeds 8 once in 400.
    assert np.sum(np.array(found) <= 0.05) <= 8
    rows = rng.standard_normal((10, 2000))
    rows[5:] += 60.0 * rng.standard_normal((5, 2)) @ np.linalg.qr(rng.standard_normal((2000, 2)))[0].T
    assert spectral_edge(rows, null="correlations", draws=199).p_any == 1 / 200


@given(
    st.integers(2, 8), st.floats(0.0, 0.95), st.integers(1, 40), st.sampled_from([1.0, 5.5, 1e3]), st.floats(1.0, 5.0),
    st.integers(0, 99),
)  # fmt: skip
def test_any_k_is_never_rarer_than_one_k(window, momentum, stride, dimension, gap, seed):
    null = edge_null(window, dimension, momentum, 20, seed, stride=stride)
    shares = [null.p_value(k, gap) for k in range(1, window)]
    assert null.p_value(None, gap) >= max(shares)
    assert null.p_value(None, gap) - 1 / 21 == pytest.approx(sum(share - 1 / 21 for share in shares))
    assert null.p_value(None, 0.0) == 1.0


@settings(max_examples=30)
@given(st.integers(2, 8), st.sampled_from([5.5, 1e3]), st.integers(-20, 20), st.integers(0, 99))
def test_lengths_count_relative_to_each_other(window, dimension, power, seed):
    norms = np.random.default_rng(seed).uniform(0.5, 2.0, window)
    a, b = (edge_null(window, dimension, 0.5, 10, norms=n) for n in (norms, norms * 2.0**power))
    np.testing.assert_array_equal(a.gaps, b.gaps)
    # Perfectly correlated updates have one direction.
    one = edge_null(window, 1e4, norms=norms, correlations=np.ones(window - 1), draws=10)
    assert set(one.ks) == {1}
    # A zero update is a rank, in the null as in the window.
    norms[0] = 0.0
    assert np.isinf(edge_null(window, 1e4, norms=norms, draws=10).gaps).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"norms": [1.0] * 3}, "norms"),
        ({"norms": [1.0, -1.0, 1.0, 1.0]}, "not negative"),
        ({"norms": np.zeros(4)}, "not all 0"),
        ({"correlations": [0.1] * 4}, "lags 1 to 3"),
        ({"correlations": [0.1, 1.5, 0.0]}, "in .−1, 1"),
        ({"correlations": [0.1] * 3, "momentum": 0.9}, "leave one of them out"),
        ({"stride": 0}, "stride is 0"),
        ({"stride": 10**7}, "stride is 10000000"),
        ({"most": 4}, "most is 4"),
        ({"most": 0}, "most is 0"),
    ],
)
def test_nulls_that_fit_no_window_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        edge_null(4, 100, draws=5, **arguments)


@pytest.mark.parametrize("correlations", [None, [0.6, 0.3, -0.1]])
def test_lengths_and_correlations_against_windows_of_noise(correlations):
    """Few directions, where lengths left to noise would matter; 3,000 windows against 3,000."""
    norms, law = [1.0, 2.0, 1.5, 0.5], scipy.linalg.toeplitz([1.0, *(correlations or [0.0] * 3)])
    null = edge_null(4, 6, norms=norms, correlations=correlations, draws=3000)
    slowly = slow.noise_gaps(norms, law, 6, 3000, np.random.default_rng(1))
    assert scipy.stats.ks_2samp(null.gaps, slowly).pvalue > 0.001


@pytest.mark.parametrize("null", ["momentum", "norms"])
def test_the_null_of_normalised_updates_is_normalised(null):
    rows = np.random.default_rng(8).standard_normal((4, 6))
    found = spectral_edge(rows, null=null, row_normalised=True, draws=500)
    assert found.p_any == edge_null(4, 6, norms=np.ones(4), draws=500).p_value(None, found.gap)
    assert found.p_any != edge_null(4, 6, draws=500).p_value(None, found.gap)


def test_measured_correlations_that_no_updates_have_keep_the_lengths():
    """Where negative eigenvalues are raised, the diagonal is set back: lengths of noise in many directions are 1."""
    found = [
        edge_null(6, 1e9, correlations=[0.9, -0.9, 0.9, 0.9, -0.9], norms=n, draws=9)
        for n in (None, np.ones(6))
    ]
    assert found[0].gap == pytest.approx(found[1].gap, rel=1e-3)
    assert found[0].k == found[1].k


def test_any_number_of_longer_updates_is_an_edge_of_that_number():
    for longer in range(1, 10):
        null = edge_null(10, 1e5, norms=np.repeat([1.0, 1.3], [10 - longer, longer]), draws=50)
        assert set(null.ks) == {longer}
        assert null.gap == pytest.approx(1.29, abs=0.02)


@pytest.mark.parametrize("dimension", [100, 1000, 10_000])
def test_the_last_ratio_of_noise_is_often_the_largest(dimension):
    """A share of 2,000 windows, of standard error 0.01."""
    assert 0.18 < np.mean(edge_null(10, dimension, draws=2000).ks == 9) < 0.38


def test_an_edge_of_noise_is_seldom_significant_at_any_k_and_often_at_the_k_that_it_chose():
    """800 windows of white noise, W = 6 and P = 500: 5 % have p_any ≤ .05 (±2.3), and 26 % have such a p_value."""
    null, fresh = (edge_null(6, 500, draws=800, seed=seed) for seed in (0, 1))
    found = [
        (null.p_value(None, gap), null.p_value(int(k), gap))
        for k, gap in zip(fresh.ks, fresh.gaps, strict=True)
    ]
    any_k, chosen = (np.array(found) <= 0.05).mean(axis=0)
    assert any_k < 0.08
    assert chosen > 0.2
    # Of one k* fixed beforehand the second is a valid test.
    for k in range(1, 6):
        own = fresh.gaps[fresh.ks == k]
        assert sum(null.p_value(k, gap) <= 0.05 for gap in own) / 800 < 0.08


@given(st.floats(1.0, 1.5), st.sampled_from([0.0, 0.9]), st.integers(1, 30))
def test_the_range_of_p_holds_that_of_each_dimension(gap, momentum, stride):
    low, high = edge_p_range(gap, 5, momentum, stride=stride, draws=20)
    ends = [edge_null(5, d, momentum, 20, stride=stride).p_value(None, gap) for d in (1e3, 1e5)]
    assert (low, high) == (min(ends), max(ends))
    assert edge_p_range(gap, 5, momentum, stride=stride, draws=20, dimensions=[1e5]) == (ends[1], ends[1])


def test_updates_that_are_equal_up_to_rounding():
    for stride in (1, 5, 50):
        assert set(edge_null(5, 100, 1 - 1e-16, 5, stride=stride).ks) == {1}


def test_a_gap_that_is_nan_has_no_p():
    with pytest.raises(InputError, match="no dimensions"):
        edge_p_range(1.5, 4, dimensions=[])
    with pytest.raises(InputError, match="gap is NaN"):
        edge_null(4, 100, draws=5).p_value(1, float("nan"))
