"""Errors of toymodel: each message names the value, the rule it broke and the remedy."""

from __future__ import annotations


class ConfigError(Exception):
    """Report a setting, or a combination of settings, that describes no possible task, model or run.

    Not a ValueError, which the command line parser would report as a parse error.

    >>> from toymodel import RunConfig
    >>> RunConfig(batch_size=0)  # doctest: +IGNORE_EXCEPTION_DETAIL
    Traceback (most recent call last):
    ConfigError: ...
    """


class CheckpointError(ValueError):
    """Report a checkpoint that is truncated, foreign, or of another configuration.

    >>> issubclass(CheckpointError, ValueError)
    True
    """
