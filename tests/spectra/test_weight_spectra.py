"""Spectra of matrices of one shape together are those of each alone, also where a matrix is special."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated import simulated_device

from spectra import (
    InputError,
    product_spectra,
    product_spectrum,
    weight_spectra,
    weight_spectrum,
)
from spectra.arrays import stored_precision, stored_precisions

KINDS = ("gaussian", "steep", "of low rank", "far from one")


def matrix(kind: str, seed: int, n: int, d: int) -> np.ndarray:
    rng = np.random.default_rng([seed, n, d])
    plain, least = rng.standard_normal((n, d)), min(n, d)
    if kind == "steep":
        left, _, right = np.linalg.svd(plain, full_matrices=False)
        return left * 10.0 ** -np.linspace(0, 9, least) @ right
    if kind == "of low rank":
        return plain[:, : max(least // 2, 1)] @ rng.standard_normal((max(least // 2, 1), d))
    return plain * (1e90 if kind == "far from one" else 1.0)


def same(spectrum, other):
    """Energies of one Gram matrix, but for the order in which it was summed."""
    np.testing.assert_allclose(spectrum.energies, other.energies, rtol=1e-12, atol=1e-14 * other.energies[0])
    assert (spectrum.values == 0).tolist() == (other.values == 0).tolist()


@given(
    st.integers(0, 10**6),
    st.integers(2, 9),
    st.integers(1, 12),
    st.lists(st.sampled_from(KINDS), min_size=1, max_size=5),
    st.sampled_from([torch.float64, torch.float32]),
)
@settings(deadline=None)
def test_together_as_alone(seed, n, d, kinds, dtype):
    # float32 has no 1e90.
    kinds = [k if dtype == torch.float64 else k.replace("far from one", "gaussian") for k in kinds]
    stack = torch.tensor(np.array([matrix(k, seed + i, n, d) for i, k in enumerate(kinds)]), dtype=dtype)
    for together, alone in zip(weight_spectra(stack), map(weight_spectrum, stack), strict=True):
        same(together, alone)
        assert (together.kind, together.n, together.d, together.centred) == ("singular", n, d, False)
    for one, spectrum in zip(stack, weight_spectra(stack.numpy()), strict=True):
        same(spectrum, weight_spectrum(one))


@given(st.integers(0, 10**6), st.integers(2, 9), st.integers(1, 5), st.integers(1, 9), st.integers(1, 4))
@settings(deadline=None)
def test_products_together_as_alone(seed, n, inner, d, count):
    rng = np.random.default_rng(seed)
    scales = 10.0 ** rng.uniform(-60, 60, (count, 1, 1))
    left, right = rng.standard_normal((count, n, inner)) * scales, rng.standard_normal((count, inner, d))
    for a, b, together in zip(left, right, product_spectra(left, torch.tensor(right)), strict=True):
        alone = product_spectrum(a, b)
        np.testing.assert_allclose(together.values, alone.values, rtol=1e-12, atol=1e-15 * alone.values[0])
        assert (together.n, together.d) == (n, d)
        want = np.linalg.svd(a @ b, compute_uv=False)[: len(alone)]
        np.testing.assert_allclose(together.values, want, rtol=1e-9, atol=1e-13 * want[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("inner", [16, 128])
def test_products_of_heads_in_narrow_numbers_keep_their_values(dtype, inner):
    """The values are those of the numbers as they are stored, and no rank comes from rounding."""
    rng = np.random.default_rng(inner)
    left, right = rng.standard_normal((768, inner)), rng.standard_normal((inner, 768))
    stored = [torch.tensor(side).to(dtype) for side in (left, right)]
    exact = np.linalg.svd((stored[0].double() @ stored[1].double()).numpy(), compute_uv=False)[:inner]
    np.testing.assert_allclose(product_spectrum(*stored).values, exact, rtol=1e-9)
    low = left @ rng.standard_normal((inner, 5)) @ rng.standard_normal((5, inner))
    spectra = product_spectra(*(torch.tensor(side).to(dtype)[None] for side in (low, right)))
    assert np.count_nonzero(spectra[0].values) == 5
    # Small entries of float16 are off by more than their machine epsilon tells.
    tiny = (torch.tensor(low * 1e-7).to(dtype), stored[1])
    assert np.count_nonzero(product_spectrum(*tiny).values) <= 5


def test_each_matrix_has_its_own_precision():
    rng = np.random.default_rng(0)
    plain = torch.tensor(rng.standard_normal((3, 40, 5)) @ rng.standard_normal((5, 30)), dtype=torch.float32)
    stack = torch.stack([plain[0], plain[1].bfloat16().float(), plain[2]])
    own = stored_precisions(stack)
    assert own == [stored_precision(m) for m in stack] == [2.0**-23, 2.0**-7, 2.0**-23]
    found = weight_spectra(stack, precision=own)
    # Rounding to bfloat16 hides ranks that float32 would count.
    assert [int((s.values > 0).sum()) for s in found] == [5, 5, 5]
    assert (weight_spectra(stack)[1].values > 0).sum() == 30


def test_an_accelerator_is_asked_a_few_times_for_any_number_of_matrices():
    generator = torch.Generator().manual_seed(0)
    asked = {}
    for count in (2, 20):
        stack = torch.randn(count, 6, 9, generator=generator)
        with simulated_device() as device:
            there = stack.to("cuda")
            with device.counting() as counts:
                found = weight_spectra(there)
        asked[count] = sum(counts.synchronisations.values())
        for one, spectrum in zip(stack, found, strict=True):
            same(spectrum, weight_spectrum(one))
    assert asked[2] == asked[20] < 6


def test_what_the_solver_of_an_accelerator_gives_up_on_is_decomposed_on_the_host(monkeypatch):
    stack = torch.tensor(np.array([matrix("gaussian", seed, 6, 4) for seed in range(3)]))
    plain, places = torch.linalg.eigvalsh, []

    def fails(grams):
        places.append(grams.device.type)
        if grams.device.type == "cuda":
            raise torch.linalg.LinAlgError("no convergence")  # pyright: ignore[reportPrivateImportUsage]
        return plain(grams)

    monkeypatch.setattr(torch.linalg, "eigvalsh", fails)
    with simulated_device():
        found = weight_spectra(stack.to("cuda"))
    assert places == ["cuda", "cpu"]
    for one, spectrum in zip(stack, found, strict=True):
        same(spectrum, weight_spectrum(one))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: weight_spectra(np.ones((3, 2))), "3 axes"),
        (lambda: weight_spectra(np.ones((2, 1, 4))), "one row"),
        (lambda: weight_spectra(np.zeros((0, 2, 4))), "empty"),
        (lambda: weight_spectra(np.stack([np.eye(3), np.zeros((3, 3))])), "all zeros"),
        (lambda: weight_spectra(np.stack([np.eye(3), np.eye(3) * 1e200])), "cannot hold"),
        (lambda: weight_spectra(np.stack([np.eye(3), np.eye(3) * 1e-200])), "cannot hold"),
        (lambda: weight_spectra(np.full((2, 3, 3), np.nan)), "NaN"),
        (lambda: weight_spectra(np.ones((2, 3, 3)), precision=[1e-3]), "1 numbers for 2 matrices"),
        (lambda: weight_spectra(np.ones((2, 3, 3)), precision=2.0), "precision"),
        (lambda: product_spectra(np.ones((2, 3, 2)), np.ones((1, 2, 3))), "as many of both"),
        (lambda: product_spectra(np.ones((2, 3, 2)), np.ones((2, 3, 3))), "columns of left must be rows"),
    ],
)
def test_what_has_no_spectra_is_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()
