"""Tell of settings that a run does not read, or not as they look: they change its name, and none of its numbers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import reduce
from typing import Any

from sims.runs.lm_config import LmConfig
from sims.runs.measure_config import MeasureConfig
from toymodel.config import RunConfig
from toymodel.stages import stage
from toymodel.tasks import ModularWalks

_UPDATES = ("window", "windows", "stride", "groups", "sketch", "memory", "draws", "nulls", "decay")
_DEFECT = ("pairs", "sequences", "rate")


def unread(config: RunConfig | LmConfig) -> dict[str, str]:
    """Return the settings of a run that change none of its numbers, each with the reason.

    >>> unread(RunConfig("muon"))
    {'task.pareto': 'sequences are of one walk', 'task.noise_df': 'there is no noise'}
    """
    own, found = stage(config.stage), {}
    if not own.routing.muon:
        found["newton_schulz"] = f"stage {config.stage} has no Muon"
    if own.network != "transformer":
        found |= dict.fromkeys(
            ("model.heads", "model.layers", "model.mlp_ratio"), f"stage {config.stage} has no blocks"
        )
    task = config.task if isinstance(config, RunConfig) else None
    if isinstance(task, ModularWalks) and task.components_max == 1:
        found["task.pareto"] = "sequences are of one walk"
    if isinstance(task, ModularWalks) and not task.noise:
        found["task.noise_df"] = "there is no noise"
    return found


def unmeasured(measuring: MeasureConfig) -> dict[str, str]:
    """Return the settings of measurements that are not taken, each with the reason."""
    found = {}
    if not measuring.updates:
        found |= {f"update_{name}": "measure.updates is 0" for name in _UPDATES}
    elif measuring.update_windows:
        found["update_window"] = "measure.update_windows has all windows"
    if not measuring.defect:
        found |= {f"defect_{name}": "measure.defect is 0" for name in _DEFECT}
    if not measuring.gradient_sequences:
        found["gradient_matrices"] = "measure.gradient_sequences is 0"
    if not measuring.training_bands:
        found["training_band_min"] = "measure.training_bands is 0"
    return found


def notes(
    configs: Sequence[RunConfig | LmConfig],
    default: RunConfig | LmConfig,
    measuring: MeasureConfig | None = None,
    usual: MeasureConfig | None = None,
) -> Iterator[str]:
    """Yield sentences about settings that were given and change nothing.

    Args:
        configs: the runs.
        default: has the values of settings that were not given.
        measuring, usual: what is measured, and likewise.
    """
    told = dict.fromkeys(
        (name, _value(config, name), _value(default, name), reason)
        for config in configs
        for name, reason in unread(config).items()
    )
    for name, value, other, reason in told:
        if value != other:
            yield (
                f"{name} is {value} and changes nothing ({reason}): such runs have the numbers of those with {other}, "
                "under another name"
            )
    if measuring is not None and usual is not None:
        for every in dict.fromkeys(c.eval_every for c in configs):
            found = math.lcm(every, measuring.every)
            given = (every, measuring.every) != (default.eval_every, usual.every)
            if given and found != measuring.every:
                yield (
                    f"measure.every is {measuring.every} and eval_every {every}: runs are measured at evaluations, of "
                    f"which every {found} steps one is due (besides the first, the last and those of measure.early)"
                )
        for name, reason in unmeasured(measuring).items():
            if getattr(measuring, name) != getattr(usual, name):
                yield f"measure.{name} is {getattr(measuring, name)} and changes nothing ({reason})"


def _value(config: Any, name: str) -> Any:
    return reduce(getattr, name.split("."), config)
