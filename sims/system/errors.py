"""Errors of the experiment: each message names what was found, the rule and the remedy."""

from __future__ import annotations


class StoreError(RuntimeError):
    """A folder or file that cannot be used as it is, or that cannot be written."""


class MeasureError(Exception):
    """A measurement that cannot be made of this subject."""


class EngineError(Exception):
    """Processes or machines that cannot do the work."""


class QueryError(ValueError):
    """A question to a folder of runs that cannot be answered as it is put."""


class MissingExtraError(RuntimeError):
    """An optional package that is needed and not installed."""
