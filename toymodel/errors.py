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


class CompileError(ConfigError):
    """Report that torch.compile cannot make the code of a model here, or that its code computes other numbers.

    >>> issubclass(CompileError, ConfigError)
    True
    """


class CheckpointError(ValueError):
    """Report a checkpoint that is truncated, foreign, or of another configuration.

    >>> issubclass(CheckpointError, ValueError)
    True
    """
