"""The subject: modular-arithmetic transformers that train in ensembles under cumulative stages. Never measures.

Names are imported when they are used (PEP 562): a configuration does not load torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from spectral_lens import __version__ as __version__

if TYPE_CHECKING:
    from toymodel.config import ModelConfig, RunConfig
    from toymodel.data import Dataset, make_dataset
    from toymodel.ensemble import Ensemble
    from toymodel.errors import CheckpointError, ConfigError
    from toymodel.intervention import Intervention
    from toymodel.observe import Observer, Schedule, View
    from toymodel.rates import Rates
    from toymodel.stages import STAGES, Stage
    from toymodel.task import Split, Task
    from toymodel.tasks import TASKS, DyckDepth, ModularArithmetic, ModularWalks, Scan, ShuffledWalks
    from toymodel.tasks import ModularWalks as TaskConfig
    from toymodel.tasks.modular_walk_probes import probe_split, training_bands
    from toymodel.training import Snapshot, train
    from toymodel.transformer import Transformer

# Module of each public name.
_MODULES = {
    "config": ("ModelConfig", "RunConfig"),
    "data": ("Dataset", "make_dataset"),
    "ensemble": ("Ensemble",),
    "errors": ("CheckpointError", "ConfigError"),
    "intervention": ("Intervention",),
    "observe": ("Observer", "Schedule", "View"),
    "rates": ("Rates",),
    "stages": ("STAGES", "Stage"),
    "task": ("Split", "Task"),
    "tasks": ("TASKS", "DyckDepth", "ModularArithmetic", "ModularWalks", "Scan", "ShuffledWalks"),
    "tasks.modular_walk_probes": ("probe_split", "training_bands"),
    "training": ("Snapshot", "train"),
    "transformer": ("Transformer",),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> object:
    if name == "TaskConfig":  # the default task had this name while it was the only one
        name = "ModularWalks"
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'toymodel' has no attribute {name!r}")
    return getattr(importlib.import_module(f"toymodel.{_MODULE_OF[name]}"), name)


__all__ = [
    "STAGES",
    "TASKS",
    "CheckpointError",
    "ConfigError",
    "Dataset",
    "DyckDepth",
    "Ensemble",
    "Intervention",
    "ModelConfig",
    "ModularArithmetic",
    "ModularWalks",
    "Observer",
    "Rates",
    "RunConfig",
    "Scan",
    "Schedule",
    "ShuffledWalks",
    "Snapshot",
    "Split",
    "Stage",
    "Task",
    "TaskConfig",
    "Transformer",
    "View",
    "make_dataset",
    "probe_split",
    "train",
    "training_bands",
]
