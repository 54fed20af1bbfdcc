"""The cumulative stages. A new stage is one file and one line in `_CHAIN`."""

from __future__ import annotations

from toymodel.errors import ConfigError
from toymodel.stages.base import Stage
from toymodel.stages.baseline import BASELINE
from toymodel.stages.muon import MUON
from toymodel.stages.rope import ROPE
from toymodel.stages.untied import UNTIED

_CHAIN = (BASELINE, ROPE, MUON, UNTIED)

STAGES: dict[str, Stage] = {s.name: s for s in _CHAIN}


def stage(name: str) -> Stage:
    """The stage of that name; ConfigError names the known ones."""
    if name not in STAGES:
        raise ConfigError(f"unknown stage {name!r}; the stages are {', '.join(STAGES)}")
    return STAGES[name]


__all__ = ["STAGES", "Stage", "stage"]
