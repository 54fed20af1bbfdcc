"""The subject: modular-arithmetic transformers that train in ensembles under cumulative stages. Never measures."""

from toymodel.config import ModelConfig, RunConfig
from toymodel.data import Dataset, make_dataset
from toymodel.ensemble import Ensemble
from toymodel.errors import CheckpointError, ConfigError
from toymodel.observe import Observer, Schedule, View
from toymodel.stages import STAGES, Stage
from toymodel.task import Split, Task
from toymodel.tasks import TASKS, ModularWalks
from toymodel.tasks.modular_walk_probes import probe_split, training_bands
from toymodel.train import Snapshot, train
from toymodel.transformer import Transformer

# The default task, under the name that it had while it was the only one.
TaskConfig = ModularWalks

__all__ = [
    "STAGES",
    "TASKS",
    "CheckpointError",
    "ConfigError",
    "Dataset",
    "Ensemble",
    "ModelConfig",
    "ModularWalks",
    "Observer",
    "RunConfig",
    "Schedule",
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
