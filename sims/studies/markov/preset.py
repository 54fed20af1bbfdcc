"""Define the runs of the study: four stages long enough to learn the walk, looked at often while they do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sims.runs.measure_config import MeasureConfig
from sims.sweep.demo import BATCH_SIZE, EVALUATION, demo_config
from toymodel.config import RunConfig
from toymodel.stages import STAGES

SEEDS, STEPS = 5, 1_600
EVERY, EARLY, EVALUATE = 200, 4, 40
# Of a folder; one of another preset is refused before any work.
LABEL = {"campaign": "markov", "preset": f"batch size {BATCH_SIZE}, {STEPS} steps"}


def markov_configs(seeds: Sequence[int]) -> list[RunConfig]:
    """Return runs of four stages and the given seeds: those of the demo, trained for longer."""
    return [
        replace(demo_config(name, seed), steps=STEPS, eval_every=EVALUATE)
        for name in STAGES
        for seed in seeds
    ]


def markov_measurements() -> MeasureConfig:
    """Return when weights are stored; what is measured of them besides the loss is little, the study does the rest."""
    return MeasureConfig(
        every=EVERY,
        early=EARLY,
        sequences=EVALUATION,
        gradient_sequences=0,
        bands=(),
        training_bands=0,
        causal_sequences=0,
        positions=True,
    )
