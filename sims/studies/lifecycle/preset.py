"""Define the runs of the study: five depths of one width with AdamW, and one of them with Muon.

Stages rope and muon differ in the optimiser of the blocks alone. The learning rate of both is constant: what a schedule
does to spectra needs runs of one (`speclens train lm --warmdown`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sims.runs.measure_config import MeasureConfig
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
