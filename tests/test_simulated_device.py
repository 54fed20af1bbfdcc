"""The simulated CUDA device: what it refuses, what it counts, what its graphs replay."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from simulated import Transfer, simulated_device

from sims.measure.summarise import noise_spectra


@pytest.fixture
def device():
    with simulated_device() as simulated:
        yield simulated


def on_device(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0)).to("cuda")


def test_tensors_report_the_device_and_hold_numbers(device):
    x = torch.arange(6.0, device="cuda").view(2, 3)
    assert (x.device, x.is_cuda) == (torch.device("cuda", 0), True)
    assert (x @ x.T).cpu().tolist() == [[5.0, 14.0], [14.0, 50.0]]
    assert torch.zeros_like(x).is_cuda
    with device.counting() as counts:
        assert not torch.zeros_like(x, device="cpu").is_cuda
    assert (counts.launches, counts.transfers) == (0, [])
    assert x.to("cuda") is x
    assert torch.cuda.is_available()


def test_nothing_is_left_behind():
    with simulated_device():
        x = on_device(2)
    assert torch.cuda.is_available() == (torch.cuda.device_count() > 0)
    assert torch.ones(2).sum() == 2
    with pytest.raises(RuntimeError, match="no longer there"):
        x + 1


def test_numbers_that_were_kept_inside_are_not_used_outside():
    noise_spectra.cache_clear()
    with simulated_device():
        noise_spectra(64, 16, True)
        assert noise_spectra.cache_info().currsize == 1
    assert noise_spectra.cache_info().currsize == 0


def test_mixed_devices_are_refused_with_the_line(device):
    with pytest.raises(RuntimeError, match=r"two devices.*add.*test_simulated_device.py:\d+"):
        on_device(3) + torch.ones(3)
    # A number of the host is an argument.
    assert (on_device(3) * torch.tensor(2.0)).is_cuda


def test_numpy_of_a_device_tensor_is_refused(device):
    for read in (lambda x: x.numpy(), np.asarray):
        with pytest.raises(TypeError, match="can't convert cuda:0"):
            read(on_device(3))


def test_launches_are_counted_without_views(device):
    x = on_device(4, 3)
    with device.counting() as counts:
        y = x.T.reshape(3, 2, 2)[:, 1]
        y.add_(1)
        torch.empty(3, device="cuda")
        (x @ x.T).sum()
    assert counts.operations == {"add_": 1, "mm": 1, "sum": 1}
    assert all(line.startswith("tests/test_simulated_device.py:") for line in counts.lines)
    # add_ reads and writes 6 numbers of 4 bytes; mm reads 2 × 12 and writes 16; sum reads 16 and writes 1.
    assert counts.bytes == 4 * ((6 + 6 + 1 - 1) + (12 + 12 + 16) + (16 + 1))


WAITS = {
    "item": lambda x: x[0, 0].item(),
    "float": lambda x: float(x.sum()),
    "if": lambda x: bool(x.isfinite().all()),
    "tolist": lambda x: x.tolist(),
    "nonzero": lambda x: x.nonzero(),
    "mask": lambda x: x[x > 0],
    "writing through a mask": lambda x: x.index_put_((x > 9,), x.new_zeros(0)),
    "masked_select": lambda x: x.masked_select(x > 0),
    "unique": lambda x: x.unique(),
    "equal": lambda x: torch.equal(x, x),
    "eigvalsh": lambda x: torch.linalg.eigvalsh(x @ x.T),
    "svdvals": torch.linalg.svdvals,
    "cpu": lambda x: x.cpu(),
    "synchronize": lambda x: torch.cuda.synchronize(),
    "to the device": lambda x: torch.ones(3).to(x.device),
    "tensor": lambda x: torch.tensor([1.0], device="cuda"),
    "list as index": lambda x: x[[0, 1]],
    "copy_": lambda x: x.copy_(torch.ones(2, 3)),
}
DOES_NOT_WAIT = {
    "arithmetic": lambda x: (x * 2 + 1).softmax(-1),
    "where": lambda x: torch.where(x > 0, x, 0.0),
    "fill through a mask": lambda x: x.masked_fill_(x > 0, 0.0),
    "index": lambda x: x[torch.zeros(1, dtype=torch.long, device="cuda")],
    "number": lambda x: x.fill_(3.0),
    "made there": lambda x: torch.full((3,), 2.0, device="cuda"),
    "pinned": lambda x: torch.ones(3).pin_memory().to(x.device, non_blocking=True),
}


@pytest.mark.parametrize("name", WAITS)
def test_what_makes_the_host_wait(device, name):
    x = on_device(2, 3)
    with device.counting() as counts:
        WAITS[name](x)
    assert counts.waits == 1
    assert "test_simulated_device.py" in next(iter(counts.synchronisations))
    graph = torch.cuda.graph(torch.cuda.CUDAGraph())
    with pytest.raises(RuntimeError, match="not permitted when stream is capturing"), graph:
        WAITS[name](x)


@pytest.mark.parametrize("name", DOES_NOT_WAIT)
def test_what_does_not(device, name):
    x = on_device(2, 3)
    with device.counting() as counts:
        DOES_NOT_WAIT[name](x)
    assert counts.waits == 0


def test_transfers_have_a_direction_a_size_and_a_line(device):
    x = on_device(2, 3)
    with device.counting() as counts:
        torch.ones(4, dtype=torch.float64).to("cuda")
        x.to("cpu", torch.float64)
        torch.ones(5).pin_memory().to("cuda", non_blocking=True)
    moved = [(t.to, t.bytes, t.waits) for t in counts.transfers]
    # A conversion takes place before the copy.
    assert moved == [("device", 32, True), ("host", 48, True), ("device", 20, False)]
    assert isinstance(counts.transfers[0], Transfer)
    assert "test_simulated_device.py" in counts.transfers[0].line
    assert (counts.moved("device"), counts.waits) == (52, 2)


def test_gradients_equal_those_of_the_processor(device):
    generator = torch.Generator().manual_seed(1)
    q, k, v, weight = (torch.randn(2, 3, 5, 4, generator=generator) for _ in range(4))

    def loss(q, k, v, weight):
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=0.3)
        return (mixed * weight).square().sum()

    host = [t.clone().requires_grad_() for t in (q, k, v, weight)]
    there = [t.to("cuda").requires_grad_() for t in (q, k, v, weight)]
    expected = torch.autograd.grad(loss(*host), host)
    with device.counting() as counts:
        found = torch.autograd.grad(loss(*there), there)
    assert all(torch.equal(a.cpu(), b) for a, b in zip(found, expected, strict=True))
    assert (counts.operations["attention"], counts.operations["attention_backward"]) == (1, 3)


def test_a_graph_records_without_executing_and_replays_on_its_memory(device):
    x, total = torch.ones(3, device="cuda"), torch.zeros(3, device="cuda")
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        assert torch.cuda.is_current_stream_capturing()
        doubled = x * 2
        total += doubled
    assert total.cpu().tolist() == [0.0] * 3
    for _ in range(2):
        graph.replay()
    assert total.cpu().tolist() == [4.0] * 3
    x.fill_(5.0)
    with device.counting() as counts:
        graph.replay()
    assert (total.cpu().tolist(), doubled.cpu().tolist()) == ([14.0] * 3, [10.0] * 3)
    assert counts.launches == 1
    # New memory under an old name is not what was captured.
    x = torch.zeros(3, device="cuda")
    graph.replay()
    assert total.cpu().tolist() == [24.0] * 3


def recorded(device, step):
    with device.tracing() as trace:
        step()
    return trace.steps


def test_steps_that_differ_in_a_number_or_in_memory_differ_in_their_record(device):
    x, count = torch.ones(3, device="cuda"), torch.zeros((), device="cuda")

    def same():
        count.add_(1)
        x.add_(x.square() * count)

    assert recorded(device, same) == recorded(device, same)
    numbers = iter(range(4))
    assert recorded(device, lambda: x.add_(next(numbers))) != recorded(device, lambda: x.add_(next(numbers)))
    # A number () of the host is kept as it was at the capture.
    host = torch.zeros(())

    def by_host():
        x.mul_(host)
        host.add_(1)

    assert recorded(device, by_host) != recorded(device, by_host)
    # Rows of one tensor are different memory, and so is another tensor.
    rows = torch.ones(4, 3, device="cuda")
    assert recorded(device, lambda: x.add_(rows[0])) != recorded(device, lambda: x.add_(rows[1]))
    assert recorded(device, lambda: x.add_(rows[0])) != recorded(device, lambda: x.add_(rows[0].clone()))
