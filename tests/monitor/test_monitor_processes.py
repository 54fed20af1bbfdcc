"""Two processes that train together: one run, with the numbers of a single process."""

import os

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from test_monitor_training import Decoder, tokens
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from sims.monitor import Monitor, WatchedConfig
from sims.runs.store import run_folders

STEPS = 4


def train(rank, size, out, failing):
    torch.set_num_threads(1)
    if size > 1:
        dist.init_process_group("gloo", f"file://{out}.store", rank=rank, world_size=size)
    torch.manual_seed(0)
    inner, (x, y) = Decoder().eval(), tokens()
    model = DistributedDataParallel(inner) if size > 1 else inner
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    # What other ranks have as a probe does not matter.
    probe = (x, y) if rank == 0 else (x[:4].flip(0), y[:4])
    monitor = Monitor(
        model, probe, every=2, to=out, optimizer=optimizer, measure=WatchedConfig(update_window=2)
    )
    for step in range(STEPS):
        own = slice(rank, 8, size)
        loss = nn.functional.cross_entropy(model(x[own]).flatten(0, 1), y[own].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if failing and rank == 1 and step == 1:
            inner.norm.forward = lambda x: 1 / 0
        monitor.step()
        inner.norm.__dict__.pop("forward", None)
    monitor.close()
    if size > 1:
        # The store is that of the first process: none may leave while another still needs it.
        dist.barrier()
        dist.destroy_process_group()
        # What counts is in the folder; threads of torch's reducer can abort a process that takes itself down.
        os._exit(0)


def spectra(out):
    (folder,) = run_folders(out)
    assert folder.done
    return folder, {
        (s["step"], s["object"], s["site"]): s["values"] for s in folder.spectra().to_dict("records")
    }


@pytest.mark.parametrize("failing", [False, True])
def test_two_processes_measure_what_one_does(tmp_path, failing):
    train(0, 1, tmp_path / "one", False)
    # Forked: fresh interpreters spend seconds on imports.
    mp.start_processes(train, (2, tmp_path / "two", failing), nprocs=2, start_method="fork")
    _, one = spectra(tmp_path / "one")
    folder, two = spectra(tmp_path / "two")
    lost = {k for k in one if failing and k[0] == 2 and k[1] in ("activation", "gradient")}
    assert set(two) == set(one) - lost
    for key, values in two.items():
        np.testing.assert_allclose(values, one[key], rtol=1e-4, atol=1e-6 * max(one[key]))
    assert failing == ("could not be measured" in folder.outcome["notes"])
