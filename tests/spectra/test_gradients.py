"""Per-sample gradient spectra from factors: against formed gradients, against autograd, and the hooks' manners."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from spectra import gradients
from spectra.errors import InputError
from spectra.gradients import (
    Factors,
    Inputs,
    OneHot,
    capture_factors,
    gradient_inner_products,
    gram_spectrum,
    per_sample_gradients,
    sample_gradient_spectra,
    stacked_gradient_spectrum,
)
from spectra.reference import gradients as slow


class Toy(nn.Module):
    """Embedding, one attention-like mix that shares its inputs, an MLP with biases, and a tied head."""

    def __init__(self, vocabulary: int = 11, width: int = 6, padding: int | None = None) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, width, padding_idx=padding)
        self.q = nn.Linear(width, width, bias=False)
        self.k = nn.Linear(width, width, bias=False)
        self.v = nn.Linear(width, width, bias=False)
        self.up = nn.Linear(width, 2 * width)
        self.down = nn.Linear(2 * width, width)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, tokens):
        x = self.embed(tokens)
        q, k, v = self.q(x), self.k(x), self.v(x)
        scores = (q @ k.mT).tril()
        x = x + scores @ v / 10
        x = x + self.down(torch.tanh(self.up(x)))
        return self.head(self.norm(x))


def losses_of(model, tokens):
    logits = model(tokens[:, :-1])
    return (
        F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten(), reduction="none")
        .view(len(tokens), -1)
        .mean(1)
    )


def single_loss(predict, tokens):
    return F.cross_entropy(predict(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())


def make(seed=0, samples=5, length=4, **kwargs):
    torch.manual_seed(seed)
    return Toy(**kwargs).double(), torch.randint(0, 11, (samples, length + 1))


def state_of(model):
    return {
        "hooks": [
            len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks)
            for m in model.modules()
        ],
        "grads": [None if p.grad is None else p.grad.clone() for p in model.parameters()],
        "flags": [p.requires_grad for p in model.parameters()],
        "values": [p.detach().clone() for p in model.parameters()],
        "mode": [m.training for m in model.modules()],
    }


def assert_same_state(before, after):
    for key in ("hooks", "flags", "mode"):
        assert before[key] == after[key]
    for a, b in zip(before["grads"] + before["values"], after["grads"] + after["values"], strict=True):
        assert (a is None and b is None) or torch.equal(a, b)


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
        patch.setattr(gradients, "WORKING_SET", working_set)
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
        patch.setattr(gradients, "WORKING_SET", working_set)
        for route in (gradients._gram_of_factors, gradients._gram_of_rows):
            np.testing.assert_allclose(route(tuple(terms)).numpy(), flat @ flat.T, rtol=0, atol=tolerance)


@given(factor_terms(), st.sampled_from([2**24, 3600, 40]), st.data())
@settings(max_examples=50)
def test_blocks_of_samples_make_up_the_gram_matrix(case, working_set, data):
    terms, formed = case
    cut = data.draw(st.integers(1, len(formed) - 1))
    for term in terms:
        whole = gradients._gram_of_factors((term,))
        blocks = [block_of(term, part) for part in (slice(0, cut), slice(cut, None))]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(gradients, "WORKING_SET", working_set)
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
    with pytest.raises(InputError, match=r"shape \(2, 3\) with 0 NaN"):
        gram_spectrum(torch.ones(2, 3), 9)
    with pytest.raises(InputError, match="with 4 NaN"):
        gram_spectrum(torch.full((2, 2), torch.nan), 9)
    with pytest.raises(InputError, match="at least two"):
        gram_spectrum(torch.ones(1, 1), 9)
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


@pytest.mark.parametrize("length", [3, 25])
def test_captured_factors_against_autograd(length):
    model, tokens = make(length=length)
    before = state_of(model)
    names = {"embed": "embed", "head": "embed", "q": "q", "k": "k", "v": "v", "up": "up", "down": "down"}
    with capture_factors(model, list(names)) as capture:
        losses = losses_of(model, tokens)
    factors = capture.factors(losses)
    assert_same_state(before, state_of(model))
    for name, owner in names.items():
        explicit = slow.per_sample_gradients(model, f"{owner}.weight", single_loss, tokens).numpy()
        own = slow.own_singular_values(explicit)
        stacked = slow.stacked_singular_values(explicit)
        np.testing.assert_allclose(
            stacked_gradient_spectrum(factors[name]).values, stacked, atol=1e-7 * stacked[0]
        )
        np.testing.assert_allclose(sample_gradient_spectra(factors[name]), own, atol=1e-7 * own.max())
    # The tied weight has two uses, whichever name it was asked for.
    assert len(factors["embed"]) == len(factors["head"]) == 2
    # q, k, v share their inputs and so their QR factor.
    assert factors["q"][0].inputs is factors["k"][0].inputs is factors["v"][0].inputs


def test_asking_for_the_embedding_alone_includes_its_tied_head():
    model, tokens = make()
    with capture_factors(model, ["embed"]) as capture:
        losses = losses_of(model, tokens)
    explicit = slow.per_sample_gradients(model, "embed.weight", single_loss, tokens).numpy()
    expected = slow.stacked_singular_values(explicit)
    np.testing.assert_allclose(
        stacked_gradient_spectrum(capture.factors(losses)["embed"]).values, expected, atol=1e-8 * expected[0]
    )


def test_padding_tokens_have_no_gradient():
    model, tokens = make(padding=0)
    tokens[:, :2] = 0
    model.head.weight = nn.Parameter(model.head.weight.detach().clone())
    with capture_factors(model, ["embed"]) as capture:
        losses = losses_of(model, tokens)
    explicit = slow.per_sample_gradients(model, "embed.weight", single_loss, tokens).numpy()
    assert np.all(explicit[:, 0] == 0)
    expected = slow.own_singular_values(explicit)
    np.testing.assert_allclose(
        sample_gradient_spectra(capture.factors(losses)["embed"]), expected, atol=1e-7 * expected.max()
    )


def test_a_frozen_model_is_measured_and_stays_frozen():
    model, tokens = make()
    expected = slow.per_sample_gradients(model, "down.weight", single_loss, tokens).numpy()
    model.requires_grad_(False)
    before = state_of(model)
    with capture_factors(model, ["down"]) as capture:
        losses = losses_of(model, tokens)
    values = sample_gradient_spectra(capture.factors(losses)["down"])
    assert_same_state(before, state_of(model))
    np.testing.assert_allclose(values, slow.own_singular_values(expected), atol=1e-7 * values.max())


def test_existing_gradients_and_foreign_hooks_are_kept():
    model, tokens = make()
    losses_of(model, tokens).sum().backward()
    calls = []
    handle = model.up.register_forward_hook(lambda *_: calls.append(1))
    before = state_of(model)
    with capture_factors(model, ["up"]) as capture:
        losses = losses_of(model, tokens)
    capture.factors(losses)
    assert_same_state(before, state_of(model))
    assert calls == [1]
    handle.remove()


def test_hooks_are_gone_after_an_exception():
    model, tokens = make()
    before = state_of(model)

    def fail_half_way():
        with capture_factors(model, ["embed", "up", "down"]):
            losses_of(model, tokens)
            raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        fail_half_way()
    assert_same_state(before, state_of(model))
    with (
        pytest.raises(InputError, match="without gradients"),
        capture_factors(model, ["up"]),
        torch.no_grad(),
    ):
        model(tokens)
    assert_same_state(before, state_of(model))
    with pytest.raises(IndexError), capture_factors(model, ["up"]):
        model(tokens + 100)
    assert_same_state(before, state_of(model))


class Scaled(nn.Linear):
    def forward(self, input):
        return 2.0 * super().forward(input)


class Transposed(nn.Module):
    """The layout of some foreign models: weight (in, out), y = x W + b."""

    def __init__(self, inner, out):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(inner, out))
        self.bias = nn.Parameter(torch.randn(out))

    def forward(self, x):
        return x @ self.weight + self.bias


class InPlace(nn.Module):
    """Overwrites the layer's output (allowed) or its input (refused) after the call."""

    def __init__(self, spoil):
        super().__init__()
        self.layer = nn.Linear(4, 4, bias=False)
        self.spoil = spoil

    def forward(self, x):
        x = x * 1.0
        y = self.layer(x)
        if self.spoil:
            with torch.no_grad():
                x.detach().mul_(2.0)
        return y.mul_(3.0)


@pytest.mark.parametrize("shape", [(3, 5), (4, 4)])
def test_a_module_with_a_transposed_weight(shape):
    torch.manual_seed(0)
    model = nn.Sequential(Transposed(*shape)).double()
    x = torch.randn(6, 3, shape[0], dtype=torch.float64)
    with capture_factors(model, ["0"]) as capture:
        losses = model(x).square().mean((1, 2))
    factors = capture.factors(losses)["0"]
    assert factors[0].shape == shape
    explicit = slow.per_sample_gradients(model, "0.weight", lambda f, x: f(x).square().mean(), x).numpy()
    np.testing.assert_allclose(
        sample_gradient_spectra(factors), slow.own_singular_values(explicit), atol=1e-7
    )


def test_output_changed_in_place_after_the_call():
    torch.manual_seed(0)
    model, x = InPlace(spoil=False).double(), torch.randn(5, 2, 4, dtype=torch.float64)
    with capture_factors(model, ["layer"]) as capture:
        losses = model(x).square().sum((1, 2))
    values = sample_gradient_spectra(capture.factors(losses)["layer"])
    explicit = slow.per_sample_gradients(model, "layer.weight", lambda f, x: f(x).square().sum(), x).numpy()
    np.testing.assert_allclose(values, slow.own_singular_values(explicit), rtol=0, atol=1e-6 * values.max())


def test_modules_without_positions_and_with_two_position_axes():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3)).double()
    for shape in ((6, 4), (6, 2, 3, 4)):
        x = torch.randn(*shape, dtype=torch.float64)
        with capture_factors(model, ["0"]) as capture:
            losses = model(x).square().flatten(1).sum(1)
        values = stacked_gradient_spectrum(capture.factors(losses)["0"]).values
        explicit = slow.per_sample_gradients(model, "0.weight", lambda f, x: f(x).square().sum(), x).numpy()
        np.testing.assert_allclose(
            values, slow.stacked_singular_values(explicit), rtol=0, atol=1e-7 * values[0]
        )


def test_a_module_called_twice_adds_its_uses():
    torch.manual_seed(0)
    layer = nn.Linear(4, 4).double()
    model = nn.Sequential(layer, nn.Tanh(), layer)
    x = torch.randn(6, 3, 4, dtype=torch.float64)
    with capture_factors(model, ["0"]) as capture:
        losses = model(x).square().sum((1, 2))
    factors = capture.factors(losses)["0"]
    assert len(factors) == 2
    explicit = slow.per_sample_gradients(model, "0.weight", lambda f, x: f(x).square().sum(), x).numpy()
    expected = slow.own_singular_values(explicit)
    np.testing.assert_allclose(sample_gradient_spectra(factors), expected, rtol=0, atol=1e-6 * expected.max())


@pytest.mark.parametrize("chunk_size", [None, 2])
def test_the_general_route_against_a_loop(chunk_size):
    model, tokens = make()
    before = state_of(model)
    for name in ("embed.weight", "norm.weight", "up.bias", "q.weight"):
        fast = per_sample_gradients(model, name, single_loss, tokens, chunk_size=chunk_size)
        torch.testing.assert_close(fast, slow.per_sample_gradients(model, name, single_loss, tokens))
    assert_same_state(before, state_of(model))
    explicit = per_sample_gradients(model, "q.weight", single_loss, tokens)
    with capture_factors(model, ["q"]) as capture:
        losses = losses_of(model, tokens)
    factors = capture.factors(losses)["q"]
    np.testing.assert_allclose(
        stacked_gradient_spectrum(explicit).values, stacked_gradient_spectrum(factors).values, rtol=1e-6
    )
    values = sample_gradient_spectra(explicit)
    np.testing.assert_allclose(values, sample_gradient_spectra(factors), atol=1e-7 * values.max())


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


def test_capture_refusals():
    model, tokens = make()
    for names, message in ((["nowhere"], "no modules"), ([], "no modules"), (["norm"], "no 2-D weight")):
        with pytest.raises(InputError, match=message), capture_factors(model, names):
            pass
    with capture_factors(model, ["up"]) as capture:
        losses = losses_of(model, tokens)
    with pytest.raises(InputError, match=r"\(M,\)"):
        capture.factors(losses.sum())
    with pytest.raises(InputError, match=r"\(M,\)"):
        capture.factors(losses.detach())
    with pytest.raises(InputError, match="first axis"):
        capture.factors(losses[:3])
    with capture_factors(model, ["up"]) as capture:
        pass
    with pytest.raises(InputError, match="not called"):
        capture.factors(losses_of(model, tokens))
    scaled = nn.Sequential(Scaled(4, 4))
    with pytest.raises(InputError, match="does not compute"), capture_factors(scaled, ["0"]):
        scaled(torch.randn(3, 4))
    spoiled = InPlace(spoil=True)
    spoiled.requires_grad_(False)
    with capture_factors(spoiled, ["layer"]) as capture:
        losses = spoiled(torch.randn(3, 4)).sum(1)
    with pytest.raises(InputError, match="overwritten"):
        capture.factors(losses)
    with pytest.raises(InputError, match="no parameter"):
        per_sample_gradients(model, "nowhere", single_loss, tokens)
    with pytest.raises(InputError, match="one common sample axis"):
        per_sample_gradients(model, "q.weight", single_loss, tokens, tokens[:2])
