"""One look at a module of any kind on a batch of its own: activations, gradients and loss beside the weights."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from test_monitor_training import Convolutions, Decoder, images, tokens
from torch import nn

from sims import look
from sims.system.errors import MeasureError
from spectra import covariance_spectrum


def test_a_convolutional_classifier(tmp_path):
    torch.manual_seed(0)
    model, (x, y) = Convolutions(), images()
    before = [m.training for m in model.modules()]
    found = look(model, (x, y))
    assert [m.training for m in model.modules()] == before
    assert set(found.rows["object"]) == {"weight", "activation", "gradient", "loss"}
    assert found.text == "24 samples"
    states = model.eval().features[0](x).detach().permute(0, 2, 3, 1).reshape(-1, 6)
    own = found.spectra.query("object == 'activation' and site == 'features.0'")["values"].iloc[0]
    np.testing.assert_allclose(own, covariance_spectrum(states).values, rtol=1e-5)
    loss = found.rows.query("quantity == 'val_loss'")["value"].iloc[0]
    assert loss == pytest.approx(float(nn.functional.cross_entropy(model(x).detach(), y)), rel=1e-5)
    assert "24 samples" in found.page(tmp_path).read_text()


def test_a_loader_and_a_mapping():
    x, y = tokens()
    data = torch.utils.data.TensorDataset(x, y)
    loader = torch.utils.data.DataLoader(data, batch_size=8)
    assert look(Decoder(), loader).text == "24 samples"

    class Named(Decoder):
        def forward(self, input_ids):
            return super().forward(input_ids)

    found = look(Named(), {"input_ids": x})
    assert set(found.rows["object"]) == {"weight", "activation"}
    assert any("gradients left out" in note and "labels" in note for note in found.notes)


def test_what_is_no_batch_is_refused(tmp_path):
    with pytest.raises(MeasureError, match="a tuple of 3"):
        look(Decoder(), (1, 2, 3))
    file = tmp_path / "model.safetensors"
    save_file({"weight": torch.randn(4, 4)}, file)
    with pytest.raises(MeasureError, match="a module in memory is measured on any batch"):
        look(file, tokens())


def test_matrices_of_a_file_come_in_the_order_of_a_block(tmp_path):
    names = ("mlp.down_proj", "mlp.up_proj", "mlp.gate_proj", *(f"self_attn.{k}_proj" for k in "kvoq"))
    state = {f"model.layers.{i}.{name}.weight": torch.randn(8, 8) for i in range(2) for name in names}
    file = tmp_path / "model.safetensors"
    save_file(
        {**state, "lm_head.weight": torch.randn(9, 8), "model.embed_tokens.weight": torch.randn(9, 8)}, file
    )
    found = look(file)
    block = [f"attn.{k}" for k in "qkvo"] + ["mlp.gate", "mlp.fc", "mlp.proj"]
    wanted = ["embed", *(f"blocks.{i}.{name}" for i in range(2) for name in block), "head"]
    assert list(found.table()["matrix"]) == wanted
    assert str(found).startswith("Look at model.safetensors")
    assert found.findings[0] in str(found)
