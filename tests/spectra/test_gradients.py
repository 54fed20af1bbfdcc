"""Per-sample gradient spectra from factors and from formed gradients."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spectra import gradient_products
from spectra.errors import InputError
from spectra.gradients import (
    Factors,
    Inputs,
    OneHot,
    gradient_inner_products,
    gram_spectrum,
    sample_gradient_spectra,
    stacked_gradient_spectrum,
)
from spectra.reference import gradients as slow


@st.composite
def factor_terms(draw):
    """One to three terms, dense or one-hot, of one weight; repeated rows and zeros included."""
    samples, out, inner = draw(st.integers(2, 6)), draw(st.integers(1, 7)), draw(st.integers(1, 7))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    terms, formed = [], 0.0
    for kind in draw(st.lists(st.sampled_from(["dense", "one-hot", "repeated"]), min_size=1, max_size=3)):
        positions = draw(st.integers(1, 9))
        a = rng.standard_normal((samples, positions, inner))
        if kind == "one-hot":
            index = rng.integers(0, out, (samples, positions))
            terms.append(Factors(a, OneHot(torch.from_numpy(index), out)))
            formed = formed + slow.formed(a, slow.one_hot(index, out))
            continue
        if kind == "repeated":
            a[:, :] = a[:, :1]
        d = rng.standard_normal((samples, positions, out))
        terms.append(Factors(torch.from_numpy(a), d))
        formed = formed + slow.formed(a, d)
    return terms, formed


@given(factor_terms(), st.sampled_from([2**24, 40]))
def test_both_objects_against_formed_gradients(case, working_set):
    """With the ordinary working set, and with one so small that every loop takes several chunks."""
    terms, formed = case
    samples, out, inner = formed.shape
    stacked, own = slow.stacked_singular_values(formed), slow.own_singular_values(formed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gradient_products, "WORKING_SET", working_set)
        spectrum = stacked_gradient_spectrum(terms)
        values = sample_gradient_spectra(terms)
    np.testing.assert_allclose(spectrum.values, stacked, rtol=0, atol=3e-7 * stacked[0])
    assert (spectrum.kind, spectrum.n, spectrum.d, spectrum.centred) == (
        "singular",
        samples,
        out * inner,
        False,
    )
    assert values.shape == own.shape
    np.testing.assert_allclose(values, own, rtol=0, atol=3e-7 * own.max())


@given(factor_terms(), st.sampled_from([2**24, 3600, 40]))
@settings(max_examples=50)
def test_the_two_routes_to_the_stacked_gram_agree(case, working_set):
    terms, formed = case
    flat = formed.reshape(len(formed), -1)
    tolerance = 1e-12 * np.abs(flat @ flat.T).max()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gradient_products, "WORKING_SET", working_set)
        for route in (gradient_products._gram_of_factors, gradient_products._gram_of_rows):
            np.testing.assert_allclose(route(tuple(terms)).numpy(), flat @ flat.T, rtol=0, atol=tolerance)


@given(factor_terms(), st.sampled_from([2**24, 3600, 40]), st.data())
@settings(max_examples=50)
def test_blocks_of_samples_make_up_the_gram_matrix(case, working_set, data):
    terms, formed = case
    cut = data.draw(st.integers(1, len(formed) - 1))
    for term in terms:
        whole = gradient_products._gram_of_factors((term,))
        blocks = [block_of(term, part) for part in (slice(0, cut), slice(cut, None))]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(gradient_products, "WORKING_SET", working_set)
            rows = [torch.cat([gradient_inner_products(p, q) for q in blocks], dim=1) for p in blocks]
        gram = torch.cat(rows)
        np.testing.assert_allclose(gram.numpy(), whole.numpy(), rtol=0, atol=1e-12 * float(whole.abs().max()))
        spectrum, plain = gram_spectrum(gram, term.shape[0] * term.shape[1]), stacked_gradient_spectrum(term)
        np.testing.assert_allclose(spectrum.values, plain.values, rtol=0, atol=3e-7 * plain.values[0])
        assert (spectrum.n, spectrum.d, spectrum.kind) == (plain.n, plain.d, plain.kind)


def block_of(term, part):
    d = OneHot(term.d.index[part], term.d.size) if isinstance(term.d, OneHot) else term.d[part]
    return Factors(term.a[part], d)


def test_what_is_no_gram_matrix_and_what_does_not_belong_together():
    with pytest.raises(InputError, match=r"has shape \(2, 3\)"):
        gram_spectrum(torch.ones(2, 3), 9)
    with pytest.raises(InputError, match="with 4 NaN"):
        gram_spectrum(torch.full((2, 2), torch.nan), 9)
    with pytest.raises(InputError, match="at least two"):
        gram_spectrum(torch.ones(1, 1), 9)
    for wrong in (
        [[1.0, 5.0], [0.0, 1.0]],
        [[1.0, 2.0], [2.0, 1.0]],
        [[-1.0, 0.0], [0.0, 1.0]],
        [[0.0, 1.0]] * 2,
    ):
        with pytest.raises(InputError, match="inner products of the same vectors"):
            gram_spectrum(np.array(wrong), 9)
    with pytest.raises(InputError, match="none below 0"):
        gram_spectrum(1.9 * np.eye(3) - 0.9, 9)
    with pytest.raises(InputError, match="of different weights"):
        gradient_inner_products(
            Factors(torch.ones(2, 3, 4), torch.ones(2, 3, 5)),
            Factors(torch.ones(2, 3, 4), torch.ones(2, 3, 6)),
        )


def test_energies_are_exact_over_ten_orders():
    """A spectrum from 1 to 1e-5: the Gram route keeps relative accuracy as far as energies of 1e-10."""
    rng = np.random.default_rng(0)
    u = np.linalg.qr(rng.standard_normal((8, 8)))[0]
    v = np.linalg.qr(rng.standard_normal((36, 8)))[0]
    sigma = 10.0 ** -np.linspace(0, 5, 8)
    explicit = torch.from_numpy((u * sigma @ v.T).reshape(8, 6, 6))
    np.testing.assert_allclose(stacked_gradient_spectrum(explicit).values, sigma, rtol=1e-4)


def test_member_batched_layer_by_hand():
    """A layer of K members with weight (K, out, in), whose factors the caller builds member by member."""
    generator = torch.Generator().manual_seed(0)
    members, samples, positions, inner, out = 3, 4, 5, 6, 7
    weight = torch.randn(members, out, inner, generator=generator, dtype=torch.float64)
    x = torch.randn(members, samples, positions, inner, generator=generator, dtype=torch.float64)
    y = torch.einsum("kbti,koi->kbto", x, weight).requires_grad_()
    (d,) = torch.autograd.grad(y.tanh().square().mean((2, 3)).sum(), y)
    for k in range(members):
        values = sample_gradient_spectra(Factors(x[k], d[k]))
        expected = slow.own_singular_values(slow.formed(x[k].numpy(), d[k].numpy()))
        np.testing.assert_allclose(values, expected, rtol=0, atol=1e-7 * expected.max())


def test_split_of_a_fused_weight():
    rng = np.random.default_rng(0)
    a, d = rng.standard_normal((3, 4, 5)), rng.standard_normal((3, 4, 6))
    parts = Factors(a, d).split([2, 3, 1])
    assert all(part.inputs is parts[0].inputs for part in parts)
    for part, columns in zip(parts, (slice(0, 2), slice(2, 5), slice(5, 6)), strict=True):
        expected = slow.own_singular_values(slow.formed(a, d[:, :, columns]))
        np.testing.assert_allclose(sample_gradient_spectra(part), expected, atol=1e-7 * expected.max())
    with pytest.raises(InputError, match="add up"):
        Factors(a, d).split([2, 3])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_low_precision_factors_are_used_in_float64(dtype):
    generator = torch.Generator().manual_seed(0)
    a, d = (torch.randn(4, 6, n, generator=generator).to(dtype) for n in (5, 3))
    kept = a.clone(), d.clone()
    values = stacked_gradient_spectrum(Factors(a, d)).values
    expected = slow.stacked_singular_values(slow.formed(a.double().numpy(), d.double().numpy()))
    np.testing.assert_allclose(values, expected, rtol=1e-10)
    assert torch.equal(a, kept[0])
    assert torch.equal(d, kept[1])


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ">f8"])
def test_numpy_arrays_of_any_layout_are_taken(dtype):
    a, d = (np.random.default_rng(i).standard_normal((3, 4, 5 + i)).astype(dtype) for i in range(2))
    formed = slow.formed(a.astype(float), d.astype(float))
    own = slow.own_singular_values(formed)
    stacked = slow.stacked_singular_values(formed)
    reversed_twice = np.ascontiguousarray(a[::-1])[::-1]
    d.setflags(write=False)
    for given_as in (Factors(reversed_twice, d), formed, torch.from_numpy(formed)):
        np.testing.assert_allclose(sample_gradient_spectra(given_as), own, atol=1e-6 * own.max())
        spectrum = stacked_gradient_spectrum(given_as)
        np.testing.assert_allclose(spectrum.values, stacked, rtol=1e-6)
        assert (spectrum.n, spectrum.d) == (3, 30)


def test_explicit_gradients_of_a_parameter_of_any_shape():
    rows = np.random.default_rng(2).standard_normal((4, 24))
    expected = np.linalg.svd(rows, compute_uv=False)
    for shape in ((24,), (4, 6), (2, 3, 2, 2)):
        spectrum = stacked_gradient_spectrum(rows.reshape(4, *shape))
        np.testing.assert_allclose(spectrum.values, expected, rtol=1e-10)
        assert (spectrum.n, spectrum.d) == (4, 24)


A, D = np.ones((3, 4, 5)), np.random.default_rng(0).standard_normal((3, 4, 6))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Factors(A[0], D), "none empty"),
        (lambda: Factors(A[:0], D[:0]), "none empty"),
        (lambda: Factors(A, D[:2]), "same samples M"),
        (lambda: Factors(A * np.nan, D), "60 NaN or Inf"),
        (lambda: Factors(A, D * np.inf), "NaN or Inf"),
        (lambda: Factors(A.astype(int), D), "floating-point"),
        (lambda: Inputs(torch.ones(2, 2, 2, dtype=torch.complex64)), "floating-point"),
        (lambda: OneHot(torch.tensor([[0, 5]]), 5), "0..4"),
        (lambda: OneHot(torch.tensor([[0.5]]), 5), "integers"),
        (lambda: stacked_gradient_spectrum(Factors(A[:1], D[:1])), "at least two"),
        (lambda: stacked_gradient_spectrum(Factors(A, 0 * D)), "all zeros"),
        (lambda: stacked_gradient_spectrum([]), "non-empty"),
        (lambda: stacked_gradient_spectrum(np.ones(5)), "first axis"),
        (lambda: stacked_gradient_spectrum(np.ones((0, 5))), "none empty"),
        (lambda: stacked_gradient_spectrum([Factors(A, D), Factors(A, D[:, :, :2])]), "differ"),
        (lambda: sample_gradient_spectra(torch.full((2, 3, 4), float("nan"))), "NaN or Inf"),
    ],
)
def test_refusals(call, message):
    with pytest.raises(InputError, match=message):
        call()
