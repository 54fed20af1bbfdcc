"""Null laws against integration, Painlevé II and simulation of their own assumptions; published figures.

Sample sizes and seeds are fixed; tolerances are four to five standard errors of the simulation.
"""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad, simpson
from scipy.stats import kstest

from spectra.errors import InputError
from spectra.fourier import closed_set, h_peak, h_s, top_k_band
from spectra.nulls import (
    MarchenkoPastur,
    SampledNull,
    bbp_overlap,
    bbp_position,
    bbp_threshold,
    edge_null,
    effective_dimension,
    exponents,
    gradient_mean_position,
    h_peak_null,
    h_s_null,
    h_top_k_null,
    noise_energies,
    noise_exponent,
    tracy_widom_cdf,
    tracy_widom_quantile,
    tracy_widom_sf,
    tracy_widom_test,
)
from spectra.nulls.noise import squared_bidiagonal
from spectra.reference import nulls as slow
from spectra.reference import updates as slow_updates
from spectra.spectrum import Spectrum

gammas = st.sampled_from([0.05, 0.125, 0.25, 0.8, 1.0, 1.3, 4.0])


# H_S and H_peak


@pytest.mark.parametrize(
    ("c", "frequencies"), [(11, [1, 10, 3, 8]), (8, [4]), (8, [1, 7]), (12, [6, 2, 10]), (3, [1, 2])]
)
def test_h_s_null_is_beta_for_both_parities(c, frequencies):
    """3,000 Gaussian class means against the law, Kolmogorov–Smirnov at 0.1 %."""
    d = 5
    if len(frequencies) == c - 1:
        with pytest.raises(InputError, match="always 1"):
            h_s_null(c, d, frequencies)
        return
    law = h_s_null(c, d, frequencies)
    rng = np.random.default_rng(0)
    draws = [h_s(rng.standard_normal((c, d)), frequencies) for _ in range(3000)]
    assert kstest(draws, lambda x: 1 - np.array([law.p_value(v) for v in x])).pvalue > 1e-3
    assert law.mean == pytest.approx(len(frequencies) / (c - 1))
    assert law.std == pytest.approx(np.std(draws), rel=0.06)
    assert law.p_value(float(law.quantile(0.95))) == pytest.approx(0.05)
    # A wrong degree of freedom for c/2 is seen by the same test.
    if c % 2 == 0 and c // 2 in frequencies:
        wrong = h_s_null(c + 1, d, closed_set([1], c + 1))
        assert kstest(draws, lambda x: 1 - np.array([wrong.p_value(v) for v in x])).pvalue < 1e-3


@pytest.mark.parametrize(("c", "d", "mean"), [(97, 128, 0.0126), (179, 128, 0.0069), (7, 128, 0.18)])
def test_h_peak_null_published_means(c, d, mean):
    assert h_peak_null(c, d).mean == pytest.approx(mean, abs=0.005 if c == 7 else 5e-5)


@pytest.mark.parametrize(("c", "d"), [(9, 4), (8, 4), (4, 2)])
def test_h_peak_null_against_gaussian_class_means(c, d):
    law = h_peak_null(c, d)
    draws = slow.h_peak_draws(c, d, 800, np.random.default_rng(1))
    assert law.mean == pytest.approx(draws.mean(), abs=5 * draws.std() / np.sqrt(800))
    assert np.mean(draws >= law.quantile(0.9)) == pytest.approx(0.1, abs=5 * np.sqrt(0.09 / 800))
    assert kstest(draws, law.values).pvalue > 1e-3


def test_h_peak_null_of_the_smallest_modulus_is_a_half():
    assert h_peak_null(3, 10).mean == pytest.approx(0.5)


@pytest.mark.parametrize(("c", "k"), [(11, 2), (10, 3)])
def test_top_k_null(c, k):
    law = h_top_k_null(c, 6, k)
    rng = np.random.default_rng(2)
    draws = []
    for _ in range(1500):
        H = rng.standard_normal((c, 6))
        draws.append(h_s(H, top_k_band(H, k)))
    assert law.mean == pytest.approx(np.mean(draws), abs=5 * np.std(draws) / np.sqrt(1500))
    # Choosing the set on the data beats the law for a set fixed beforehand.
    assert law.mean > 1.1 * h_s_null(c, 6, closed_set(range(1, k + 1), c)).mean


def test_anisotropic_columns_through_the_effective_dimension():
    """λ_j = 1/j: the law with d → (tr Σ)²/tr Σ² is right for H_S to a few percent, and too narrow for H_peak."""
    rng = np.random.default_rng(3)
    scale = np.arange(1, 65) ** -0.5
    d = effective_dimension(scale**2)
    assert d == pytest.approx(np.sum(scale**2) ** 2 / np.sum(scale**4))
    S = closed_set([1, 2], 31)
    H = [rng.standard_normal((31, 64)) * scale for _ in range(2000)]
    shares = np.array([h_s(x, S) for x in H])
    assert h_s_null(31, d, S).std == pytest.approx(shares.std(), rel=0.08)
    assert h_s_null(31, 64, S).std < 0.7 * shares.std()
    peaks = np.array([h_peak(x) for x in H])
    assert 0.07 < np.mean(peaks > h_peak_null(31, d).quantile(0.95)) < 0.2
    # The spectrum itself gives the exact law.
    exact = h_peak_null(31, Spectrum(scale**2))
    assert np.mean(peaks > exact.quantile(0.95)) == pytest.approx(
        0.05, abs=4 * np.sqrt(0.0475 * (1 / 2000 + 1 / 4000))
    )
    assert kstest(peaks, exact.values).pvalue > 1e-3
    pairs = np.array([h_s(x, top_k_band(x, 2)) for x in H])
    assert kstest(pairs, h_top_k_null(31, Spectrum(scale**2), 2).values).pvalue > 1e-3


def test_sampled_null_p_values():
    law = h_peak_null(9, 4)
    assert law.p_value(0.0) == 1.0
    assert law.p_value(0.6) == 1 / 20_001
    assert law.p_value(float(law.quantile(0.95))) == pytest.approx(0.05, abs=1e-3)
    assert h_peak_null(9, 4) is law
    with pytest.raises(ValueError, match="read-only"):
        law.values[0] = 1.0


# Marchenko–Pastur and BBP


@given(gammas, st.floats(0.01, 0.99), st.sampled_from([0.1, 1.0, 30.0]))
@settings(max_examples=100)
def test_marchenko_pastur_cdf_against_the_integral(gamma, where, variance):
    law = MarchenkoPastur(gamma, variance)
    low, high = law.edges
    x = low + where * (high - low)
    assert float(law.cdf(x)) == pytest.approx(slow.marchenko_pastur_cdf(x, gamma, variance), abs=1e-9)
    # The density is the derivative of the distribution function.
    step = 1e-5 * (high - low)
    slope = (float(law.cdf(x + step)) - float(law.cdf(x - step))) / (2 * step)
    assert float(law.density(x)) == pytest.approx(slope, rel=1e-4)
    assert float(law.quantile(law.cdf(x))) == pytest.approx(x, rel=1e-7, abs=1e-9 * high)


@pytest.mark.parametrize("gamma", [0.125, 1.0, 3.0])
def test_marchenko_pastur_ends(gamma):
    law = MarchenkoPastur(gamma, 2.0)
    low, high = law.edges
    assert float(law.cdf(high)) == pytest.approx(1.0, abs=1e-12)
    assert float(law.cdf(high + 1)) == 1.0
    assert float(law.cdf(-1e-9)) == 0.0
    assert float(law.cdf(low / 2)) == pytest.approx(law.atom, abs=1e-12)
    assert law.density([low - 1e-6, high + 1e-6]).tolist() == [0.0, 0.0]
    assert float(law.quantile(1.0)) == pytest.approx(high)
    assert float(law.quantile(0.0)) == (0.0 if gamma > 1 else pytest.approx(low))
    assert quad(lambda t: float(law.density(t)), low, high, limit=200)[0] == pytest.approx(
        1 - law.atom, abs=1e-6
    )
    # Moments of all d eigenvalues: σ² and σ⁴(1 + γ).
    grid = law.quantile((np.arange(20_000) + 0.5) / 20_000)
    assert grid.mean() == pytest.approx(2.0, rel=1e-3)
    assert np.mean(grid**2) == pytest.approx(4.0 * (1 + gamma), rel=1e-3)


@pytest.mark.parametrize(("n", "d"), [(800, 200), (200, 400)])
def test_marchenko_pastur_against_a_matrix(n, d):
    x = np.sqrt(3.0) * np.random.default_rng(4).standard_normal((n, d))
    energies = np.maximum(np.linalg.eigvalsh(x.T @ x / n), 0)
    law = MarchenkoPastur(d / n, 3.0)
    empirical = np.array([np.mean(energies <= q) for q in law.quantile([0.6, 0.75, 0.9])])
    np.testing.assert_allclose(empirical, [0.6, 0.75, 0.9], atol=0.015)
    assert np.mean(energies < 1e-9) == pytest.approx(law.atom, abs=1e-12)


def test_bbp_published_positions():
    assert bbp_position(2, 0.25) == pytest.approx(2.5)
    assert bbp_position(3, 0.25) == pytest.approx(3.375)
    assert bbp_threshold(0.125) == pytest.approx(1.354, abs=5e-4)
    assert bbp_position(1.3, 0.125) == pytest.approx((1 + np.sqrt(0.125)) ** 2)
    assert bbp_overlap(1.3, 0.125) == 0.0
    # Continuous at the threshold.
    edge = bbp_threshold(0.25)
    assert bbp_position(edge + 1e-6, 0.25) == pytest.approx(2.25, abs=1e-9)
    assert bbp_overlap(edge + 1e-9, 0.25) == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("spike", [2.0, 3.0])
def test_bbp_against_matrices(spike):
    """20 matrices of 1600 × 400: fluctuations of the top eigenvalue are O(n^−1/2)."""
    rng = np.random.default_rng(5)
    tops = np.array([slow.spiked_top(1600, 400, spike, rng) for _ in range(20)])
    error = tops.std(axis=0, ddof=1) / np.sqrt(20)
    assert abs(tops[:, 0].mean() - bbp_position(spike, 0.25)) < 5 * error[0]
    assert abs(tops[:, 1].mean() - bbp_overlap(spike, 0.25)) < 5 * error[1]


def test_gradient_mean_position_against_matrices():
    samples, dimension, strength = 64, 900, 12.0
    rng = np.random.default_rng(6)
    mean = np.zeros(dimension)
    mean[0] = np.sqrt(strength)
    tops = [np.linalg.norm(mean + rng.standard_normal((samples, dimension)), 2) ** 2 for _ in range(30)]
    expected = gradient_mean_position(strength, samples, dimension)
    assert np.mean(tops) == pytest.approx(expected, abs=5 * np.std(tops) / np.sqrt(30))
    invisible = gradient_mean_position(1.0, samples, dimension)
    assert invisible == pytest.approx((8 + 30) ** 2)
    # The two branches meet.
    critical = np.sqrt(samples * dimension) / samples
    assert gradient_mean_position(critical * (1 + 1e-9), samples, dimension) == pytest.approx(invisible)


# Tracy–Widom


@pytest.mark.parametrize("s", [-4.0, -2.0, -1.0, 0.0, 0.9793, 2.5, 4.0])
def test_tracy_widom_against_painleve(s):
    assert float(tracy_widom_cdf(s)) == pytest.approx(slow.tracy_widom_cdf(s), abs=2e-7)


def test_tracy_widom_published_quantiles_and_moments():
    for level, value in ((0.9, 0.4501), (0.95, 0.9793), (0.99, 2.0234)):
        assert tracy_widom_quantile(level) == pytest.approx(value, abs=1e-4)
    s = np.linspace(-8, 7, 151)
    cdf = tracy_widom_cdf(s)
    # By parts, E s = b − ∫F and E s² = b² − 2∫sF up to b, beyond which F = 1.
    mean = 7.0 - simpson(cdf, x=s)
    assert mean == pytest.approx(-1.2065, abs=1e-4)
    assert 49.0 - 2 * simpson(s * cdf, x=s) - mean**2 == pytest.approx(1.6078, abs=1e-4)


def test_tracy_widom_tails():
    s = np.array([-30.0, -8.0, 0.0, 6.0, 10.0, 50.0])
    cdf, sf = tracy_widom_cdf(s), tracy_widom_sf(s)
    assert np.all(np.diff(cdf) >= 0)
    np.testing.assert_allclose(cdf + sf, 1.0, atol=1e-14)
    assert cdf[0] < 1e-30
    # Far to the right 1 − cdf is rounding, the survival function is not.
    assert 1e-12 < sf[4] < 1e-10


@pytest.mark.parametrize(("n", "d"), [(120, 30), pytest.param(40, 120, marks=pytest.mark.slow)])
def test_edge_test_has_its_size_on_noise_and_finds_a_spike(n, d):
    """400 noise matrices at the level of 5 %: known variance, and variance from the bulk."""
    rng = np.random.default_rng(7)
    known, estimated = [], []
    for _ in range(400):
        values = np.linalg.svd(1.5 * rng.standard_normal((n, d)), compute_uv=False)
        spectrum = Spectrum(values, kind="singular", n=n, d=d, centred=False)
        known.append(tracy_widom_test(spectrum, variance=2.25))
        estimated.append(tracy_widom_test(spectrum).p_value < 0.05)
    assert np.mean([result.p_value < 0.05 for result in known]) == pytest.approx(0.05, abs=0.04)
    # The whole law and not its tail alone: mean and standard deviation of Tracy–Widom, 400 draws.
    statistics = [result.statistic for result in known]
    assert np.mean(statistics) == pytest.approx(-1.2065, abs=0.3)
    assert np.std(statistics) == pytest.approx(np.sqrt(1.6078), rel=0.15)
    assert np.mean(estimated) == pytest.approx(0.05, abs=0.04)
    x = rng.standard_normal((n, d))
    x[:, 0] *= 4.0
    result = tracy_widom_test(Spectrum(np.linalg.svd(x, compute_uv=False), "singular", n, d, False))
    assert result.p_value < 1e-6
    assert result.variance == pytest.approx(1.0, rel=0.1)
    assert result.edge < np.linalg.norm(x, 2) ** 2


@pytest.mark.parametrize(("n", "d"), [(4, 1000), (10, 200), (200, 10), (1000, 3)])
def test_edge_test_has_its_size_whichever_side_is_the_short_one(n, d):
    """3,000 noise matrices at 5 %; with √(n − 1) and √d in its place 1.9 to 6.9 % were rejected."""
    energies = noise_energies(n, d, np.random.default_rng(9), 3000)
    upright, turned = (
        [tracy_widom_test(Spectrum(row**0.5, "singular", *sides, False), 1.0) for row in energies[:20]]
        for sides in ((n, d), (d, n))
    )
    for one, other in zip(upright, turned, strict=True):
        assert one.p_value == pytest.approx(other.p_value, rel=1e-12)
        assert one.edge == pytest.approx(other.edge, rel=1e-12)
    assert np.mean(energies[:, 0] > upright[0].edge) == pytest.approx(0.045, abs=0.0125)


def test_edge_test_conventions_agree():
    """Eigenvalues of the covariance and singular values of the data are the same test; the edge is in their units."""
    rng = np.random.default_rng(8)
    x = rng.standard_normal((40, 10))
    by_values = tracy_widom_test(Spectrum(np.linalg.svd(x, compute_uv=False), "singular", 40, 10, False), 1.0)
    by_energies = tracy_widom_test(
        Spectrum(np.linalg.eigvalsh(x.T @ x / 40), "eigenvalue", 40, 10, False), 1.0
    )
    assert by_values.statistic == pytest.approx(by_energies.statistic)
    assert by_values.edge == pytest.approx(40 * by_energies.edge)
    centred = x - x.mean(axis=0)
    energies = Spectrum(np.linalg.eigvalsh(centred.T @ centred / 39), "eigenvalue", 40, 10, True)
    values = Spectrum(np.linalg.svd(centred, compute_uv=False), "singular", 40, 10, True)
    assert tracy_widom_test(energies, 1.0).statistic == pytest.approx(tracy_widom_test(values, 1.0).statistic)


@given(st.permutations([3.0, 1.0, 2.0, 2.0, 5.0]), st.floats(-1, 9))
@settings(max_examples=30)
def test_the_order_of_draws_does_not_matter(draws, value):
    null = SampledNull(np.array(draws))
    assert null.p_value(value) == pytest.approx((1 + sum(d >= value for d in draws)) / 6)
    assert null.values.tolist() == sorted(draws)


@pytest.mark.parametrize("draws", [[], [1.0, np.nan], [[1.0]]])
def test_what_is_no_sample_is_refused(draws):
    with pytest.raises(InputError, match="draws"):
        SampledNull(np.array(draws))


def test_positions_of_spikes_are_plain_numbers():
    for gamma in (torch.tensor(0.5), np.float64(0.5)):
        assert type(bbp_position(3.0, gamma)) is type(bbp_overlap(3.0, gamma)) is float


# Exponents and the edge of updates


def test_noise_exponent_published():
    head, tail = noise_exponent(1024, 128, 10, 40), noise_exponent(1024, 128, 50, 128)
    assert head.value == pytest.approx(0.209, abs=0.002)
    assert head.details["std"] == pytest.approx(0.006, abs=0.001)
    assert tail.value == pytest.approx(0.910, abs=0.004)
    assert head.low < head.value < head.high


@pytest.mark.parametrize(("n", "d"), [(60, 20), (20, 60)])
@pytest.mark.parametrize("dense", [exponents.DENSE, 0])
def test_noise_exponent_against_covariances(n, d, dense, monkeypatch):
    monkeypatch.setattr(exponents, "DENSE", dense)
    exponents._simulated.cache_clear()
    draws = slow.noise_exponents(n, d, 3, 15, 300, np.random.default_rng(9))
    estimate = noise_exponent(n, d, 3, 15)
    error = np.hypot(draws.std() / np.sqrt(300), estimate.details["std"] / np.sqrt(200))
    assert estimate.value == pytest.approx(draws.mean(), abs=5 * error)
    assert estimate.details["std"] == pytest.approx(draws.std(), rel=0.25)
    exponents._simulated.cache_clear()


@pytest.mark.parametrize("shape", [(1, 5), (2, 2), (7, 7), (30, 90)])
def test_the_whole_spectrum_of_noise_is_that_of_its_bidiagonal_form(shape, monkeypatch):
    monkeypatch.setattr(exponents, "DENSE", 0)
    found = exponents._log_energies(*shape, np.random.default_rng(3))
    diagonal, below = squared_bidiagonal(*shape[::-1], np.random.default_rng(3))
    form = np.diag(np.sqrt(diagonal)) + np.diag(np.sqrt(below), -1)
    np.testing.assert_allclose(found, 2 * np.log(np.linalg.svd(form, compute_uv=False)), atol=1e-10)


@pytest.mark.parametrize(("momentum", "dimension"), [(0.0, 30), (0.8, 30), (0.9, 6)])
def test_edge_null_against_a_moving_average(momentum, dimension):
    null = edge_null(8, dimension, momentum, draws=2000)
    rng = np.random.default_rng(10)
    edges = []
    for _ in range(600):
        rows = slow_updates.moving_average(rng.standard_normal((88, dimension)), momentum, warm_up=80)
        values = np.pad(slow_updates.window_singular_values(rows), (0, max(0, 8 - dimension)))
        edges.append(slow_updates.edge(values) if dimension >= 8 else (dimension, np.inf))
    ks = np.array([k for k, _ in edges])
    for k in range(1, 8):
        p = np.mean(ks == k)
        assert np.mean(null.ks == k) == pytest.approx(
            p, abs=5 * np.sqrt((p * (1 - p) + 1e-3) * (1 / 600 + 1 / 2000))
        )
    if dimension >= 8:
        assert null.gap == pytest.approx(np.median([gap for _, gap in edges]), rel=0.05)


def test_edge_null_of_momentum():
    """For wide updates the gap tends to √(λ₁/λ₂) of (β^|i−j|); k* = 1 needs strong momentum, 0.5 gives 2."""
    for momentum, k in ((0.9, 1), (0.95, 1), (0.5, 2)):
        null = edge_null(10, 10**7, momentum, draws=200)
        lags = np.abs(np.subtract.outer(np.arange(10), np.arange(10)))
        energies = np.linalg.eigvalsh(momentum**lags)[::-1]
        ratios = np.sqrt(energies[:-1] / energies[1:])
        assert int(np.argmax(ratios)) + 1 == k
        assert set(null.ks) == {k}
        assert null.gap == pytest.approx(ratios.max(), rel=1e-3)
    assert null.p_value(2, 0.0) == 1.0
    assert null.p_value(3, 0.0) == 1 / 201


NOISE = Spectrum(np.arange(1.0, 6.0), kind="singular", n=9, d=5, centred=False)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: h_s_null(7, 5, [1]), "closed_set"),
        (lambda: h_s_null(7, 0, [1, 6]), "must be positive"),
        (lambda: h_peak_null(2, 5), "at least 3"),
        (lambda: h_peak_null(7, float("nan")), "must be positive"),
        (lambda: h_top_k_null(7, 5, 4), "ask for 1..3"),
        (lambda: effective_dimension([0.0, 0.0]), "all zeros"),
        (lambda: MarchenkoPastur(0.0), "positive"),
        (lambda: MarchenkoPastur(1.0, float("inf")), "finite"),
        (lambda: MarchenkoPastur(1.0).quantile(1.5), r"\[0, 1\]"),
        (lambda: MarchenkoPastur(1.0).quantile(float("nan")), r"\[0, 1\]"),
        (lambda: bbp_position(0.5, 0.1), "≥ 1"),
        (lambda: bbp_threshold(-1.0), "positive"),
        (lambda: gradient_mean_position(-1.0, 3, 3), "need"),
        (lambda: tracy_widom_quantile(1.0), "between 0 and 1"),
        (lambda: tracy_widom_test(Spectrum([1.0, 2.0])), "lacks n, d or centred"),
        (lambda: tracy_widom_test(NOISE, variance=0.0), "positive"),
        (lambda: tracy_widom_test(Spectrum([1.0, 0, 0, 0, 0], "singular", 9, 5, False)), "pass its variance"),
        (lambda: tracy_widom_test(Spectrum([2.0, 1.0], "singular", 50, 2, False)), "too few to estimate"),
        (lambda: noise_exponent(20, 10, 5, 11), "does not fit"),
        (lambda: noise_exponent(2, 10, 1, 2), "does not fit"),
        (lambda: edge_null(1, 10, 0.5), "at least"),
        (lambda: edge_null(10, 10, 1.0), "at least"),
    ],
)
def test_refusals(call, message):
    with pytest.raises(InputError, match=message):
        call()


@pytest.mark.parametrize("gamma", [1e-30, 1e-12, 1e-8, 1e-4, 0.009, 0.011, 0.5, 2.0, 99.0, 101.0, 1e8, 1e30])
def test_the_distribution_function_keeps_its_digits_for_any_shape(gamma):
    """Against 30-digit quadrature of (2/π) sin²t/(1 + γ + 2√γ cos t)."""
    mpmath = pytest.importorskip("mpmath")
    law = MarchenkoPastur(gamma)
    with mpmath.workdps(30):
        g = mpmath.mpf(gamma)
        for theta in (0.1, 1.0, 2.0, 3.0):
            exact = mpmath.quad(
                lambda t, g=g: (
                    2 / mpmath.pi * mpmath.sin(t) ** 2 / (1 + g + 2 * mpmath.sqrt(g) * mpmath.cos(t))
                ),
                [0, theta],
            )
            assert float(law._upper(np.array(theta))) == pytest.approx(float(exact), rel=5e-12)
    half = 0.5 * (1 + law.atom)
    if 1e-8 <= gamma <= 1e8:
        assert float(law.cdf(law.quantile(half))) == pytest.approx(half, abs=1e-7)
