"""Two processes that train one language model with learning rates by spectra."""

import os
from unittest.mock import patch

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from training_runs import make_shards, small_config

from sims.system.process_group import ProcessGroup
from sims.text.corpus import Corpus
from sims.training import rates
from sims.training.execution import Execution
from sims.training.trainer import Trainer
from toymodel.rates import Rates


def train(rank, shards, out, apart):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{out}/store", rank=rank, world_size=2)
    # What rounding does to scores, in the extreme: each process has another order.
    turned = {0: -1.0, 1: 1.0}[rank]
    patch.object(rates, "weight_scores", lambda _, own: {n: turned * i for i, n in enumerate(own)}).start()
    if apart:
        patch.object(ProcessGroup, "from_first", lambda _, make: make()).start()
    config = small_config(rates=Rates("farms", every=2))
    corpus = Corpus(shards, config.length, config.seed)
    trainer = Trainer(config, Execution(torch.device("cpu"), 2), corpus, ProcessGroup(rank, 2))
    for _ in range(3):
        trainer.gradients()
        trainer.update()
    torch.save(trainer.weights(), out / f"{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()
    # Threads of torch's reducer can abort a process that takes itself down.
    os._exit(0)


@pytest.mark.slow
@pytest.mark.parametrize("apart", [False, True])
def test_the_weights_of_two_processes_stay_equal(apart, tmp_path):
    shards = make_shards(tmp_path / "shards")
    mp.start_processes(train, (shards, tmp_path, apart), nprocs=2, start_method="fork")
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first) != apart
