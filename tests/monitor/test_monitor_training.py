"""Training is the same, bit for bit, with a monitor and without one, and nothing of it is left in the model."""

import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from sims.monitor import Monitor, WatchedConfig
from sims.system.errors import MeasureError

STEPS = 6


class Convolutions(nn.Module):
    """Batch norms, whose buffers a pass in training mode changes, and dropout, which draws random numbers."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 8, 3), nn.BatchNorm2d(8), nn.ReLU()
        )
        self.dropout, self.head = nn.Dropout(0.2), nn.Linear(8, 5)

    def forward(self, x):
        return self.head(self.dropout(self.features(x).mean((2, 3))))


class Block(nn.Module):
    def __init__(self, width=16):
        super().__init__()
        self.norm, self.fc, self.proj = nn.LayerNorm(width), nn.Linear(width, 32), nn.Linear(32, width)
        self.dropout = nn.Dropout(0.1)

    def forward(self, x):
        return x + self.dropout(self.proj(torch.relu(self.fc(self.norm(x)))))


class Decoder(nn.Module):
    """A made-up language model; `checkpointed` recomputes its blocks whatever the mode."""

    def __init__(self, checkpointed=None):
        super().__init__()
        self.embed, self.blocks = nn.Embedding(23, 16), nn.ModuleList([Block(), Block()])
        self.norm, self.lm_head = nn.LayerNorm(16), nn.Linear(16, 23, bias=False)
        self.checkpointed = checkpointed

    def forward(self, tokens):
        x = self.embed(tokens)
        for block in self.blocks:
            x = (
                block(x)
                if self.checkpointed is None
                else checkpoint(block, x, use_reentrant=self.checkpointed)
            )
        return self.lm_head(self.norm(x))


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell, self.head = nn.LSTM(6, 12, batch_first=True, dropout=0.1, num_layers=2), nn.Linear(12, 5)

    def forward(self, x):
        return self.head(self.cell(x)[0][:, -1])


def images():
    return torch.randn(24, 1, 8, 8), torch.randint(5, (24,))


def tokens():
    rows = torch.randint(23, (24, 9))
    return rows[:, :-1], rows[:, 1:]


def sequences():
    return torch.randn(24, 7, 6), torch.randint(5, (24,))


def whole(model):
    return model


def compiled(model):
    return torch.compile(model, backend="aot_eager")


def compiled_in_place(model):
    model.compile(backend="aot_eager")
    return model


CASES = {
    "convolutions": (Convolutions, images, whole, None),
    "decoder": (Decoder, tokens, whole, None),
    "recurrent": (Recurrent, sequences, whole, None),
    "compiled": (Decoder, tokens, compiled, None),
    "compiled in place": (Decoder, tokens, compiled_in_place, None),
    "autocast": (Decoder, tokens, whole, torch.bfloat16),
    "checkpointed": (lambda: Decoder(checkpointed=False), tokens, whole, None),
    "checkpointed, reentrant": (lambda: Decoder(checkpointed=True), tokens, whole, None),
}


def trained(case, monitored, accumulate=1) -> Any:
    """Return losses, weights, buffers, random numbers and the monitor of a short training."""
    make, data, prepare, autocast = CASES[case]
    for seeded in (torch.manual_seed, random.seed, np.random.seed):
        seeded(0)
    inner, (x, y) = make(), data()
    model = prepare(inner)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    settings = {"every": 2, "to": None, "optimizer": optimizer, "measure": WatchedConfig(update_window=3)}
    monitor = Monitor(model, (x, y), **settings) if monitored else None
    losses, loss = [], torch.zeros(())
    for _ in range(STEPS):
        optimizer.zero_grad()
        for part in range(accumulate):
            own = slice(part * 8, part * 8 + 8)
            with torch.autocast("cpu", dtype=autocast or torch.bfloat16, enabled=autocast is not None):
                loss = nn.functional.cross_entropy(model(x[own]).flatten(0, -2), y[own].flatten())
            (loss / accumulate).backward()
            losses.append(loss.item())
        optimizer.step()
        if monitor:
            monitor.step(loss=loss)
    state = [*inner.parameters(), *(p.grad for p in inner.parameters()), *inner.buffers()]
    numbers = (torch.rand(3).tolist(), random.random(), np.random.random())  # noqa: NPY002
    if monitor:
        monitor.close()
    return losses, state, numbers, monitor, inner


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("case", CASES)
def test_training_is_the_same_to_the_last_bit(case, accumulate):
    losses, state, numbers, *_ = trained(case, False, accumulate)
    torch._dynamo.reset()
    seen_losses, seen_state, seen_numbers, monitor, model = trained(case, True, accumulate)
    assert seen_losses == losses
    assert len(state) == len(seen_state)
    assert all(torch.equal(a, b) for a, b in zip(state, seen_state, strict=True))
    assert seen_numbers == numbers
    rows = monitor.frame()
    assert set(rows["step"]) == {0, 2, 4, 6}
    assert {"loss", "activation", "weight", "update", "normalised_update", "gradient"} == set(rows["object"])
    # Reentrant checkpoints run their blocks without gradients: those of the blocks are left out, and said to be.
    left_out = case == "checkpointed, reentrant"
    assert left_out == any("checkpointing" in note for note in monitor.notes)
    if left_out:
        assert set(rows[rows["object"] == "gradient"]["site"]) == {"head"}
    assert all(not (m._forward_hooks or m._forward_pre_hooks or m._backward_hooks) for m in model.modules())
    assert all(m.training for m in model.modules())


@pytest.mark.parametrize("mode", ["train", "eval", "mixed"])
def test_modes_are_put_back_module_by_module(mode):
    model = Convolutions().train(mode != "eval")
    if mode == "mixed":
        model.features[1].eval()
    before = [m.training for m in model.modules()]
    monitor = Monitor(model, images(), to=None, every=1)
    monitor.step()
    assert [m.training for m in model.modules()] == before


def test_what_fails_in_a_look_is_recorded_and_training_goes_on():
    torch.manual_seed(0)
    model, (x, y) = Decoder(), tokens()
    monitor = Monitor(model, (x, y), every=1, to=None)
    inner = model.forward

    def failing(tokens):
        if not model.training:
            raise RuntimeError("out of memory")
        return inner(tokens)

    model.forward = failing
    with pytest.warns(RuntimeWarning, match="out of memory.*training goes on"):
        monitor.step()
    model.forward = inner
    monitor.step()
    monitor.close()
    assert any("step 1: probe_loss, activations could not be measured" in note for note in monitor.notes)
    rows = monitor.frame()
    assert set(rows[rows["step"] == 1]["object"]) == {"weight"}
    assert set(rows[rows["step"] == 2]["object"]) == {"loss", "activation", "gradient", "weight"}
    assert model.training


def test_a_diverged_model_has_one_row_and_is_not_measured_again():
    model = Decoder()
    monitor = Monitor(model, tokens(), every=1, to=None)
    with torch.no_grad():
        model.lm_head.weight[0, 0] = float("nan")
    monitor.step()
    monitor.step()
    monitor.close()
    rows = monitor.frame()
    (row,) = rows[rows["step"] > 0].to_dict("records")
    assert row["status"] == "diverged"
    assert row["step"] == 1
    assert "lm_head.weight has 1 NaN of 368" in row["reason"]


def test_weights_and_updates_alone_need_no_probe():
    model = Decoder()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    monitor = Monitor(model, every=4, to=None, optimizer=optimizer, measure=WatchedConfig(update_window=3))
    for _ in range(4):
        for p in model.parameters():
            p.grad = torch.randn_like(p)
        optimizer.step()
        monitor.step()
    rows = monitor.frame()
    assert set(rows["object"]) == {"weight", "update", "normalised_update"}
    edge: Any = rows[rows["object"] == "update"].set_index("quantity")
    assert edge.loc["edge_k", "site"] == "sgd"
    assert edge.loc["edge_p", "status"] == "ok"
    assert edge.loc["edge_gap", "null"] > 1


def test_windows_of_several_lengths_have_a_stride():
    model = nn.Linear(5, 5)
    settings = WatchedConfig(update_windows=(3, 2), update_stride=2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    monitor = Monitor(model, every=4, to=None, optimizer=optimizer, measure=settings)
    weights = []
    for _ in range(8):
        with torch.no_grad():
            model.weight += torch.randn(5, 5)
        weights.append(model.weight.detach().flatten().double())
        monitor.step()
    rows = monitor.frame().query("object == 'update' and quantity == 'r12'")
    assert list(zip(rows["step"], rows["window"], strict=True)) == [(4, "2"), (8, "2"), (8, "3")]
    x = torch.stack([weights[step] - weights[step - 2] for step in (3, 5, 7)])
    sigma = torch.linalg.svdvals(x)
    assert rows["value"].iloc[-1] == pytest.approx(float(sigma[0] / sigma[1]), rel=1e-4)
    with pytest.raises(MeasureError, match="every is 5 and update_stride 2"):
        Monitor(model, every=5, to=None, measure=settings)
    with pytest.raises(MeasureError, match="update_windows has 1"):
        WatchedConfig(update_windows=(1,))


def test_without_an_optimiser_the_edge_has_no_p_value():
    model = nn.Linear(5, 5)
    monitor = Monitor(model, every=4, to=None, measure=WatchedConfig(update_window=3))
    for _ in range(4):
        with torch.no_grad():
            model.weight += torch.randn(5, 5)
        monitor.step()
    edge: Any = monitor.frame().query("object == 'update'").set_index("quantity")
    assert edge.loc["edge_k", "status"] == "ok"
    assert np.isnan(edge.loc["edge_gap", "null"])
    assert edge.loc["edge_p", "status"] == "not fitted"
    assert "momentum" in edge.loc["edge_p", "reason"]
