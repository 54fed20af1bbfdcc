"""Define defaults of training that load without torch, for `--help`."""

from __future__ import annotations

# Seconds between stored states of a run (toy, language model): a killed process loses at most this much training.
SECONDS_BETWEEN_STATES = 20.0
STORE_SECONDS = 600.0
