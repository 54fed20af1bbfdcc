"""What a monitor reports is what the estimators give for activations, gradients and weights taken by hand."""

import numpy as np
import pytest
import torch
from test_monitor_training import Convolutions, Decoder, images, tokens
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel

from sims.measure.rows import MeasurementRows
from sims.measure.watched import measure_watched
from sims.models.probe import Probe
from sims.models.watched import WatchedSubject
from sims.runs.watched_config import WatchedConfig
from spectra import covariance_spectrum, stacked_gradient_spectrum, weight_spectrum


def measured(model, batch, losses=None, **options) -> tuple[MeasurementRows, WatchedSubject]:
    subject = WatchedSubject.of(model, None if batch is None else Probe(batch, losses))
    sheet, failed = measure_watched(subject, WatchedConfig(**options))
    assert not failed
    return sheet, subject


def spectra(sheet, object_):
    return {s["site"]: np.array(s["values"]) for s in sheet.spectra if s["object"] == object_}


def test_activations_of_a_decoder():
    torch.manual_seed(0)
    model, (x, y) = Decoder().eval(), tokens()
    sheet, subject = measured(model, (x, y), at_once=7)
    states = [model.embed(x)]
    for block in model.blocks:
        states.append(block(states[-1]))
    states.append(model.norm(states[-1]))
    found = spectra(sheet, "activation")
    assert list(found) == list(subject.sites) == ["embed", "blocks.0", "blocks.1", "final"]
    for own, values in zip(states, found.values(), strict=True):
        wanted = covariance_spectrum(own.detach().flatten(0, 1)).values
        np.testing.assert_allclose(values, wanted[: len(values)], rtol=1e-5, atol=1e-6)
    loss = nn.functional.cross_entropy(model(x).detach().flatten(0, 1), y.flatten())
    row = next(row for row in sheet.rows if row["quantity"] == "val_loss")
    assert row["value"] == pytest.approx(float(loss), rel=1e-6)
    assert row["low"] < row["value"] < row["high"]


@pytest.mark.parametrize(("pooling", "rows"), [("last", 24), ("mean", 24), ("token", 192)])
def test_pooling(pooling, rows):
    sheet, _ = measured(Decoder(), tokens(), pooling=pooling)
    assert {s["n"] for s in sheet.spectra if s["object"] == "activation"} == {rows}


def test_channels_of_images_are_the_width():
    model, (x, y) = Convolutions().eval(), images()
    sheet, _ = measured(model, (x, y))
    first = model.features[0](x).detach()  # (24, 6, 6, 6)
    rows = first.permute(0, 2, 3, 1).reshape(-1, 6)
    np.testing.assert_allclose(
        spectra(sheet, "activation")["features.0"], covariance_spectrum(rows).values, rtol=1e-5
    )
    kernel = weight_spectrum(model.features[3].weight.detach().flatten(1)).values
    np.testing.assert_allclose(spectra(sheet, "weight")["features.3"], kernel, rtol=1e-6)


def test_gradients_are_those_of_each_sample():
    torch.manual_seed(0)
    model, (x, y) = Decoder().eval(), tokens()
    sheet, subject = measured(model, (x, y), gradient_sequences=10)

    def loss(parameters, x, y):
        logits = torch.func.functional_call(model, parameters, (x[None],))
        return nn.functional.cross_entropy(logits[0], y)

    gradient = torch.func.grad(loss)
    parameters = {name: p.detach() for name, p in model.named_parameters()}
    explicit = torch.func.vmap(gradient, in_dims=(None, 0, 0))(parameters, x[:10], y[:10])
    found = spectra(sheet, "gradient")
    assert len(found) == 5
    for name, values in found.items():
        own = explicit[f"{subject.parts.matrices[name].module}.weight"]
        wanted = stacked_gradient_spectrum(own).values
        np.testing.assert_allclose(values, wanted, rtol=1e-4, atol=1e-6 * wanted[0])


def test_fused_and_turned_weights_of_gpt2():
    """q, k and v of transformers' GPT-2 are columns of one weight (in, out), with one input."""
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=23, n_positions=16, n_embd=12, n_layer=1, n_head=2)
    model = GPT2LMHeadModel(config).eval()
    rows = torch.randint(23, (9, 9))
    sheet, _ = measured(model, {"input_ids": rows, "labels": rows})

    def loss(parameters, ids):
        logits = torch.func.functional_call(model, parameters, kwargs={"input_ids": ids[None]}).logits[0]
        return nn.functional.cross_entropy(logits[:-1], ids[1:])

    gradients = [
        torch.func.grad(loss)({n: p.detach() for n, p in model.named_parameters()}, ids) for ids in rows
    ]
    found = spectra(sheet, "gradient")
    fused = torch.stack([g["transformer.h.0.attn.c_attn.weight"] for g in gradients])  # (9, 12, 36)
    for k, part in enumerate("qkv"):
        if f"blocks.0.attn.{part}" not in found:
            continue
        wanted = stacked_gradient_spectrum(fused[..., k * 12 : k * 12 + 12].contiguous()).values
        np.testing.assert_allclose(found[f"blocks.0.attn.{part}"], wanted, rtol=1e-4, atol=1e-5 * wanted[0])
    assert {"blocks.0.attn.q", "blocks.0.attn.v", "blocks.0.attn.o", "blocks.0.mlp.proj"} == set(found)
    own = next(row for row in sheet.rows if row["quantity"] == "val_loss")
    assert own["value"] == pytest.approx(float(model(input_ids=rows, labels=rows).loss.detach()), rel=1e-5)


def test_gradients_through_blocks_of_samples_are_the_same():
    model, batch = Decoder().eval(), tokens()
    whole, subject = measured(model, batch)
    assert subject.gradient_factors(subject.samples(), ["blocks.0.mlp.fc"])["blocks.0.mlp.fc"].samples == 24
    small, _ = measured(model, batch, memory=2e-3)
    for name, values in spectra(whole, "gradient").items():
        np.testing.assert_allclose(spectra(small, "gradient")[name], values, rtol=1e-6, atol=1e-9)


def test_losses_of_the_callers_own():
    model, (x, y) = Decoder().eval(), tokens()

    def losses(model, batch):
        logits = model(batch["tokens"])
        return nn.functional.cross_entropy(logits.mT, batch["next"], reduction="none").mean(1)

    given, _ = measured(model, {"tokens": x, "next": y}, losses)
    usual, _ = measured(model, (x, y))
    for object_ in ("activation", "gradient"):
        for name, values in spectra(usual, object_).items():
            np.testing.assert_allclose(spectra(given, object_)[name], values, rtol=1e-5, atol=1e-9)


def test_bfloat16_weights_have_a_floor_of_their_precision():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(40, 40, bias=False), nn.Linear(40, 40, bias=False)).bfloat16()
    with torch.no_grad():
        model[0].weight.copy_(torch.randn(40, 5) @ torch.randn(5, 40))
    sheet, _ = measured(model, None)
    assert np.count_nonzero(spectra(sheet, "weight")["0"]) == 5
    assert np.count_nonzero(spectra(sheet, "weight")["1"]) > 30


def test_nanogpt_gives_logits_of_all_positions_with_targets_only():
    class NanoGpt(Decoder):
        def forward(self, tokens, targets=None):
            logits = super().forward(tokens)
            if targets is None:
                return logits[:, -1:], None
            return logits, nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())

    torch.manual_seed(0)
    model, (x, y) = NanoGpt().eval(), tokens()
    sheet, _ = measured(model, (x, y))
    row = next(row for row in sheet.rows if row["quantity"] == "val_loss")
    assert row["value"] == pytest.approx(float(model(x, y)[1]), rel=1e-6)


class Named(Decoder):
    """A decoder with arguments as of Hugging Face, whose name does not say that it predicts the next token."""

    def forward(self, input_ids):
        return super().forward(input_ids)


@pytest.mark.parametrize("masked", [False, True])
def test_labels_that_repeat_the_input_are_of_the_next_token(masked):
    torch.manual_seed(0)
    model, (x, _) = Named().eval(), tokens()
    labels = x.clone()
    labels[:, :3] = -100 if masked else labels[:, :3]
    sheet, _ = measured(model, {"input_ids": x, "labels": labels})
    wanted = nn.functional.cross_entropy(model(x)[:, :-1].detach().mT, labels[:, 1:])
    row = next(row for row in sheet.rows if row["quantity"] == "val_loss")
    assert row["value"] == pytest.approx(float(wanted), rel=1e-6)


def test_labels_that_are_shifted_already_stay():
    model, (x, y) = Named().eval(), tokens()
    sheet, _ = measured(model, {"input_ids": x, "labels": y})
    wanted = nn.functional.cross_entropy(model(x).detach().mT, y)
    assert next(r for r in sheet.rows if r["quantity"] == "val_loss")["value"] == pytest.approx(
        float(wanted), rel=1e-6
    )


def test_a_pair_of_the_same_tokens_has_no_loss():
    x, _ = tokens()
    subject = WatchedSubject.of(Decoder(), Probe((x, x)))
    assert "the targets of the probe are its inputs" in subject.left_out["gradients"]
