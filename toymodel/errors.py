"""Errors of the subject: each message names the value, the rule it broke and the remedy."""

from __future__ import annotations


class ConfigError(Exception):
    """A setting, or a combination of settings, that describes no possible task, model or run.

    Not a ValueError: the command line parser would take it for a parse error and wrap it in its own words.
    """


class CheckpointError(ValueError):
    """A checkpoint that is truncated, foreign, or of another configuration."""
