"""Define the runs of the study: one small transformer, a learning rate for each matrix by several rules.

Runs of one seed and base rate have the same initial weights and the same batches; only the multipliers differ. The base
rates were chosen with seed 100, which the study does not use, for runs of one rate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from sims.analysis.rates import LEAST_DRAWS, LEAST_SEEDS
from sims.runs.measure_config import MeasureConfig
from toymodel import ModularWalks, Task
from toymodel.config import ModelConfig, RunConfig
from toymodel.rates import ONE_RATE, REVERSED, SHUFFLED, UNIFORM, Rates

# Of folders of the study.
NAME = "rates"
SEEDS, SHUFFLES = LEAST_SEEDS, LEAST_DRAWS
StageName = Literal["rope", "muon", "untied"]
STAGES: tuple[StageName, ...] = get_args(StageName)
SCORE = "farms"
# Scores that may be shuffled.
Score = Literal["alpha", "farms"]
ARMS = (UNIFORM, "alpha", SCORE, "depth", REVERSED + SCORE)
# Of the base rate.
FACTORS = (0.5, 1.0, 2.0)
ADAMW_LR, MUON_LR = 1e-2, 4e-3
# Choices of multipliers over a run.
CHOICES = 30
# Measurements with stored weights, at equal distances.
LOOKS = 3


@dataclass(frozen=True)
class Profile:
    """Set the size of the runs.

    Attributes:
        task, model, batch_size, steps: of every run.
    """

    task: Task
    model: ModelConfig
    batch_size: int
    steps: int


ProfileName = Literal["quick", "full"]
PROFILES: dict[ProfileName, Profile] = {
    "quick": Profile(
        ModularWalks(vocab=32, length=16, train=8_000, val=1_024, test=64),
        ModelConfig(d_model=48, heads=4, layers=3, mlp_ratio=4),
        batch_size=16,
        steps=300,
    ),
    "full": Profile(
        ModularWalks(vocab=64, length=32, train=16_000, val=1_024, test=64),
        ModelConfig(d_model=48, heads=4, layers=3, mlp_ratio=4),
        batch_size=64,
        steps=500,
    ),
}


def label(profile: ProfileName, steps: int | None) -> dict[str, Any]:
    """Return the purpose of a folder; one of another preset is refused before any work."""
    return {"campaign": NAME, "profile": profile, "steps": steps or PROFILES[profile].steps}


def rates_configs(
    stages: Sequence[str] = ("rope",),
    seeds: Sequence[int] = range(SEEDS),
    *,
    profile: ProfileName = "quick",
    steps: int | None = None,
    shuffles: int = SHUFFLES,
    shuffled: Sequence[Score] = (SCORE,),
) -> list[RunConfig]:
    """Return the runs: every arm and shuffle at three base rates, for every seed.

    Args:
        stages, seeds, profile, steps: of every run.
        shuffles: draws of each score.
        shuffled: scores that are shuffled.

    >>> len(rates_configs())
    225
    """
    every = max(1, (steps or PROFILES[profile].steps) // CHOICES)
    unequal = [Rates(arm, every=every) for arm in ARMS if arm != UNIFORM]
    drawn = [Rates(SHUFFLED + score, every=every, seed=k) for score in shuffled for k in range(shuffles)]
    arms = [ONE_RATE, *unequal, *drawn]
    return [
        _run(stage, rates, lr, seed, PROFILES[profile], steps)
        for stage in stages
        for rates in arms
        for lr in base_rates(stage)
        for seed in seeds
    ]


def base_rates(stage: str) -> tuple[float, ...]:
    """Return the three base rates of a stage.

    >>> base_rates("rope")
    (0.005, 0.01, 0.02)
    """
    middle = ADAMW_LR if stage == "rope" else MUON_LR
    return tuple(factor * middle for factor in FACTORS)


def _run(stage: str, rates: Rates, lr: float, seed: int, profile: Profile, steps: int | None) -> RunConfig:
    steps = steps or profile.steps
    return RunConfig(
        stage,
        task=profile.task,
        model=profile.model,
        batch_size=profile.batch_size,
        lr=lr,
        steps=steps,
        seed=seed,
        eval_every=max(1, steps // LOOKS),
        eval_size=None,
        rates=rates,
    )


def rates_measurements(profile: ProfileName = "quick", steps: int | None = None) -> MeasureConfig:
    """Return what is measured: little, and the weights are stored a few times."""
    return MeasureConfig(
        every=max(1, (steps or PROFILES[profile].steps) // LOOKS),
        early=0,
        sequences=128,
        gradient_sequences=0,
        bands=(),
        training_bands=0,
        causal_sequences=0,
    )
