"""FARMS as published and as estimated here, values without tests, and exponents beside those of noise."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import gamma

from spectra import InputError, Spectrum, farms, hill, hill_null, hill_z, product_spectrum, weight_spectrum
from spectra.reference import farms as published

SHAPES = ((256, 256), (128, 512), (512, 128), (64, 256))


def gaussian(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).standard_normal(shape)


@given(st.lists(st.floats(0, 1e6), min_size=3, max_size=60), st.one_of(st.none(), st.integers(2, 59)))
def test_a_value_without_tests_is_the_value_with_them(values, k):
    k = None if k is None else max(2, min(k, int(np.count_nonzero(values)) - 1))
    try:
        full = hill(values, k)
    except InputError as error:
        with pytest.raises(InputError, match=str(error)[:20]):
            hill(values, k, tests=False)
        return
    light = hill(values, k, tests=False)
    assert light.value == full.value or (np.isnan(light.value) and np.isnan(full.value))
    assert (light.status, light.reason) == (
        ("ok", "") if full.status == "flagged" else (full.status, full.reason)
    )
    assert not light.has_interval
    assert {name: full.details[name] for name in light.details} == dict(light.details)


@given(
    st.integers(0, 10**6),
    st.tuples(st.integers(3, 14), st.integers(3, 14)),
    st.sampled_from(["tiles", "grid"]),
)
@settings(max_examples=30, deadline=None)
def test_farms_without_tests_has_the_same_value(seed, shape, sampling):
    W = gaussian(seed, *shape)
    full, light = (farms(W, size=3, sampling=sampling, tests=tests) for tests in (True, False))
    assert light.value == full.value
    assert light.status == "ok"
    assert light.details.items() <= full.details.items()


@given(
    st.integers(3, 9), st.integers(0, 9), st.integers(0, 9), st.sampled_from([None, 2, 3]), st.integers(1, 4)
)
@settings(max_examples=30, deadline=None)
def test_overlapping_tiles_count_for_the_entries_that_they_cover(size, more, further, tiles, ops):
    """The interval of a pool of n values is that of the share of them which a cover of the same entries would have."""
    shape = (size + more, size + more + further)
    for sampling in ("tiles", "grid"):
        read = np.zeros(shape)
        W = np.arange(1.0, read.size + 1).reshape(shape) + gaussian(size, *shape)
        found = farms(W, size=size, sampling=sampling, ops=ops, tiles=tiles)
        starts = _starts(shape, size, sampling, ops)
        if tiles is not None and len(starts) > tiles:
            starts = [starts[i] for i in np.linspace(0, len(starts) - 1, tiles).round().astype(int)]
        for i, j in starts:
            read[i : i + size, j : j + size] = 1
        alone = found.details["k"] * read.sum() / (len(starts) * size**2)
        assert found.details["stderr"] == pytest.approx((found.value - 1) / np.sqrt(alone))
        ends = 1 + (found.details["mle"] - 1) * gamma.ppf([0.025, 0.975], alone) / alone
        np.testing.assert_allclose([found.low, found.high], ends, rtol=1e-9)


def _starts(shape: tuple[int, int], size: int, sampling: str, ops: int) -> list[tuple[int, int]]:
    sides = []
    for side in shape:
        if sampling == "grid":
            step = max(1, (side - size) // max(ops - 1, 1))
            sides.append([i * step for i in range(ops) if i * step + size <= side])
        else:
            count = -(-side // size)
            sides.append([round(i * (side - size) / max(count - 1, 1)) for i in range(count)])
    return [(i, j) for i in sides[0] for j in sides[1]]


def test_the_interval_of_a_dense_grid_covers():
    """36 windows that share nearly all entries: an interval that counts each of them held 4 of 10 means."""
    found = []
    for seed in range(25):
        rng = np.random.default_rng(seed)
        W = rng.choice([-1, 1], (64, 96)) * (rng.pareto(1.2, (64, 96)) + 1)
        found.append(farms(W, size=48, sampling="grid", ops=6))
    mean = np.mean([one.value for one in found])
    assert sum(one.low <= mean <= one.high for one in found) >= 21


@given(st.integers(0, 10**6), st.integers(3, 20), st.integers(3, 20), st.integers(3, 20), st.integers(2, 6))
@settings(max_examples=40, deadline=None)
def test_the_grid_is_the_published_one(seed, m, n, size, ops):
    W, size = gaussian(seed, m, n), min(size, m, n)
    pool = published.grid_energies(W, size, ops=ops)
    found = farms(W, size=size, sampling="grid", ops=ops)
    assert found.details["tiles"] * size == len(pool)
    assert found.value == pytest.approx(hill(pool).value, rel=1e-9)
    # Square windows of W and of its transpose have the same values.
    assert farms(W.T, size=size, sampling="grid", ops=ops).value == pytest.approx(found.value, rel=1e-9)


@given(st.lists(st.floats(1e-3, 1e3), min_size=6, max_size=80, unique=True))
def test_the_published_median_fit_differs_by_the_value_at_the_threshold(values):
    n = len(values) - len(values) // 2
    theirs, ours = published.median_exponent(values), hill(values, n - 1).value
    # The same sum of logarithms: n terms of which one is 0, and n − 1 corrected by (k − 1)/k.
    assert (theirs - 1) * (n - 2) / n == pytest.approx(ours - 1, rel=1e-9)


def test_tiles_and_the_median_give_one_exponent_for_all_shapes():
    # Four matrices of each shape; single values of the smallest pool (10 windows) have a deviation of .012.
    for shape in SHAPES:
        drawn = [gaussian(seed, *shape) for seed in range(4)]
        ours = [farms(W, size=64, sampling="grid", tests=False).value for W in drawn]
        assert np.mean(ours) == pytest.approx(2.11, abs=0.03)
        theirs = [published.median_exponent(published.grid_energies(W, 64)) for W in drawn]
        assert np.mean(theirs) == pytest.approx(2.11, abs=0.03)
        # Half of a pool, and that half and the value at its edge.
        assert theirs == pytest.approx(ours, abs=0.03)


def test_the_published_fit_at_the_peak_scatters_where_the_median_does_not():
    # Eight matrices of one law and shape.
    pools = [published.grid_energies(gaussian(seed, 64, 256), 64) for seed in range(8)]
    peaks = [published.peak_exponent(pool) for pool in pools]
    assert min(peaks) > 1
    assert np.std(peaks) > 1
    assert np.std([published.median_exponent(pool) for pool in pools]) < 0.03


def test_the_fit_of_a_kernel_is_the_mean_of_its_blocks():
    kernel = gaussian(0, 6, 15, 2, 2)
    upright = [kernel[:, :, i, j].T for i in range(2) for j in range(2)]
    fits = []
    for rows in (slice(0, 6), slice(6, 12)):
        energies = [np.linalg.svd(s[rows], compute_uv=False) ** 2 for s in upright]
        fits.append(published.median_exponent(np.concatenate(energies)))
    assert published.kernel_exponent(kernel) == pytest.approx(np.mean(fits), rel=1e-9)
    turned = kernel.transpose(1, 0, 2, 3)
    assert published.kernel_exponent(turned) == pytest.approx(published.kernel_exponent(kernel), rel=1e-9)


@pytest.mark.parametrize("shape", [(48, 48), (32, 96)])
def test_z_is_standard_for_noise_of_any_shape(shape):
    # 200 Gaussian matrices: the mean of z is within 4/√200 of 0, its deviation within 20 % of 1 (4 standard errors).
    z = [hill_z(weight_spectrum(gaussian(seed, *shape))).value for seed in range(200)]
    assert abs(np.mean(z)) < 4 / np.sqrt(200)
    assert np.std(z) == pytest.approx(1.0, abs=0.2)
    null = hill_null(*shape)
    assert null.low < null.value < null.high
    assert hill_null(*shape[::-1]) == null
    # A heavier tail than that of noise lies below it.
    heavy = np.random.default_rng(0).standard_t(1.5, shape)
    assert hill_z(weight_spectrum(heavy)).value < -3


@given(st.integers(0, 1000), st.floats(1e-6, 1e6), st.booleans())
@settings(max_examples=20, deadline=None)
def test_z_has_no_scale_and_no_orientation(seed, scale, turned):
    W = gaussian(seed, 8, 12)
    other = scale * (W.T if turned else W)
    plain, found = hill_z(weight_spectrum(W)), hill_z(weight_spectrum(torch.tensor(other)))
    assert found.value == pytest.approx(plain.value, rel=1e-6, abs=1e-6)
    assert found.details["mean"] == plain.details["mean"]


def test_a_product_of_thin_matrices_has_no_z():
    left, right = gaussian(0, 40, 8), gaussian(1, 8, 40)
    with pytest.raises(InputError, match="8 of the 40 values"):
        hill_z(product_spectrum(left, right))


def test_what_has_no_z_is_refused_or_not_fitted():
    for bad in ([3.0, 2.0, 1.0], Spectrum([3.0, 2.0, 1.0]), Spectrum([3.0, 2, 1], n=4, d=3, centred=True)):
        with pytest.raises(InputError, match="whole matrix"):
            hill_z(bad)  # pyright: ignore[reportArgumentType]
    flat = hill_z(Spectrum([1.0, 1.0, 1.0, 1.0], "singular", n=4, d=6))
    assert flat.status == "not fitted"
    for n, d, k in ((2, 9, None), (0, 3, None), (6, 6, 6), (6, 6, 1)):
        with pytest.raises(InputError):
            hill_null(n, d, k)
    refused: list[dict[str, Any]] = [{"sampling": "random"}, {"ops": 0}, {"tests": 1}]
    for changed in refused:
        with pytest.raises(InputError):
            farms(np.eye(5), **changed)
    for tiles in (None, 2):
        with pytest.raises(InputError, match="to_dense"):
            farms(torch.eye(9).to_sparse(), size=4, tiles=tiles)


def test_farms_holds_where_plain_hill_runs_from_2_1_to_5_9():
    rng = np.random.default_rng(0)
    plain, tiled = [], []
    for shape in ((1024, 1024), (724, 1448), (512, 2048), (256, 4096)):
        W = rng.standard_normal(shape)
        plain.append(hill(weight_spectrum(W)).value)
        tiled.append(farms(W).value)
    assert plain[0] == pytest.approx(2.1, abs=0.05)
    assert plain[-1] == pytest.approx(5.9, abs=0.1)
    assert np.all(np.diff(plain) > 0.3)
    assert np.ptp(tiled) < 0.02
    assert tiled == pytest.approx([2.1] * 4, abs=0.05)


@pytest.mark.parametrize(
    ("shape", "aspect", "size", "tiles"),
    [
        ((8, 8), 1.0, None, 1), ((8, 20), 1.0, None, 3), ((20, 8), 1.0, None, 3), ((9, 10), 2.0, None, 2),
        ((7, 40), 2.5, 4, 8), ((30, 30), 1.0, 7, 25),
    ],
)  # fmt: skip
def test_farms_tiles_cover_any_shape(shape, aspect, size, tiles):
    W = np.random.default_rng(1).standard_normal(shape)
    got = farms(torch.tensor(W), aspect, size)
    assert got.details["tiles"] == tiles
    assert got.details["tile_long"] == round(got.details["tile_short"] * aspect)
    assert farms(W.T, aspect, size).value == pytest.approx(got.value, rel=1e-9)
    assert farms(1e6 * W, aspect, size).value == pytest.approx(got.value, rel=1e-9)


def test_farms_pools_what_a_loop_over_tiles_gives():
    W = np.random.default_rng(2).standard_normal((6, 15))
    pooled = [np.linalg.svd(W[:, j : j + 6], compute_uv=False) ** 2 for j in (0, 4, 9)]
    assert farms(W).value == pytest.approx(hill(np.concatenate(pooled)).value, rel=1e-9)


def test_farms_refuses_tiles_that_do_not_fit():
    W = np.ones((5, 9))
    for aspect, size in ((0.5, None), (1.0, 6), (4.0, None), (1.0, 2), (float("nan"), None)):
        with pytest.raises(InputError):
            farms(W, aspect, size)
    with pytest.raises(InputError, match="NaN"):
        farms(np.full((5, 5), np.nan))


def test_farms_takes_no_more_tiles_than_asked_for_evenly_spread():
    W = np.random.default_rng(4).standard_normal((40, 60))
    every, some = farms(W, size=10), farms(W, size=10, tiles=5)
    assert (every.details["tiles"], some.details["tiles"]) == (24, 5)
    assert farms(W, size=10, tiles=24).value == every.value
    # Corners 0, 6, 12, 17, 23 of a grid of 4 by 6.
    corners = [(0, 0), (10, 0), (20, 0), (20, 50), (30, 50)]
    pooled = [np.linalg.svd(W[i : i + 10, j : j + 10], compute_uv=False) ** 2 for i, j in corners]
    assert some.value == pytest.approx(hill(np.concatenate(pooled)).value, rel=1e-9)
    # What lies outside the tiles is not read.
    holed = torch.tensor(W)
    holed[35, 5] = float("nan")
    assert farms(holed, size=10, tiles=5).value == pytest.approx(some.value)
    with pytest.raises(InputError, match="tiles"):
        farms(W, size=10, tiles=0)
