"""A language model on a CUDA device: its loss falls, and its memory is what was estimated."""

import math

import numpy as np
import pytest
import torch

from sims.runs.lm_config import LmConfig
from sims.system.process_group import ProcessGroup
from sims.text.corpus import Corpus
from sims.text.shards import write_shard
from sims.training.execution import Execution
from sims.training.memory import step_memory
from sims.training.trainer import Trainer

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def test_a_step_of_d12_takes_the_memory_that_was_estimated(tmp_path):
    # Walks that mostly go on by one, among a hundred tokens of GPT-2's vocabulary.
    generator = np.random.default_rng(0)
    for split, n in (("train", 20_000), ("val", 2_000)):
        moves = np.where(generator.random(n) < 0.9, 1, generator.integers(0, 100, n))
        write_shard(tmp_path / f"text_{split}_000.bin", np.cumsum(moves) % 100)
    config = LmConfig.of_tier("d12", "untied", batch_tokens=8_192, tokens=81_920)
    torch.cuda.reset_peak_memory_stats()
    trainer = Trainer(
        config, Execution(torch.device("cuda"), 8), Corpus(tmp_path, config.length), ProcessGroup()
    )
    losses = []
    for _ in range(5):
        losses.append(trainer.gradients())
        trainer.update()
    assert losses[0] == pytest.approx(math.log(50_304), rel=1e-3)
    assert losses[-1] < losses[0]
    assert torch.cuda.max_memory_allocated() == pytest.approx(step_memory(config, 8, False).peak, rel=0.2)
