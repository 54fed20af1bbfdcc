"""Training and measuring a tiny toy on a CUDA device, by the lines of `./run gpu`."""

import time

import pytest
import torch

from sims.gpu.correctness import MEASURING, TRAINING
from sims.gpu.setting import Setting

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
SETTING = Setting("cuda", True, time.perf_counter() + 600)
LINES = [line for part in (TRAINING, MEASURING) for line in part.lines(SETTING)]


@pytest.mark.parametrize("line", LINES, ids=lambda line: line.name)
def test_every_check_of_a_tiny_toy_passes(line):
    facts = line.work()
    assert facts.get("ok", True), facts
