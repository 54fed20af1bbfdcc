"""Define the runs of the study: two optimisers and two widths, with windows of updates at every snapshot.

Stages rope and muon differ in the optimiser of the blocks alone. The wide runs have the steps, the learning rate and
the stride of the narrow ones, so that their k* may be compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sims.runs.lm_config import LmConfig, Precision
from sims.runs.lm_measure_config import LmOptions
from sims.runs.measure_config import MeasureConfig
from sims.studies.edge.study import STUDY
from sims.studies.profile import LmProfile, ToyProfile
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
# The published sizes and settings: batches of 20 sequences, rate 0.001 with 1,500 steps of warm-up, decay 0.5. Updates
# are of 40 steps instead of 200: 250 of them, 12 disjoint windows of W = 20. The length of sequences is ours.
TIERS, LENGTH, SEQUENCES = ("d8", "d12"), 512, 20
FULL_STRIDE, FULL_STEPS, WARMUP = 40, 10_000, 0.15
FULL_LABEL = {"campaign": "edge", "preset": f"full, {FULL_STEPS} steps, stride {FULL_STRIDE}"}


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


@STUDY.profile
def quick() -> ToyProfile:
    """Return runs of minutes on two CPU cores."""
    return ToyProfile(edge_configs, edge_measurements(), LABEL)


@STUDY.profile
def full() -> LmProfile:
    """Return language models of the two published sizes, for a GPU."""
    measuring = LmOptions(
        tokens=65_536,
        loss_tokens=0,
        gradient_sequences=0,
        families=(),
        updates=FULL_STRIDE,
        update_windows=WINDOWS,
        update_stride=FULL_STRIDE,
        update_groups=(GROUP,),
        update_memory=16.0,
        update_nulls=NULLS,
    )
    return LmProfile(full_configs, measuring, FULL_LABEL)


def full_configs(seeds: Sequence[int], vocabulary: int, precision: Precision) -> list[LmConfig]:
    """Return runs of AdamW at both sizes.

    >>> len(full_configs([0, 1, 2, 3], 50_257, "bfloat16"))
    8
    """
    return [
        LmConfig.of_tier(
            tier,
            ADAMW,
            vocabulary,
            length=LENGTH,
            batch_tokens=SEQUENCES * LENGTH,
            tokens=FULL_STEPS * SEQUENCES * LENGTH,
            lr=1e-3,
            warmup=WARMUP,
            warmdown=1 - WARMUP,
            weight_decay=0.5,
            seed=seed,
            precision=precision,
            eval_every=FULL_STRIDE,
            eval_tokens=EVALUATION * LENGTH,
            checkpoints=(1.0,),
        )
        for tier in TIERS
        for seed in seeds
    ]
