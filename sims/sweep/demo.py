"""Define the demo: four stages that separate within minutes on two cores, with the seeds to show it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sims.runs.measure_config import MeasureConfig
from sims.sweep.presets import SMALL, SMALL_MEASURE
from toymodel.config import RunConfig
from toymodel.stages import STAGES, stage

# Chosen on seeds 100 to 103, which the demo does not use (docs/sweeps.md).
SEEDS = 8
BATCH_SIZE, STEPS = 32, 600
ADAMW_LR, MUON_LR = 2e-3, 7e-4
EVALUATIONS, EVALUATION = 15, 256
# Of a folder; one of another preset is refused before any work.
LABEL = {"campaign": "demo", "preset": f"batch size {BATCH_SIZE}, {STEPS} steps"}


def demo_config(stage_name: str, seed: int) -> RunConfig:
    """Return one run of the demo."""
    return replace(
        SMALL,
        stage=stage_name,
        batch_size=BATCH_SIZE,
        lr=MUON_LR if stage(stage_name).routing.muon else ADAMW_LR,
        steps=STEPS,
        seed=seed,
        eval_every=STEPS // EVALUATIONS,
        eval_size=EVALUATION,
    )


def demo_configs(seeds: Sequence[int]) -> list[RunConfig]:
    """Return runs of four stages and the given seeds."""
    return [demo_config(name, seed) for name in STAGES for seed in seeds]


def demo_measurements() -> MeasureConfig:
    """Return the demo's measurements: those of the small size, at every second evaluation, on half as many samples."""
    return replace(
        SMALL_MEASURE,
        every=2 * STEPS // EVALUATIONS,
        sequences=512,
        gradient_sequences=32,
        gradient_matrices=("attn.o", "mlp.proj"),
        probe_sequences=480,
        causal_sequences=48,
    )
