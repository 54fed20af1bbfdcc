"""Pick the number of interest out of what a function returns."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from spectra.arrays import brief
from spectra.errors import InputError

# The name of an entry or attribute, an index, or a function of the result.
Pick: TypeAlias = "str | int | Callable[[Any], Any] | None"


class NotThere(Exception):
    """Report that a result has no such part; the message says which it has."""


def checked_pick(pick: Any) -> Pick:
    """Return a way to pick a number.

    Raises:
        InputError: neither a name, an index, a function nor None.
    """
    if isinstance(pick, bool) or not (pick is None or isinstance(pick, str | int) or callable(pick)):
        raise InputError(f"result is {brief(pick)}; pass a name, an index or a function of what is returned")
    return pick


def picked(result: Any, pick: Pick) -> Any:
    """Return the part of a result by name (entry of a mapping, or attribute), by index, or by a function.

    Raises:
        NotThere: the result has no such part.

    >>> picked({"alpha": 2.5, "D": 0.1}, "alpha"), picked((1.0, 2.0), 1), picked(3.0, lambda found: -found)
    (2.5, 2.0, -3.0)
    """
    if pick is None:
        return result
    if callable(pick):
        try:
            return pick(result)
        except Exception as error:
            raise NotThere(
                f"result= raised {type(error).__name__} on {described(result)}: {error}"
            ) from error
    if isinstance(pick, str) and not isinstance(result, Mapping) and hasattr(result, pick):
        return getattr(result, pick)
    try:
        return result[pick]
    except Exception as error:
        raise NotThere(f"returned {described(result)}, without {pick!r}") from error


def described(result: Any) -> str:
    """Return the type of a result, and the names of its parts where it has several.

    >>> described({"alpha": 2.5, "D": 0.1})
    "a dict with 'alpha', 'D'"
    """
    names = _names(result)
    listed = ", ".join(map(repr, names[:8])) + (", …" if len(names) > 8 else "")
    return f"a {type(result).__name__}" + (f" with {listed}" if names else "")


def advice(result: Any) -> str:
    """Return how to pick a number from a result of several parts; empty for one that has none.

    >>> advice((2.5, 0.1)), advice(2.5)
    ('pick the number by result=, such as result=0', '')
    """
    names = _names(result)
    return f"pick the number by result=, such as result={names[0]!r}" if names else ""


def _names(result: Any) -> list[Any]:
    if isinstance(result, Mapping):
        return list(result)
    if dataclasses.is_dataclass(result):
        return [field.name for field in dataclasses.fields(result)]
    if isinstance(result, tuple | list):
        return list(getattr(result, "_fields", range(len(result))))
    if type(result).__module__.split(".")[0] in ("builtins", "numpy", "torch"):
        return []
    return [name for name in getattr(result, "__dict__", {}) if not name.startswith("_")]
