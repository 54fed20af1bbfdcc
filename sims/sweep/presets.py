"""Define named configurations for single runs and sweeps."""

from __future__ import annotations

from sims.runs.measure_config import MeasureConfig
from sims.sweep.demo import demo_config, demo_measurements
from toymodel.config import RunConfig

SMALL = demo_config("untied", 32, 0)
SMALL_MEASURE = demo_measurements()

# The paper's size, task and budget; learning rates differ by stage and batch size (docs/published.md).
PUBLISHED = RunConfig()
PUBLISHED_MEASURE = MeasureConfig()
# A sweep measures every run, so it uses fewer probe sequences than the published 12,000: ten for each state of the
# larger published band, and 128 of them for the causal test.
SWEEP_MEASURE = MeasureConfig(training_bands=0, probe_sequences=1_800, causal_sequences=128)
