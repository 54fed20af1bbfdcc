"""Configurations small enough that a test may train and measure them."""

from sims.runs.measure_config import MeasureConfig
from toymodel import TaskConfig
from toymodel.config import ModelConfig, RunConfig

RUN = RunConfig(
    stage="untied",
    task=TaskConfig(vocab=24, length=8, train=400, val=64, test=16),
    model=ModelConfig(d_model=16, heads=2, layers=1),
    batch_size=8,
    lr=3e-3,
    steps=12,
    eval_every=3,
    eval_size=32,
)
MEASURE = MeasureConfig(
    every=6,
    sequences=64,
    windows=((1, 10),),
    gradient_sequences=8,
    bands=((11, 7),),
    training_bands=1,
    training_band_min=8,
    probe_sequences=240,
    causal_sequences=32,
)
