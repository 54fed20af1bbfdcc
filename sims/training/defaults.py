"""Defaults of training that the command line shows without loading torch."""

from __future__ import annotations

# Seconds between stored states of a run (toy, language model): what a kill loses at most.
SECONDS_BETWEEN_STATES = 20.0
STORE_SECONDS = 600.0
