"""Errors of `sims`: each message names the value, the rule and the remedy.

None is a ValueError: the parser of the command line would wrap it as a parse error.
"""

from __future__ import annotations

from pathlib import Path


class StoreError(RuntimeError):
    """A folder or file cannot be used or written."""


class PlaceError(StoreError):
    """Nothing can be written at a path.

    Args:
        path: what cannot be written.
        reason: why, after the name of the path.
        remedies: what helps besides another place, which a command names by its option.
    """

    def __init__(self, path: Path, reason: str, *remedies: str) -> None:
        super().__init__(path, reason, *remedies)
        self.path, self.reason, self.remedies = path, reason, remedies

    def __str__(self) -> str:
        return self.told("choose another folder")

    def told(self, elsewhere: str) -> str:
        """Return the message with the remedy of another place; empty where there is none."""
        remedies = " or ".join(filter(None, (elsewhere, *self.remedies)))
        return f"{self.path} {self.reason}{'; ' if remedies else ''}{remedies}"


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


def first_line(error: Exception) -> str:
    r"""Return the type of an error of other code, and the first line of its message.

    >>> first_line(RuntimeError("wrong shape\nException raised from …"))
    'RuntimeError: wrong shape'
    """
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0].strip()}"
