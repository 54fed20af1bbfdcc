"""Define the runs of the study: five depths of one width with AdamW, and one of them with Muon.

Stages rope and muon differ in the optimiser of the blocks alone. The learning rate of both is constant: what a schedule
does to spectra needs language models, as those of profile full, or of `speclens train lm --warmdown`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sims.runs.lm_config import LmConfig, Precision
from sims.runs.lm_measure_config import LmOptions
from sims.runs.measure_config import MeasureConfig
from sims.studies.lifecycle.study import STUDY
from sims.studies.profile import LmProfile, ToyProfile
from sims.sweep.demo import BATCH_SIZE, demo_config
from toymodel.config import ModelConfig, RunConfig

SEEDS = 3
ADAMW, MUON = "rope", "muon"
DEPTHS, MUON_DEPTH, WIDTH = (4, 6, 8, 10, 12), 8, 64
STEPS, EVALUATION = 600, 256
# Every 25 steps, as published, and twelve looks for each factor e in the beginning.
LOOKS = "weights=25+28/decade"
# Of a folder; one of another preset is refused before any work.
LABEL = {"campaign": "lifecycle", "preset": f"batch size {BATCH_SIZE}, {STEPS} steps, {LOOKS}"}
# The published scales: 51, 124 and 314 million parameters, 25, 85 and 265 of them in blocks (30 to 285 as published).
TIERS = ("d8", "d12", "d24x960")
FULL_STEPS, FULL_TOKENS, WARMUP = 2_000, 65_536, 0.05
# Shares of the steps in which the learning rate falls: none, and all that follow the warm-up.
WARMDOWNS = (0.0, 0.95)
FULL_LABEL = {"campaign": "lifecycle", "preset": f"full, {FULL_STEPS} steps of {FULL_TOKENS} tokens, {LOOKS}"}


def lifecycle_configs(seeds: Sequence[int]) -> list[RunConfig]:
    """Return runs of AdamW at all depths, and of Muon at one.

    >>> len(lifecycle_configs([0, 1, 2]))
    18
    """
    kinds = [(ADAMW, depth) for depth in DEPTHS] + [(MUON, MUON_DEPTH)]
    return [_run(stage, depth, seed) for stage, depth in kinds for seed in seeds]


def _run(stage: str, depth: int, seed: int) -> RunConfig:
    return replace(
        demo_config(stage, seed),
        model=ModelConfig(d_model=WIDTH, heads=4, layers=depth),
        steps=STEPS,
        eval_every=STEPS // 4,
        eval_size=EVALUATION,
    )


def lifecycle_measurements() -> MeasureConfig:
    """Return what is measured: spectra of weights with their exponents between the steps; the last weights are kept."""
    return MeasureConfig(
        every=STEPS,
        sequences=256,
        gradient_sequences=0,
        bands=(),
        training_bands=0,
        causal_sequences=0,
        tails=True,
        schedules=(LOOKS,),
    )


@STUDY.profile
def quick() -> ToyProfile:
    """Return runs of minutes on two CPU cores."""
    return ToyProfile(lifecycle_configs, lifecycle_measurements(), LABEL)


@STUDY.profile
def full() -> LmProfile:
    """Return language models of the published sizes under two schedules, for a GPU."""
    measuring = LmOptions(
        tokens=65_536,
        loss_tokens=0,
        gradient_sequences=0,
        families=(),
        tails=True,
        schedules=(LOOKS,),
    )
    return LmProfile(full_configs, measuring, FULL_LABEL)


def full_configs(seeds: Sequence[int], vocabulary: int, precision: Precision) -> list[LmConfig]:
    """Return runs of AdamW at every published size, with a constant and with a falling learning rate.

    >>> len(full_configs([0, 1, 2], 50_257, "bfloat16"))
    18
    """
    return [
        LmConfig.of_tier(
            tier,
            ADAMW,
            vocabulary,
            batch_tokens=FULL_TOKENS,
            tokens=FULL_STEPS * FULL_TOKENS,
            warmup=WARMUP,
            warmdown=warmdown,
            seed=seed,
            precision=precision,
            checkpoints=(0.0, 1.0),
            eval_tokens=1_048_576,
        )
        for tier in TIERS
        for warmdown in WARMDOWNS
        for seed in seeds
    ]
