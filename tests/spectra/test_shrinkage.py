"""Shrinkage against what it must equal: population variances along sample eigenvectors, and brute-force
U-statistics."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spectra.covariance import covariance_spectrum
from spectra.errors import InputError
from spectra.shrinkage import debiased_participation_ratio, nonlinear_shrinkage
from spectra.spectrum import Spectrum
from spectra.summaries import participation_ratio


def draw(rng: np.random.Generator, n: int, population: np.ndarray) -> np.ndarray:
    return rng.standard_normal((n, len(population))) * np.sqrt(population)


@pytest.mark.parametrize(("n", "d"), [(300, 100), (120, 100), (60, 150)])
def test_shrunk_values_beat_the_sample_ones_and_approach_the_oracle(n, d):
    rng = np.random.default_rng(n)
    population = np.r_[np.full(d // 2, 1.0), np.full(d - d // 2, 4.0)]
    ours = theirs = 0.0
    for _ in range(5):
        x = draw(rng, n, population)
        centred = x - x.mean(0)
        values, vectors = np.linalg.eigh(centred.T @ centred / (n - 1))
        # vᵀΣv is the best any estimate with these eigenvectors can do.
        best = np.sort(np.einsum("ij,i->j", vectors**2, population))[::-1]
        shrunk = nonlinear_shrinkage(covariance_spectrum(x)).values
        ours += float(((shrunk - best) ** 2).sum())
        theirs += float(((values[::-1] - best) ** 2).sum())
    assert ours < 0.1 * theirs


def test_identity_population_is_recovered():
    x = np.random.default_rng(0).standard_normal((500, 200))
    shrunk = nonlinear_shrinkage(covariance_spectrum(x)).values
    assert np.abs(shrunk - 1).mean() < 0.05
    assert np.ptp(covariance_spectrum(x).values) > 5 * np.ptp(shrunk)


@pytest.mark.parametrize("n", [400, 60])
def test_shrinkage_scales_with_the_data_and_keeps_its_record(n):
    x = draw(np.random.default_rng(1), n, np.linspace(1, 3, 80))
    one = nonlinear_shrinkage(covariance_spectrum(x))
    large = nonlinear_shrinkage(covariance_spectrum(1e6 * x))
    np.testing.assert_allclose(large.values, 1e12 * one.values, rtol=1e-9)
    assert (one.n, one.d, len(one), one.centred) == (n, 80, 80, True)


def test_shrinkage_refusals():
    good = covariance_spectrum(np.random.default_rng(2).standard_normal((40, 5)))
    for bad in (
        Spectrum(good.values), Spectrum(good.values, "singular", n=40, d=5), Spectrum(good.values, n=8, d=5),
        Spectrum(np.r_[good.values[:4], 0.0], n=40, d=5),
    ):  # fmt: skip
        with pytest.raises(InputError):
            nonlinear_shrinkage(bad)


@given(st.integers(0, 10**6), st.integers(4, 6), st.integers(1, 4))
def test_distribution_free_moments_are_the_u_statistics(seed, n, d):
    x = np.random.default_rng(seed).standard_normal((n, d)) + 3.0
    square, product = [], []
    for i, j, k, m in permutations(range(n), 4):
        a, b = x[i] - x[j], x[k] - x[m]
        square.append((a @ b) ** 2 / 4)
        product.append((a @ a) * (b @ b) / 4)
    got = debiased_participation_ratio(x)
    if got.status == "not fitted":
        assert np.mean(square) <= 1e-9
        return
    scale = covariance_spectrum(x).values[0] ** 2
    assert got.details["square_trace"] * scale == pytest.approx(np.mean(square), rel=1e-6, abs=1e-9)
    assert got.details["trace_squared"] * scale == pytest.approx(np.mean(product), rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("assume", ["nothing", "gaussian"])
def test_debiased_ratio_is_centred_where_the_plain_one_is_not(assume):
    # 200 Gaussian samples of 40 rows in 60 dimensions, seed fixed.
    rng = np.random.default_rng(3)
    population = np.arange(1, 61) ** -0.5
    truth = participation_ratio(population)
    rows = [draw(rng, 40, population) for _ in range(200)]
    values = np.array([debiased_participation_ratio(x, assume).value for x in rows])
    plain = np.array([participation_ratio(covariance_spectrum(x)) for x in rows])
    assert abs(values.mean() - truth) < 0.05 * truth
    assert plain.mean() < 0.7 * truth


def test_only_the_distribution_free_form_survives_heavy_tails():
    rng = np.random.default_rng(4)
    truth = 20.0
    free, gaussian = [], []
    for _ in range(300):
        x = rng.standard_normal((50, 20)) * np.sqrt(rng.chisquare(6, (50, 1)) / 6) ** -1
        free.append(debiased_participation_ratio(x).details)
        gaussian.append(debiased_participation_ratio(x, "gaussian").value)
    ratio = np.mean([f["trace_squared"] for f in free]) / np.mean([f["square_trace"] for f in free])
    assert ratio == pytest.approx(truth, rel=0.1)
    assert np.mean(gaussian) < 0.9 * truth


def test_debiased_ratio_refuses_and_flags():
    rng = np.random.default_rng(5)
    with pytest.raises(InputError, match="four"):
        debiased_participation_ratio(rng.standard_normal((3, 2)))
    with pytest.raises(InputError, match="assume"):
        debiased_participation_ratio(rng.standard_normal((9, 2)), "normal")  # pyright: ignore
    with pytest.raises(InputError, match="NaN"):
        debiased_participation_ratio(np.full((9, 2), np.nan))
    statuses = {debiased_participation_ratio(rng.standard_normal((5, 40))).status for _ in range(40)}
    assert statuses & {"flagged", "not fitted"}
    x = rng.standard_normal((30, 6))
    assert debiased_participation_ratio(1e90 * x).value == pytest.approx(
        debiased_participation_ratio(x).value
    )


# ---------------------------------------------------------------------------------------- far apart, and at any scale


def shrunk_in_60_digits(values: np.ndarray, n: int, d: int) -> list[float]:
    """The formulas for d ≤ n, term by term, where rounding plays no part."""
    mpmath = pytest.importorskip("mpmath")
    with mpmath.workdps(60):
        lam = [mpmath.mpf(float(v)) for v in values]
        h, c, root = mpmath.mpf(n) ** (-mpmath.mpf(1) / 3), mpmath.mpf(d) / n, mpmath.sqrt(5)
        out = []
        for x in lam:
            density = hilbert = mpmath.mpf(0)
            for y in lam:
                u = (x - y) / (h * y)
                density += 3 / (4 * root) * max(1 - u**2 / 5, 0) / (h * y)
                log = mpmath.log(abs((root - u) / (root + u)))
                hilbert += (-3 * u / (10 * mpmath.pi) + 3 / (4 * root * mpmath.pi) * (1 - u**2 / 5) * log) / (
                    h * y
                )
            inner = mpmath.pi * c * x
            out.append(float(x / ((inner * density / d) ** 2 + (1 - c - inner * hilbert / d) ** 2)))
    return sorted(out, reverse=True)


@pytest.mark.parametrize("factor", [1.0, 1e-1, 1e-2, 1e-4, 1e-7])
def test_shrinkage_of_values_far_apart_equals_60_digits(factor):
    x = np.random.default_rng(0).standard_normal((200, 10))
    x[:, 4] *= factor
    spectrum = covariance_spectrum(x)
    shrunk = nonlinear_shrinkage(spectrum)
    np.testing.assert_allclose(shrunk.values, shrunk_in_60_digits(spectrum.values, 199, 10), rtol=1e-9)
    assert shrunk.trace == pytest.approx(spectrum.trace, rel=0.02)


@pytest.mark.parametrize("n", [60, 30])
@pytest.mark.parametrize("power", [-900, -300, 300, 900])
def test_shrinkage_has_no_scale(n, power):
    spectrum = covariance_spectrum(np.random.default_rng(1).standard_normal((n, 40)))
    want = nonlinear_shrinkage(spectrum).values
    scaled = Spectrum(spectrum.values * 2.0**power, n=n, d=40, centred=True)
    np.testing.assert_allclose(nonlinear_shrinkage(scaled).values * 2.0**-power, want, rtol=1e-12)
