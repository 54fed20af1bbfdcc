"""Define the demo: four stages that separate within minutes on two cores."""

from __future__ import annotations

import math
from collections.abc import Sequence

from sims.runs.measure_config import MeasureConfig
from toymodel import TaskConfig
from toymodel.config import ModelConfig, RunConfig
from toymodel.stages import STAGES, stage

TASK = TaskConfig(vocab=64, length=32, train=8_000, val=1_024, test=512)
MODEL = ModelConfig(d_model=64, heads=4, layers=2, mlp_ratio=2)
# batch size: steps. The larger batch sees more tokens in fewer steps.
BUDGETS = {32: 480, 128: 240}
EVALUATION = 512
REFERENCE_BATCH = 64
ADAMW_LR, MUON_LR = 2e-3, 1e-3


def demo_config(stage_name: str, batch_size: int, seed: int) -> RunConfig:
    """Return one run of the demo, its learning rate ∝ √(batch size)."""
    base = MUON_LR if stage(stage_name).routing.muon else ADAMW_LR
    steps = BUDGETS[batch_size]
    return RunConfig(
        stage=stage_name,
        task=TASK,
        model=MODEL,
        batch_size=batch_size,
        lr=base * math.sqrt(batch_size / REFERENCE_BATCH),
        steps=steps,
        seed=seed,
        eval_every=steps // 12,
        eval_size=EVALUATION,
    )


def demo_configs(seeds: Sequence[int]) -> list[RunConfig]:
    """Return runs of four stages, two batch sizes and the given seeds."""
    return [demo_config(s, b, seed) for s in STAGES for b in BUDGETS for seed in seeds]


def demo_measurements() -> MeasureConfig:
    """Return the demo's measurements.

    Training contains band 29:0 and neither of the other two. All moduli are prime, because composite moduli add
    structure to the steps (T11).
    """
    return MeasureConfig(
        every=60,
        bands=((31, 20), (47, 10), (29, 0)),
        training_bands=0,
        probe_sequences=640,
        causal_sequences=64,
    )
