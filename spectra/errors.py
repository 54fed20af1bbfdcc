"""Errors of the instrument: each message names the value, the rule it broke and the remedy."""

from __future__ import annotations


class InputError(ValueError):
    """An input that no estimator can accept (NaN or Inf, wrong shape, negative energy, window misuse)."""
