"""What a step of a language model costs: operations, memory, time."""

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from training_runs import learner_of, make_shards, small_config

from sims.runs.lm_config import LmConfig
from sims.training.memory import Live, step_memory
from sims.training.throughput import _visible, flops_per_token, measured_rate


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return make_shards(tmp_path_factory.mktemp("lm") / "shards")


def test_operations_are_those_that_torch_counts(shards):
    config = small_config("rope")
    learner = learner_of(config, shards)
    batch = learner.corpus.batch(0, config.batch_size, slice(None))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        learner.model(batch)
    sizes = config.sizes
    counted = {str(op).split(".")[1]: n for op, n in counter.get_flop_counts()["Global"].items()}
    products = sum(n for name, n in counted.items() if "attention" not in name)
    attention = 4 * sizes.d * sizes.layers * (sizes.length + 1) / 2
    assert flops_per_token(config.transformer()) == pytest.approx(
        3 * (products / config.tokens_per_step + attention)
    )


@pytest.mark.parametrize(("length", "window"), [(7, 3), (7, 7), (7, 20), (5, 1)])
def test_visible_positions_are_those_of_the_mask(length, window):
    rows, columns = np.mgrid[:length, :length]
    mask = (columns <= rows) & (rows - columns < window)
    assert _visible(length, window) == pytest.approx(mask.sum() / length)


def test_a_rate_is_measured():
    assert 1e8 < measured_rate(torch.device("cpu"), torch.float32) < 1e14


@pytest.mark.parametrize("recompute", [False, True])
def test_the_memory_estimate_is_what_a_real_step_takes(recompute, shards):
    config = small_config("value_mix", length=32, batch_tokens=512)
    estimate = step_memory(config, 16, recompute)
    with Live() as live:
        learner = learner_of(config, shards, 16, recompute)
        resident = live.now
        learner.gradients()
        learner.update()
    assert resident == pytest.approx(estimate.resident, rel=0.01)
    assert live.peak == pytest.approx(estimate.peak, rel=0.02)


def test_live_bytes_are_those_of_the_profiler():
    def work():
        x = torch.zeros(1_000, 50)
        y = x.exp()
        z = (x + y).square()
        del y
        return (z @ z.T).sum()

    with Live() as live:
        work()
    with torch.profiler.profile(profile_memory=True) as seen:
        work()
    sizes = [e.nbytes() for e in seen.profiler.kineto_results.events() if e.name() == "[memory]"]
    highest = max(np.cumsum(sizes))
    assert live.peak == pytest.approx(highest, rel=0.01)
    assert live.now < 1_000


@pytest.mark.slow
def test_blocks_that_run_again_take_less_memory_and_more_sequences_take_more():
    config = LmConfig.of_tier("tiny", "muon", 1_000)
    once, again = (step_memory(config, 32, r) for r in (False, True))
    assert again.peak < 0.5 * once.peak
    assert step_memory(config, 8, False).peak < 0.5 * once.peak
    assert once.resident == again.resident
