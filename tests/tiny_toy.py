"""A transformer of a few thousand parameters, small enough that a test may train it."""

from toymodel import TaskConfig
from toymodel.config import ModelConfig, RunConfig

TINY = RunConfig(
    task=TaskConfig(vocab=23, length=9, train=300, val=40, test=20),
    model=ModelConfig(d_model=12, heads=2, layers=2),
    batch_size=6,
    lr=3e-3,
    steps=12,
    eval_every=4,
    eval_size=33,
)
