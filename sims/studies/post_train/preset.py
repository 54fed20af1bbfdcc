"""Define the runs of the study: small transformers that give a possible continuation in about four of ten samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sims.runs.measure_config import MeasureConfig
from sims.sweep.demo import BATCH_SIZE, EVALUATION, demo_config
from toymodel import ModularWalks
from toymodel.config import RunConfig

SEEDS = 6
STAGE, STEPS = "untied", 1_200
TASK = ModularWalks(vocab=32, length=16, train=8_000, val=1_024, test=64)
# Of a folder; one of another preset is refused before any work.
LABEL = {"campaign": "post-train", "preset": f"batch size {BATCH_SIZE}, {STEPS} steps"}


def base_configs(seeds: Sequence[int]) -> list[RunConfig]:
    """Return the runs that are post-trained.

    >>> len(base_configs(range(6)))
    6
    """
    return [
        replace(demo_config(STAGE, seed), task=TASK, steps=STEPS, eval_every=STEPS // 4, eval_size=EVALUATION)
        for seed in seeds
    ]


def base_measurements() -> MeasureConfig:
    """Return what is measured of them: little, and the last weights are stored."""
    return MeasureConfig(
        every=STEPS,
        sequences=256,
        gradient_sequences=0,
        bands=(),
        training_bands=0,
        causal_sequences=0,
    )
