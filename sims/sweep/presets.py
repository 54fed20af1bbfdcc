"""Define named configurations for single runs and sweeps."""

from __future__ import annotations

import math
from collections.abc import Iterable

from sims.runs.measure_config import MeasureConfig
from sims.sweep.scaling import BASE_BATCH
from toymodel import TaskConfig
from toymodel.config import ModelConfig, RunConfig
from toymodel.stages import stage

# Learning rates of the small size at this batch size; they scale as √(batch size).
REFERENCE_BATCH = 64
ADAMW_LR, MUON_LR = 2e-3, 1e-3

SMALL = RunConfig(
    stage="untied",
    task=TaskConfig(vocab=64, length=32, train=8_000, val=1_024, test=512),
    model=ModelConfig(d_model=64, heads=4, layers=2, mlp_ratio=2),
    batch_size=32,
    lr=MUON_LR * math.sqrt(32 / REFERENCE_BATCH),
    steps=480,
    eval_every=40,
    eval_size=512,
)
# Training contains band 29:0 and neither of the other two. All moduli are prime, because composite moduli add structure
# to the steps (T11).
SMALL_MEASURE = MeasureConfig(
    every=60,
    bands=((31, 20), (47, 10), (29, 0)),
    training_bands=0,
    probe_sequences=640,
    causal_sequences=64,
)


def small_base_lrs(stages: Iterable[str]) -> dict[str, float]:
    """Return the learning rate of each stage at the small size and the batch size from which a sweep scales."""
    scale = math.sqrt(BASE_BATCH / REFERENCE_BATCH)
    return {name: scale * (MUON_LR if stage(name).routing.muon else ADAMW_LR) for name in stages}


# The paper's size, task and budget; learning rates differ by stage and batch size (docs/published.md).
PUBLISHED = RunConfig()
PUBLISHED_MEASURE = MeasureConfig()
# A sweep measures every run, so it uses fewer probe sequences than the published 12,000: ten for each state of the
# larger published band, and 128 of them for the causal test.
SWEEP_MEASURE = MeasureConfig(training_bands=0, probe_sequences=1_800, causal_sequences=128)
