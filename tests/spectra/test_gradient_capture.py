"""Factors captured by hooks: against autograd, the manners of the hooks, and the general route beside them."""

import numpy as np
import pytest
import torch
from gradient_models import (
    InPlace,
    Scaled,
    Transposed,
    assert_same_state,
    losses_of,
    make,
    single_loss,
    state_of,
)
from torch import nn
from torch.utils.checkpoint import checkpoint

from spectra.errors import InputError
from spectra.gradients import (
    capture_factors,
    per_sample_gradients,
    sample_gradient_spectra,
    stacked_gradient_spectrum,
)
from spectra.reference import gradients as slow


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


def test_a_use_without_a_gradient_does_not_coarsen_the_others():
    layer = nn.Linear(4, 4).double()
    x = torch.ones(6, 3, 4, dtype=torch.float64)
    with capture_factors(nn.Sequential(layer), ["0"]) as capture:
        losses = layer(x).square().sum((1, 2))
        layer(x)
    used, unused = capture.factors(losses)["0"]
    assert not unused.d.any()
    assert used.precision == unused.precision == torch.finfo(torch.float64).eps


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


@pytest.mark.parametrize("frozen", [False, True])
def test_recomputed_activations_do_not_change_the_factors(frozen):
    """Checkpointing without reentrance calls the modules once more in the backward pass."""
    torch.manual_seed(0)
    blocks = nn.ModuleList([nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 4)) for _ in range(2)])
    blocks.requires_grad_(not frozen)
    x = torch.randn(5, 4)

    def spectra(checkpointed):
        states = x
        with capture_factors(blocks, ["0.0", "1.2"]) as capture:
            for block in blocks:
                states = checkpoint(block, states, use_reentrant=False) if checkpointed else block(states)
            factors = capture.factors(states.square().sum(1))
        return [stacked_gradient_spectrum(own).values for own in factors.values()]

    for plain, recomputed in zip(spectra(False), spectra(True), strict=True):
        np.testing.assert_allclose(recomputed, plain, rtol=1e-9)
