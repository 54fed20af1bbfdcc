"""What rounding of the entries left: values that float32, float16 and bfloat16 cannot have held are 0, others stay."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import spectra
from spectra import (
    Factors,
    InputError,
    Moments,
    Spectrum,
    UpdateWindow,
    alpha_req,
    covariance_spectrum,
    farms,
    gram_spectrum,
    js_floor,
    rank,
    rankme_interval,
    sample_gradient_spectra,
    spectral_edge,
    stacked_gradient_spectrum,
    weight_spectra,
    weight_spectrum,
    window_exponent,
    window_exponent_bootstrap,
    window_exponent_interval,
)
from spectra.arrays import machine_epsilon, stored_precision
from spectra.batched import MemberMoments

NARROW = (torch.float32, torch.float16, torch.bfloat16)
EVERY = (torch.float64, *NARROW)


def planted(energies: np.ndarray, n: int, d: int, seed: int = 0) -> np.ndarray:
    """(n, d) centred rows with these covariance eigenvalues."""
    rng = np.random.default_rng(seed)
    k = len(energies)
    left = np.linalg.qr(np.column_stack([np.ones(n), rng.standard_normal((n, k))]))[0][:, 1:]
    right = np.linalg.qr(rng.standard_normal((d, k)))[0]
    return np.sqrt(n - 1) * (left * np.sqrt(energies)) @ right.T


RANK20 = planted(np.arange(1, 21) ** -1.0, 2000, 128)


@pytest.mark.parametrize("dtype", EVERY)
@pytest.mark.parametrize("mean", [0.0, 3.0])
def test_activations_of_rank_20_have_rank_20_by_both_routes(dtype, mean):
    x = torch.tensor(RANK20 + mean).to(dtype)
    for spectrum in (
        covariance_spectrum(x),
        covariance_spectrum(x.to(torch.float32).numpy(), precision=machine_epsilon(x)),
        Moments().update(x[:900]).update(x[900:]).spectrum(),
        (Moments().update(x[:7]) + Moments().update(x[7:])).spectrum(),
    ):
        assert rank(spectrum) == 20
        assert alpha_req(spectrum).value == pytest.approx(1.0, abs=2e-3)
        assert alpha_req(spectrum).details["hi"] == 20
        window = window_exponent(spectrum, 10, 40)
        assert window.status == "not fitted"
        assert "rank 21" in window.reason
        assert "rounding" in window.reason
        assert window_exponent(spectrum, 5, 20).value == pytest.approx(1.0, abs=2e-3)


@pytest.mark.parametrize("dtype", NARROW)
@pytest.mark.parametrize("k", [1, 8, 64])
def test_a_product_of_thin_matrices_has_their_rank(dtype, k):
    generator = torch.Generator().manual_seed(k)
    a, b = torch.randn(256, k, generator=generator), torch.randn(k, 256, generator=generator)
    # Summed in float32, then stored; computed in the dtype itself; loaded again as float32.
    stored = (a @ b).to(dtype)
    for w in (stored, a.to(dtype) @ b.to(dtype), stored.T):
        spectrum = weight_spectrum(w)
        assert rank(spectrum) == k
        assert window_exponent(spectrum, 5, 40).status == ("ok" if k == 64 else "not fitted")
    assert stored_precision(stored.float()) == machine_epsilon(stored)
    assert rank(weight_spectrum(stored.float(), precision=stored_precision(stored.float()))) == k
    tail = farms(stored)
    assert tail.details["k"] <= k if k > 4 else tail.status == "not fitted"


@pytest.mark.parametrize("terms", [64, 1024, 4096, 8192])
def test_long_sums_in_float32_leave_no_rank(terms):
    """Errors of sums depend on the width of the processor's vectors; the widest leave the largest."""
    for seed in range(2):
        generator = torch.Generator().manual_seed(seed)
        a, b = torch.randn(300, 30, generator=generator), torch.randn(30, terms, generator=generator)
        assert rank(weight_spectrum((a @ b) @ torch.randn(terms, 300, generator=generator))) == 30


@pytest.mark.parametrize("shape", [(400, 60), (40, 300)])
@pytest.mark.parametrize("route", [covariance_spectrum, lambda x: Moments().update(x).spectrum()])
def test_genuine_small_values_are_kept(shape, route):
    d = min(shape[0] - 1, shape[1])
    steep = planted(np.logspace(0, -12, d), *shape)
    exact = np.logspace(0, -12, d)
    np.testing.assert_allclose(route(steep).values[:d], exact, rtol=1e-3)
    # What float32 holds of the same matrix: values above its floor are kept to a few per cent.
    narrow = route(steep.astype(np.float32)).values[:d]
    kept = int(np.count_nonzero(narrow))
    assert exact[kept - 1] > 1e-14
    assert kept >= np.count_nonzero(exact > 1e-11)
    np.testing.assert_allclose(narrow[:kept], exact[:kept], rtol=0.3)


@given(st.integers(0, 10**6), st.floats(-7, 0), st.sampled_from([(60, 9), (9, 60)]))
@settings(max_examples=15, deadline=None)
def test_small_numbers_in_float16_have_no_more_rank_than_they_were_made_of(seed, power, shape):
    """Below 6e-5 float16 has a fixed step, which is a larger share of an entry than its machine epsilon."""
    rng = np.random.default_rng(seed)
    rows = np.outer(rng.standard_normal(shape[0]), rng.standard_normal(shape[1]) + 2) * 10**power
    x = torch.tensor(rows).half()
    assume(x.count_nonzero() > x.numel() / 2)
    halves = Moments().update(x[: shape[0] // 2]).update(x[shape[0] // 2 :])
    members = MemberMoments(1)
    members.update(x[None])
    found = [
        weight_spectrum(x),
        weight_spectrum(x, block=1),
        weight_spectra(x[None])[0],
        weight_spectrum(x.double(), precision=machine_epsilon(x)),
        covariance_spectrum(x),
        halves.spectrum(),
        members.split()[0].spectrum(),
        stacked_gradient_spectrum(x),
        Spectrum(sample_gradient_spectra(x[None])[0], "singular"),
    ]
    assert [rank(spectrum) for spectrum in found] == [1] * len(found)


def test_genuine_small_numbers_in_float16_keep_their_rank():
    w = torch.randn(256, 64, generator=torch.Generator().manual_seed(1)) * 1e-5
    assert rank(weight_spectrum(w.half())) == 64


@pytest.mark.parametrize("dtype", EVERY)
def test_gaussian_weights_keep_their_rank(dtype):
    w = torch.randn(256, 512, generator=torch.Generator().manual_seed(1)).to(dtype)
    assert rank(weight_spectrum(w)) == 256
    assert rank(covariance_spectrum(w.T)) == 256


def test_one_long_column_does_not_hide_the_others():
    """An outlier feature is rounded coarsely, the other columns are not: their values stay."""
    rng = np.random.default_rng(2)
    x = rng.standard_normal((1000, 40))
    x[:, 3] *= 300.0
    spectrum = covariance_spectrum(torch.tensor(x).bfloat16())
    assert 38 <= rank(spectrum) <= 40
    np.testing.assert_allclose(spectrum.values[1:38], covariance_spectrum(x).values[1:38], rtol=0.02)


def test_rounding_is_carried_to_whatever_takes_rows():
    x = torch.tensor(planted(np.arange(1, 6) ** -1.0, 200, 12)).float()
    rng = np.random.default_rng(0)
    assert window_exponent_interval(x, 2, 10, rng).status == "not fitted"
    assert window_exponent_bootstrap(x, 2, 10, rng, resamples=100).status == "not fitted"
    assert rankme_interval(x, rng).status == "not fitted"
    # Directions of rounding would add their own divergence.
    assert js_floor(x, rng).value == pytest.approx(
        js_floor(x.double(), np.random.default_rng(0)).value, rel=0.2
    )


@pytest.mark.parametrize("dtype", NARROW)
def test_gradients_and_windows_of_low_rank(dtype):
    rng = np.random.default_rng(3)
    flat = rng.standard_normal((30, 4)) @ rng.standard_normal((4, 2000))
    rows = torch.tensor(flat).to(dtype)
    assert rank(stacked_gradient_spectrum(rows)) == 4
    gram = rows.double() @ rows.double().T
    assert rank(gram_spectrum(gram, 2000, precision=machine_epsilon(rows))) == 4
    # Without it only what float64 lost in forming the Gram matrix is 0; what float32 lost is less here.
    assert rank(gram_spectrum(gram, 2000)) == (4 if dtype == torch.float32 else 30)
    own = sample_gradient_spectra(
        torch.tensor(rng.standard_normal((2, 20, 3)) @ rng.standard_normal((2, 3, 50))).to(dtype)
    )
    assert (np.count_nonzero(own, axis=1) == 3).all()
    a, d = (
        torch.tensor(rng.standard_normal((9, 2, 5))).to(dtype),
        torch.tensor(rng.standard_normal((9, 2, 7))).to(dtype),
    )
    assert Factors(a, d).precision == machine_epsilon(a)
    assert Factors(a, d.float()).precision == machine_epsilon(a)
    # A list is read in float64 and an 8-bit tensor in float32; what counts is the dtype that they were handed in.
    assert Factors(a.double(), list(d)).precision == machine_epsilon(d)
    tiny = d.to(torch.float8_e4m3fn)
    assert {p.precision for p in Factors(a, tiny).split([3, 4])} == {machine_epsilon(tiny)}


def test_a_state_of_moments_from_before_has_the_precision_of_float64():
    x = RANK20[:300].astype(np.float32)
    moments = Moments().update(x)
    state = moments.state_dict()
    assert Moments.from_state_dict(state).spectrum().values.tolist() == moments.spectrum().values.tolist()
    old = {name: state[name] for name in ("count", "mean", "m2")}
    assert Moments.from_state_dict(old).spectrum().values[0] == moments.spectrum().values[0]


MIXED = np.random.default_rng(4).standard_normal((10, 2)) @ np.diag([40.0, 20.0]) @ np.linalg.qr(
    np.random.default_rng(5).standard_normal((3000, 2))
)[0].T + 1e-3 * np.random.default_rng(6).standard_normal((10, 3000))


@pytest.mark.parametrize("order", ["narrow first", "wide first", "narrow update first"])
def test_one_narrow_part_does_not_round_the_others(order):
    window, rows = UpdateWindow(), []
    for i, update in enumerate(MIXED):
        narrow, wide = torch.tensor(update[:8]).bfloat16(), torch.tensor(update[8:]).float()
        parts = [narrow, wide] if order != "wide first" else [wide, narrow]
        if order == "narrow update first" and i == 0:
            parts = [torch.tensor(update).bfloat16()]
        rows.append(torch.cat([part.double() for part in parts]).numpy())
        window.push(parts)
    exact = np.stack(rows)
    np.testing.assert_allclose(window.gram, exact @ exact.T, rtol=1e-12, atol=1e-12)
    edge, want = spectral_edge(window, draws=20), np.linalg.svd(exact, compute_uv=False)
    assert edge.k == 2
    assert edge.gap == pytest.approx(want[1] / want[2], rel=1e-6)


def generator():
    return np.random.default_rng(3)


STORED = np.random.default_rng(7).standard_normal((40, 6)) @ np.diag([9.0, 5.0, 2.0, 1.0, 1e-8, 1e-9])
STATED = {
    "covariance_spectrum": lambda x, **p: spectra.covariance_spectrum(x, **p),
    "weight_spectrum": lambda x, **p: spectra.weight_spectrum(x, **p),
    "Moments": lambda x, **p: Moments().update(x, **p).spectrum(),
    "stacked_gradient_spectrum": lambda x, **p: spectra.stacked_gradient_spectrum(x, **p),
    "sample_gradient_spectra": lambda x, **p: spectra.sample_gradient_spectra(x.reshape(4, 10, 6), **p),
    "farms": lambda x, **p: spectra.farms(x, 1.0, 5, 9, **p),
    "js_floor": lambda x, **p: spectra.js_floor(x, generator(), splits=3, **p),
    "js_excess": lambda x, **p: spectra.js_excess(x, x[::-1] * 2, generator(), splits=3, **p),
    "window_exponent_interval": lambda x, **p: spectra.window_exponent_interval(
        x, 1, 6, generator(), draws=20, **p
    ),
    "rankme_interval": lambda x, **p: spectra.rankme_interval(x[:, :4], generator(), draws=20, **p),
    "participation_ratio_interval": lambda x, **p: spectra.participation_ratio_interval(
        x[:, :4], generator(), draws=20, **p
    ),
    "window_exponent_bootstrap": lambda x, **p: spectra.window_exponent_bootstrap(
        x, 1, 6, generator(), resamples=100, **p
    ),
    "debiased_participation_ratio": lambda x, **p: spectra.debiased_participation_ratio(x, **p),
}


@pytest.mark.parametrize("name", STATED)
def test_a_stated_precision_is_that_of_the_dtype(name):
    """Of float32 numbers in a float64 array: every function that has a floor for rounding can be told of them."""
    function, x = STATED[name], STORED.astype(np.float32)
    eps = float(np.finfo(np.float32).eps)
    told, own = function(x.astype(np.float64), precision=eps), function(x)
    shown = [str(getattr(found, "values", found)) for found in (told, own)]
    assert shown[0] == shown[1]
    for bad in (0.0, -1.0, 2.0, float("nan"), "float32"):
        with pytest.raises(InputError, match="precision"):
            function(x, precision=bad)


def test_what_is_not_told_of_narrow_numbers_takes_their_rounding_for_a_spectrum():
    wide = STORED.astype(np.float32).astype(np.float64)
    assert spectra.window_exponent_interval(wide, 1, 6, generator(), draws=20).status != "not fitted"
    found = spectra.window_exponent_interval(wide, 1, 6, generator(), draws=20, precision=2.0**-23)
    assert found.status == "not fitted"
