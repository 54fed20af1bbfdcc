"""Errors of `sims`: each message names the value, the rule and the remedy.

None is a ValueError: the parser of the command line would wrap it as a parse error.
"""

from __future__ import annotations


class StoreError(RuntimeError):
    """A folder or file cannot be used or written."""


class MeasureError(Exception):
    """A measurement is not possible for this subject."""


class EngineError(Exception):
    """Processes or machines cannot do the work."""


class QueryError(Exception):
    """Options or a query on a folder of runs are not valid."""


class MissingExtraError(RuntimeError):
    """An optional package is needed and not installed."""


class UnverifiedWarning(UserWarning):
    """Files are read that have no digest, so that damage to them would not be found."""
