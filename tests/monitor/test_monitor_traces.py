"""A look leaves no trace in a model that counts, keeps or replaces things while it runs."""

from __future__ import annotations

import warnings

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from sims.models.states import states_of
from sims.models.undisturbed import undisturbed
from sims.models.watched import WatchedSubject
from sims.monitor import Monitor

SAMPLES = 8


def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(SAMPLES, 6, generator=generator), torch.arange(SAMPLES) % 3


class Stateful(nn.Module):
    """Count calls, keep the loss of the experts' load, and replace or change buffers."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.inner, self.out = nn.Linear(6, 8), nn.Linear(8, 3)
        self.calls = 0
        self.load: Tensor | None = None
        self.late: nn.Parameter | None = None
        for name in ("replaced", "behind", "counted"):
            self.register_buffer(name, torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        if self.calls > 1 and self.late is None:
            self.late = nn.Parameter(torch.randn(1))
        self.fresh = self.calls
        self.replaced = self.replaced + 1
        self.behind.data.add_(1)
        self.counted.add_(1)
        x = self.inner(x).tanh()
        self.load = x.square().mean()
        return self.out(x)


def test_attributes_and_buffers_are_as_before_a_look():
    model = Stateful()
    model(batch()[0])
    before, buffers = dict(vars(model)), dict(model.named_buffers())
    numbers = {name: buffer.clone() for name, buffer in buffers.items()}
    with Monitor(model, batch(), every=2, to=None) as monitor:
        monitor.step()
        monitor.step()
    assert set(monitor.frame()["step"]) == {0, 2}
    assert vars(model).keys() == before.keys()
    assert model.load is before["load"]
    assert model.late is None
    assert len(list(model.parameters())) == 4
    assert model.calls == 1
    assert all(buffer is buffers[name] for name, buffer in model.named_buffers())
    for name, buffer in buffers.items():
        torch.testing.assert_close(buffer, numbers[name], msg=name)


def test_attributes_are_put_back_after_an_exception():
    model = Stateful()

    def failing() -> None:
        with undisturbed(model):
            model(torch.ones(1, 6))
            model(torch.ones(1, 5))

    with pytest.raises(RuntimeError):
        failing()
    assert model.calls == 0
    assert float(model.behind) == 0
    assert model.load is None
    assert not hasattr(model, "fresh")
    assert model.training


def test_a_buffer_that_is_as_before_is_not_touched():
    """A graph that holds it can still be run backward."""
    model = nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6), nn.Linear(6, 3)).eval()
    model[1].running_mean.fill_(float("nan"))
    versions = [buffer._version for buffer in model.buffers()]
    with undisturbed(model):
        model(batch()[0])
    assert [buffer._version for buffer in model.buffers()] == versions


def test_scripted_models_and_those_made_for_inference_are_measured():
    x, y = batch()
    layers = (nn.Linear(6, 6), nn.BatchNorm1d(6), nn.Linear(6, 3))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scripted = torch.jit.script(nn.Sequential(*layers))
    buffers = [buffer.clone() for buffer in scripted.buffers()]
    with undisturbed(scripted):
        scripted(x)
    assert scripted.training
    for buffer, old in zip(scripted.buffers(), buffers, strict=True):
        torch.testing.assert_close(buffer, old)
    with torch.inference_mode():
        frozen = nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6), nn.Linear(6, 3))
    monitor = Monitor(frozen, (x, y), to=None)
    assert {"activation", "weight"} <= set(monitor.frame()["object"])


class Turned(nn.Module):
    """Compute with channels last or first inside, and put them out last or first."""

    def __init__(self, width: int, inner: int, last: bool) -> None:
        super().__init__()
        self.kernel, self.norm = nn.Conv2d(3, width, 1), nn.LayerNorm(width)
        self.up, self.down, self.last = nn.Linear(width, inner), nn.Linear(inner, width), last

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.kernel(x).permute(0, 2, 3, 1))
        x = self.down(self.up(x).relu())
        return x if self.last else x.permute(0, 3, 1, 2)


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(["first", "last", "convolutions"]), *(st.integers(2, 6) for _ in range(4)), st.booleans()
)
def test_the_width_of_states_is_that_of_the_channels(kind, width, inner, high, wide, stem):
    # Of a square of as many pixels as channels nothing tells the two axes apart.
    assume(kind != "last" or high != width)
    module = (
        nn.Sequential(nn.Conv2d(3, inner, 1), nn.ReLU(), nn.Conv2d(inner, width, 1))
        if kind == "convolutions"
        else Turned(width, inner, kind == "last")
    )
    x = torch.randn(2, 3, high, wide)
    found = module(x).detach()
    wanted = found if kind == "last" else found.permute(0, 2, 3, 1)
    site = nn.Sequential(module, nn.Identity()) if stem else module
    torch.testing.assert_close(states_of("site", site, found, 2), wanted.reshape(2, high * wide, width))


def test_a_network_with_channels_last_is_measured_at_its_channels():
    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.ModuleList(Turned(3, 5, True) for _ in range(2))
            self.head = nn.Linear(3, 4)

        def forward(self, x: Tensor) -> Tensor:
            for block in self.blocks:
                x = block(x.permute(0, 3, 1, 2) if x.shape[-1] == 3 else x)
            return self.head(x.mean((1, 2)))

    probe = torch.randn(SAMPLES, 3, 5, 7), torch.arange(SAMPLES) % 4
    subject = Monitor(Network(), probe, to=None)._subject
    assert isinstance(subject, WatchedSubject)
    (states,) = subject.activations(subject.samples(), subject.sites)
    assert states["blocks.1"].shape == (SAMPLES, 35, 3)
