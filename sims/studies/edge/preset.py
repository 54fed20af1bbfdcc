"""Define the runs of the study: two optimisers and two widths, with windows of updates at every snapshot.

Stages rope and muon differ in the optimiser of the blocks alone. The wide runs have the steps, the learning rate and
the stride of the narrow ones, so that their k* may be compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sims.runs.measure_config import MeasureConfig
from sims.sweep.demo import BATCH_SIZE, demo_config
from toymodel.config import ModelConfig, RunConfig

SEEDS = 4
ADAMW, MUON = STAGES = ("rope", "muon")
NARROW, WIDE = WIDTHS = (32, 64)
# 400 updates of 5 steps: 20 disjoint windows of W = 20, 40 of W = 10.
STRIDE, STEPS, EVALUATION = 5, 2_000, 128
WINDOWS, NULLS, GROUP = (10, 20), 10, "trunk"
# Of a folder; one of another preset is refused before any work.
LABEL = {"campaign": "edge", "preset": f"batch size {BATCH_SIZE}, {STEPS} steps, stride {STRIDE}"}


def edge_configs(seeds: Sequence[int]) -> list[RunConfig]:
    """Return runs of both stages at the larger width, and of AdamW's at the smaller one."""
    kinds = [(ADAMW, WIDE), (MUON, WIDE), (ADAMW, NARROW)]
    return [_run(stage, width, seed) for stage, width in kinds for seed in seeds]


def _run(stage: str, width: int, seed: int) -> RunConfig:
    return replace(
        demo_config(stage, seed),
        model=ModelConfig(d_model=width, heads=4, layers=2),
        steps=STEPS,
        eval_every=STRIDE,
        eval_size=EVALUATION,
    )


def edge_measurements() -> MeasureConfig:
    """Return what is measured: windows of updates at every snapshot, their nulls at every tenth, and nothing else."""
    return MeasureConfig(
        every=STEPS,
        sequences=256,
        gradient_sequences=0,
        bands=(),
        training_bands=0,
        causal_sequences=0,
        checkpoints=False,
        updates=STRIDE,
        update_windows=WINDOWS,
        update_stride=STRIDE,
        update_groups=(GROUP,),
        update_nulls=NULLS,
    )
