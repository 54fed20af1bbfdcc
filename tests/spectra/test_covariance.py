"""The covariance route: float64 Gram against exactly rounded sums and SVD, and everything it must refuse."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spectra import Moments, UpdateWindow, farms, weight_spectra
from spectra.covariance import covariance_spectrum
from spectra.errors import InputError
from spectra.reference import covariance as slow
from spectra.weights import product_spectrum, weight_spectrum


def draw(seed: int, n: int, d: int, alpha: float, mean: float = 0.0, scale: float = 1.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return scale * (mean + rng.standard_normal((n, d)) * np.arange(1, d + 1) ** (-alpha / 2))


shapes = st.tuples(st.integers(2, 12), st.integers(1, 12))


@given(st.integers(0, 10**6), shapes, st.floats(0, 4), st.sampled_from([0.0, 1.0, 1e3]), st.booleans())
def test_equals_the_oracle(seed, shape, alpha, mean, center):
    x = draw(seed, *shape, alpha, mean)
    got = covariance_spectrum(x, center)
    want = slow.covariance_spectrum(x, center)
    assert len(got) == min(shape)
    np.testing.assert_allclose(got.values, want, rtol=1e-7, atol=1e-11 * (want[0] + mean**2 * 1e-9))
    assert (got.n, got.d, got.centred) == (*shape, center)


@given(st.integers(0, 10**6), shapes)
def test_eigenvalues_are_those_of_the_exactly_summed_matrix(seed, shape):
    x = draw(seed, *shape, 1.0)
    want = np.linalg.eigvalsh(slow.covariance(x))[::-1][: min(shape)]
    np.testing.assert_allclose(covariance_spectrum(x).values, want, atol=1e-12 * want[0])


@pytest.mark.parametrize(("n", "d"), [(512, 128), (96, 128)])
def test_gram_route_keeps_small_eigenvalues_of_a_steep_spectrum(n, d):
    x = draw(0, n, d, 3.0)
    want = slow.covariance_spectrum(x)
    rank = int(0.9 * min(n, d))
    got = covariance_spectrum(x).values
    assert np.max(np.abs(got[:rank] / want[:rank] - 1)) < 2e-9


def test_svd_takes_over_where_squaring_would_lose_the_tail():
    d = 20
    rng = np.random.default_rng(1)
    left, right = (
        np.linalg.qr(rng.standard_normal((40, d)))[0],
        np.linalg.qr(rng.standard_normal((d, d)))[0],
    )
    left = np.linalg.qr(left - left.mean(0))[0]
    sigma = np.logspace(0, -10, d)
    got = covariance_spectrum(left * sigma @ right.T).singular_values * np.sqrt(39)
    np.testing.assert_allclose(got, sigma, rtol=1e-4)
    gram = np.linalg.eigvalsh((left * sigma @ right.T).T @ (left * sigma @ right.T))
    assert np.max(np.abs(np.sqrt(np.abs(gram[::-1])) / sigma - 1)) > 0.1, "the Gram route would have done"


def test_large_mean_in_float32_does_not_break_it():
    rng = np.random.default_rng(2)
    x = (1000 + rng.standard_normal((4096, 32))).astype(np.float32)
    values = covariance_spectrum(x).values
    assert 0.8 < values.min() < values.max() < 1.3
    naive = np.linalg.eigvalsh(
        (x.T @ x / np.float32(4096) - np.outer(x.mean(0), x.mean(0))).astype(np.float64)
    )
    assert naive.min() < -1 or naive.max() > 3, "the counterexample lost its teeth"


def test_structural_zeros_are_exact():
    x = draw(3, 5, 9, 0.5)
    spectrum = covariance_spectrum(x)
    assert len(spectrum) == 5
    assert spectrum.values[-1] == 0.0
    assert np.count_nonzero(spectrum.values) == spectrum.max_rank == 4


@pytest.mark.parametrize("shift", [0.0, 1e3, 1e6])
def test_rank_deficient_rows_have_exact_rank(shift):
    rng = np.random.default_rng(4)
    x = rng.standard_normal((50, 3)) @ rng.standard_normal((3, 20)) + shift
    assert np.count_nonzero(covariance_spectrum(x).values) == 3


@pytest.mark.parametrize("power", [-100, 100])
def test_extreme_scales(power):
    x = draw(5, 30, 8, 1.0)
    np.testing.assert_allclose(
        covariance_spectrum(x * 10.0**power).values,
        covariance_spectrum(x).values * 10.0 ** (2 * power),
        rtol=1e-12,
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.int32])
def test_torch_and_numpy_agree_in_every_dtype(dtype):
    x = torch.tensor(draw(6, 40, 6, 1.0, scale=10.0)).to(dtype)
    want = covariance_spectrum(x.to(torch.float64).numpy())
    np.testing.assert_array_equal(covariance_spectrum(x).values, want.values)
    leaf = x.to(torch.float64).requires_grad_()
    assert covariance_spectrum(leaf).n == 40


def test_input_is_untouched_and_may_be_read_only():
    x = draw(7, 20, 5, 1.0, mean=3.0)
    before = x.copy()
    x.setflags(write=False)
    covariance_spectrum(x)
    np.testing.assert_array_equal(x, before)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (np.full((4, 3), np.nan), "NaN"),
        (np.full((4, 3), np.inf), "NaN or Inf"),
        (np.ones((1, 3)), "two samples"),
        (np.ones((0, 3)), "empty"),
        (np.ones((3, 0)), "empty"),
        (np.ones((5, 3)) * 0.1, "no variation"),
        (np.ones(5), "2 axes"),
        (np.ones((5, 3)) * 1j, "real"),
        (np.diag([1.7e308, 1.7e308, -1.7e308]), "largest entry is 1.7e"),
        (np.diag([1e-310, 2e-310]), "largest entry is 2e-310"),
        (np.array([["a", "b"]]), "real"),
    ],
)
def test_what_it_refuses(bad, message):
    with pytest.raises(InputError, match=message):
        covariance_spectrum(bad)


@given(st.integers(0, 10**6), shapes)
def test_weight_spectrum_is_the_svd(seed, shape):
    w = draw(seed, *shape, 1.0)
    got = weight_spectrum(torch.nn.Parameter(torch.tensor(w)))
    assert (got.kind, got.n, got.d, got.centred) == ("singular", *shape, False)
    np.testing.assert_allclose(got.values, np.linalg.svd(w, compute_uv=False), rtol=1e-6, atol=1e-13)


@given(st.integers(0, 10**6), st.integers(1, 7), st.integers(1, 5), st.integers(1, 9))
def test_a_product_has_the_singular_values_of_the_formed_product(seed, n, inner, d):
    left, right = draw(seed, n, inner, 1.0), draw(seed + 1, inner, d, 1.0)
    got = product_spectrum(torch.tensor(left), right)
    assert (got.kind, got.n, got.d, len(got)) == ("singular", n, d, min(n, inner, d))
    want = np.linalg.svd(left @ right, compute_uv=False)[: len(got)]
    np.testing.assert_allclose(got.values, want, rtol=1e-9, atol=1e-13 * want[0])


@given(st.integers(0, 10**6), st.floats(1e-3, 1e3))
def test_a_product_does_not_change_with_a_change_of_basis_of_the_head(seed, condition):
    left, right = draw(seed, 12, 4, 1.0), draw(seed + 1, 4, 9, 1.0)
    q, _ = np.linalg.qr(draw(seed + 2, 4, 4, 1.0))
    change = q @ np.diag(np.geomspace(1, condition, 4))
    before, after = (
        product_spectrum(left, right),
        product_spectrum(left @ change, np.linalg.solve(change, right)),
    )
    np.testing.assert_allclose(after.values, before.values, rtol=1e-8)
    # The single matrices do change.
    assert condition == 1 or not np.allclose(
        weight_spectrum(left @ change).values, weight_spectrum(left).values, rtol=1e-6
    )


def test_a_product_that_loses_rank_has_zeros_at_the_precision_of_its_factors():
    left, right = draw(0, 30, 6, 1.0), draw(1, 6, 30, 1.0)
    right[5] = right[:5].sum(0)
    left[:, 5] = 0.0
    for dtype in (torch.float64, torch.float32):
        got = product_spectrum(torch.tensor(left, dtype=dtype), torch.tensor(right, dtype=dtype))
        assert np.count_nonzero(got.values) == 5
        assert len(got) == 6
    narrow = [torch.tensor(x, dtype=torch.bfloat16) for x in (left, right)]
    assert np.count_nonzero(product_spectrum(*narrow).values) == 5


@pytest.mark.parametrize(
    ("left", "right", "message"),
    [
        (np.ones((3, 2)), np.ones((3, 2)), "columns of left must be rows of right"),
        (np.zeros((3, 2)), np.ones((2, 3)), "all zeros"),
        (np.full((3, 2), 1e120), np.full((2, 3), 1e120), "cannot hold its energy"),
        (np.full((3, 2), np.nan), np.ones((2, 3)), "NaN"),
        (np.ones(3), np.ones((2, 3)), "2 axes"),
    ],
)
def test_what_a_product_refuses(left, right, message):
    with pytest.raises(InputError, match=message):
        product_spectrum(left, right)


def test_weight_spectrum_refuses_vectors_and_zeros():
    with pytest.raises(InputError, match="one row"):
        weight_spectrum(np.ones((1, 4)))
    with pytest.raises(InputError, match="zeros"):
        weight_spectrum(np.zeros((4, 4)))
    with pytest.raises(InputError, match="largest entry"):
        weight_spectrum(np.diag([1e200, 1.0]))


@pytest.mark.parametrize("shape", [(40, 8), (8, 40), (30, 6)])
def test_the_tensor_branch_of_accelerators_gives_the_same_numbers(shape, monkeypatch):
    # On an accelerator the rows stay tensors; the same code runs here on host tensors, SVD fallback included.
    from spectra import covariance

    x = draw(9, *shape, 1.0, mean=50.0)
    x[:, -1] = x[:, 0] if shape == (30, 6) else x[:, -1]
    want = covariance_spectrum(x)
    monkeypatch.setattr(covariance, "to_rows", lambda data, name: torch.tensor(data))
    np.testing.assert_allclose(covariance_spectrum(x).values, want.values, rtol=1e-10, atol=1e-13)


@given(
    st.integers(0, 10**6),
    st.tuples(st.integers(2, 40), st.integers(1, 40)),
    st.floats(0, 12),
    st.integers(1, 900),
    st.sampled_from([np.float64, np.float32, torch.float32, torch.bfloat16]),
)
def test_weights_in_blocks_have_the_same_spectrum(seed, shape, alpha, block, dtype):
    w = draw(seed, *shape, alpha)
    w = w.astype(dtype) if isinstance(dtype, type) else torch.tensor(w, dtype=dtype)
    whole, blocks = weight_spectrum(w), weight_spectrum(w, block=block)
    assert (blocks.n, blocks.d, blocks.kind, blocks.centred) == (whole.n, whole.d, whole.kind, whole.centred)
    # Where σ₁²/σ_j² is near the limit of the Gram matrix four digits are kept.
    np.testing.assert_allclose(blocks.values, whole.values, rtol=1e-3, atol=1e-13 * whole.values[0])
    np.testing.assert_allclose(blocks.values[:2], whole.values[:2], rtol=1e-9)


@pytest.mark.parametrize("transposed", [False, True])
def test_blocks_find_the_rank_and_the_tail_of_a_steep_matrix(transposed):
    generator = np.random.default_rng(0)
    q, _ = np.linalg.qr(generator.standard_normal((300, 30)))
    v, _ = np.linalg.qr(generator.standard_normal((30, 30)))
    sigma = np.logspace(0, -9, 30)
    w = (q * sigma) @ v.T
    got = weight_spectrum(w.T if transposed else w, block=1000)
    np.testing.assert_allclose(got.values, sigma, rtol=1e-5)
    low = generator.standard_normal((300, 5)) @ generator.standard_normal((5, 60))
    assert (weight_spectrum(low, block=1000).values > 0).sum() == 5


class Sharded(torch.Tensor):
    """A tensor that keeps its numbers in others, as distributed and quantised parameters do."""

    @staticmethod
    def __new__(cls, part: torch.Tensor):
        return torch.Tensor._make_wrapper_subclass(cls, part.shape, dtype=part.dtype)  # pyright: ignore

    def __tensor_flatten__(self):
        return [], None

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        raise RuntimeError(f"{func} of a shard")


MASKED = np.ma.masked_array(np.eye(4), mask=np.eye(4) > 0)
CODES = torch.nn.Parameter(torch.arange(12, dtype=torch.uint8).reshape(4, 3), requires_grad=False)


@pytest.mark.parametrize(
    "bad",
    [
        *(np.full((4, 3), np.nan), np.ones((1, 4)), np.zeros((4, 4)), np.full((3, 3), 1e200)),
        *(MASKED, CODES, Sharded(torch.eye(3)), torch.ones(4, 3, dtype=torch.complex64)),
    ],
)
def test_blocks_refuse_what_the_whole_refuses(bad):
    plain = type(bad) is np.ndarray
    for w in (bad.copy(), torch.tensor(bad)) if plain else (bad,):
        with pytest.raises(InputError) as whole:
            weight_spectrum(w)
        with pytest.raises(InputError) as blocks:
            weight_spectrum(w, block=4)
        assert str(blocks.value) == str(whole.value)


def test_blocks_take_what_the_whole_takes():
    conjugate = torch.randn(6, 4, dtype=torch.complex128).conj()
    for w in (conjugate.imag, torch.nn.Parameter(torch.eye(3)), torch.arange(12).reshape(4, 3)):
        np.testing.assert_allclose(weight_spectrum(w, block=4).values, weight_spectrum(w).values, atol=1e-12)


@pytest.mark.parametrize(
    ("w", "remedy"), [(Sharded(torch.eye(3)), "full_tensor"), (CODES, "codes of a quantised weight")]
)
def test_tensors_without_numbers_of_their_own_are_refused_with_a_remedy(w, remedy):
    calls = (covariance_spectrum, weight_spectrum, Moments().update, UpdateWindow(2).push, farms)
    for call in (*calls, lambda w: weight_spectra([w, w]), lambda w: farms(w, size=3, tiles=1)):
        with pytest.raises(InputError, match=remedy):
            call(w)


def test_blocks_are_all_that_is_taken_to_float64(monkeypatch):
    from spectra import blocks

    seen = []
    real = blocks._blocks
    monkeypatch.setattr(blocks, "_blocks", lambda w, size: (seen.append(p.shape) or p for p in real(w, size)))
    weight_spectrum(torch.randn(50, 1000), block=5000)
    assert seen == [(100, 50)] * 10
