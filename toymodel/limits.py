"""Numbers of configurations: refuse those that none may hold, and write equal ones equally."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from functools import lru_cache
from itertools import cycle
from numbers import Real
from typing import TYPE_CHECKING, Any, get_args, get_origin, get_type_hints

import numpy as np

from toymodel.errors import ConfigError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

LARGEST = 2**63 - 1
# What float32 holds in full precision, between which and 0 processors may round to 0.
_LEAST, _MOST = (float(bound) for bound in (np.finfo(np.float32).tiny, np.finfo(np.float32).max))


def check_numbers(config: DataclassInstance, error: type[Exception] = ConfigError) -> None:
    """Refuse a number of a configuration, or of one within it, that is not finite or that no run computes with.

    Whole numbers fit in 64 bits, and others than 0 in float32: a learning rate that rounds to 0 would train nothing.

    Args:
        config: a dataclass.
        error: what is raised.

    Raises:
        ConfigError: naming field, value and rule; or `error`.

    >>> from toymodel import RunConfig
    >>> RunConfig(target_loss=float("nan"))  # doctest: +IGNORE_EXCEPTION_DETAIL
    Traceback (most recent call last):
    ConfigError: target_loss is nan; it must be a finite number
    """
    for name, value in _numbers(config):
        if isinstance(value, float) and not math.isfinite(value):
            raise error(f"{name} is {value}; it must be a finite number")
        if isinstance(value, float) and value and not _LEAST <= abs(value) <= _MOST:
            raise error(
                f"{name} is {value}, which float32 does not hold; other numbers than 0 must lie between {_LEAST:.2g} "
                f"and {_MOST:.2g} in size"
            )
        if isinstance(value, int) and abs(value) > LARGEST:
            raise error(f"{name} has more digits than a 64-bit number; it must be between −2⁶³ and 2⁶³ − 1")


def whole(name: str, value: object, low: int | None = None, high: int | None = None) -> int:
    """Return a whole number of Python or numpy as Python's, between two ends, both included; None for no end.

    Raises:
        ConfigError: naming field, value and rule.

    >>> whole("pairs", np.int64(3), 2, 64)
    3
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise ConfigError(f"{name} is {value!r}; pass an integer")
    if (low is not None and value < low) or (high is not None and value > high):
        rule = f"at least {low}" if high is None else f"from {low} to {high}"
        raise ConfigError(f"{name} is {value}; it must be {rule}")
    return int(value)


def plain_numbers(config: DataclassInstance, error: type[Exception] = ConfigError) -> None:
    """Give the numbers of a frozen dataclass the types of their fields, in place, and refuse values of another type.

    Equal configurations must also be written equally, as the id of a run is a hash: 1, 1.0 and numpy's 1 become one
    value, and so do 0.0 and −0.0, True and numpy's, and a list and a tuple.

    Args:
        config: while it is made.
        error: what is raised.

    Raises:
        ConfigError: no number where one is due, in an integer field no whole one, in a field of True or False something
            else (a text such as "no" would count as true), no list, no text, or no dataclass; or `error`.

    >>> from toymodel import RunConfig
    >>> RunConfig(weight_decay=0).run_id == RunConfig(weight_decay=0.0).run_id
    True
    """
    for name, hint in _hints(type(config)).items():
        try:
            object.__setattr__(config, name, _plain(getattr(config, name), hint))
        except _WrongType as found:
            raise error(f"{name} is {found}") from None


class _WrongType(Exception):
    """Hold what is given, and what to pass."""


@lru_cache
def _hints(owner: type[DataclassInstance]) -> dict[str, Any]:
    """Return the types of the fields that the caller gives."""
    hints = get_type_hints(owner)
    return {spec.name: hints[spec.name] for spec in fields(owner) if spec.init}


def _plain(value: Any, hint: Any) -> Any:
    """Return a value with the type of a hint: a number, a truth value, or a tuple of these; others as they are.

    Raises:
        _WrongType: it has none of these types.
    """
    kinds = get_args(hint)
    if get_origin(hint) is tuple:
        size = None if kinds[-1] is Ellipsis else len(kinds)
        if not isinstance(value, tuple | list) or size not in (None, len(value)):
            raise _WrongType(f"{value!r}; pass a list{'' if size is None else f' of {size}'}")
        return tuple(map(_plain, value, cycle(kinds[:1]) if size is None else kinds))
    if value is not None and type(None) in kinds and len(kinds) == 2:
        return _plain(value, kinds[kinds[0] is type(None)])
    if hint is bool:
        if not isinstance(value, bool | np.bool_):
            raise _WrongType(f"{value!r}; pass True or False")
        return bool(value)
    if isinstance(hint, type) and (hint is str or is_dataclass(hint)) and not isinstance(value, hint):
        raise _WrongType(f"{value!r}; pass a {'text' if hint is str else hint.__name__}")
    # Numbers of more digits are refused by `check_numbers`.
    if hint not in (int, float) or (isinstance(value, int) and abs(value) > LARGEST):
        return value
    if (
        not isinstance(value, Real)
        or isinstance(value, bool)
        or (hint is int and not float(value).is_integer())
    ):
        raise _WrongType(f"{value!r}; pass a {'whole ' if hint is int else ''}number")
    # −0.0 + 0.0 is 0.0.
    return float(value) + 0.0 if hint is float else round(value)


def _numbers(config: DataclassInstance, prefix: str = "") -> Iterator[tuple[str, int | float]]:
    for spec in fields(config):
        # A field that the configuration computes is not there yet.
        values = [getattr(config, spec.name, None)]
        while values:
            value = values.pop()
            if isinstance(value, tuple | list):
                values += value
            elif is_dataclass(value) and not isinstance(value, type):
                yield from _numbers(value, f"{prefix}{spec.name}.")
            elif isinstance(value, int | float) and not isinstance(value, bool):
                yield prefix + spec.name, value
