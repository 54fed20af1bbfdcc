"""The subject: modular-arithmetic transformers that train in ensembles under cumulative stages. Never measures."""

from toymodel.config import ModelConfig, RunConfig
from toymodel.data import Dataset, make_dataset, probe_split, training_bands
from toymodel.ensemble import Ensemble
from toymodel.errors import CheckpointError, ConfigError
from toymodel.observe import Observer, Schedule, View
from toymodel.stages import STAGES, Stage
from toymodel.task import TaskConfig
from toymodel.train import Snapshot, train
from toymodel.transformer import Transformer

__all__ = [
    "STAGES",
    "CheckpointError",
    "ConfigError",
    "Dataset",
    "Ensemble",
    "ModelConfig",
    "Observer",
    "RunConfig",
    "Schedule",
    "Snapshot",
    "Stage",
    "TaskConfig",
    "Transformer",
    "View",
    "make_dataset",
    "probe_split",
    "train",
    "training_bands",
]
