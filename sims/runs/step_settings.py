"""Check the settings of what is measured between training steps, which toy and language-model runs share."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, TypeAlias

from sims.system.errors import MeasureError

if TYPE_CHECKING:
    from sims.runs.lm_measure_config import LmOptions
    from sims.runs.measure_config import MeasureConfig

    StepSettings: TypeAlias = MeasureConfig | LmOptions

# Which parameters go into one window: those of each optimiser, these parts of the model, or one matrix by its name.
GROUPS = ("optimiser", "all", "trunk", "attention", "embedding")
MATRIX = "matrix:"


def update_windows(config: StepSettings) -> tuple[int, ...]:
    """Return the numbers of updates W of the windows that are measured, ascending."""
    return tuple(sorted(set(config.update_windows))) or (config.update_window,)


def check_step_settings(config: StepSettings, prefix: str = "") -> None:
    """Refuse settings that no run can have.

    Args:
        config: the settings.
        prefix: of their names in messages.

    Raises:
        MeasureError: naming the setting, its rule and the remedy.
    """
    if config.update_window < 2:
        raise MeasureError(f"{prefix}update_window is {config.update_window}; it must be at least 2")
    if short := [w for w in config.update_windows if w < 2]:
        raise MeasureError(f"{prefix}update_windows has {short[0]}; each must be at least 2")
    if config.update_stride < 1:
        raise MeasureError(f"{prefix}update_stride is {config.update_stride}; it must be at least 1")
    if config.updates % config.update_stride:
        nearest = max(1, round(config.updates / config.update_stride)) * config.update_stride
        raise MeasureError(
            f"{prefix}updates is {config.updates} and {prefix}update_stride {config.update_stride}: windows end at "
            f"snapshots, so it must be a multiple of the stride; take {prefix}updates {nearest}"
        )
    unknown = [name for name in config.update_groups if name not in GROUPS and not name.startswith(MATRIX)]
    if unknown or not config.update_groups:
        raise MeasureError(
            f"{prefix}update_groups is {', '.join(unknown) or 'empty'}; choose from {', '.join(GROUPS)} and "
            f"{MATRIX}NAME, such as {MATRIX}head"
        )
    if config.update_sketch < 0 or config.update_draws < 99:
        raise MeasureError(
            f"{prefix}update_sketch is {config.update_sketch} and {prefix}update_draws {config.update_draws}; they "
            "must be at least 0 (all numbers are kept) and 99"
        )
    for name, most in (("update_draws", 10**6), ("defect_pairs", 10**4), ("defect_sequences", 10**7)):
        if getattr(config, name) > most:
            raise MeasureError(f"{prefix}{name} is {getattr(config, name)}; it must be at most {most:,}")
    if config.update_nulls < 1:
        raise MeasureError(
            f"{prefix}update_nulls is {config.update_nulls}; it is a number of updates, at least 1 (every window)"
        )
    if not config.update_memory > 0:
        raise MeasureError(f"{prefix}update_memory is {config.update_memory} GB; it must be positive")
    if min(config.defect, config.defect_sequences) < 0 or config.defect_pairs < 1:
        raise MeasureError(
            f"{prefix}defect is {config.defect}, {prefix}defect_sequences {config.defect_sequences} and "
            f"{prefix}defect_pairs {config.defect_pairs}; they must be at least 0, 0 and 1"
        )
    if not 0 < config.defect_rate < math.inf:
        raise MeasureError(f"{prefix}defect_rate is {config.defect_rate}; it must be a positive number")


def check_steps(config: StepSettings, steps: int, prefix: str = "") -> None:
    """Refuse measurements between steps that a run is too short for.

    Raises:
        MeasureError: as `check_step_settings`.
    """
    longest = max(update_windows(config))
    if config.updates and max(config.updates, longest * config.update_stride) > steps:
        raise MeasureError(
            f"{prefix}updates is {config.updates} and a window takes {longest} updates of {config.update_stride} steps "
            f"({prefix}update_window, update_stride), but the run has {steps} steps; lower them, or set "
            f"{prefix}updates to 0"
        )
    for name in ("defect", "accuracy"):
        every = getattr(config, name, 0)
        if every > steps:
            raise MeasureError(
                f"{prefix}{name} is {every}, but the run has {steps} steps; lower it, or set it to 0"
            )
