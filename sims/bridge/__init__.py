"""Adapters: one file for each kind of model that can be measured."""

from sims.bridge.checkpoints import CheckpointRun, load, look
from sims.bridge.foreign import Found, Hints
from sims.bridge.module import Layout, ModuleSubject, Projection
from sims.bridge.toy import ToySubject

__all__ = [
    "CheckpointRun",
    "Found",
    "Hints",
    "Layout",
    "ModuleSubject",
    "Projection",
    "ToySubject",
    "load",
    "look",
]
