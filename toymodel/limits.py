"""Numbers of configurations: refuse those that none may hold, and write equal ones equally."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from numbers import Real
from typing import TYPE_CHECKING, Any

from toymodel.errors import ConfigError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

LARGEST = 2**63 - 1


def check_numbers(config: DataclassInstance, error: type[Exception] = ConfigError) -> None:
    """Refuse a number of a configuration, or of one within it, that is not finite or does not fit in 64 bits.

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
        if isinstance(value, int) and abs(value) > LARGEST:
            raise error(f"{name} has more digits than a 64-bit number; it must be between −2⁶³ and 2⁶³ − 1")


def plain_numbers(config: DataclassInstance) -> None:
    """Give the numbers of a frozen dataclass the types of their fields, in place.

    Equal configurations must also be written equally, as the id of a run is a hash: 1, 1.0 and numpy's 1 become one
    value, and so do 0.0 and −0.0.

    Args:
        config: while it is made; its fields are annotated by float or int, alone, with None or in a tuple.

    Raises:
        ConfigError: a value of such a field that is no number, or of an integer field no whole one.

    >>> from toymodel import RunConfig
    >>> RunConfig(weight_decay=0).run_id == RunConfig(weight_decay=0.0).run_id
    True
    """
    for spec in fields(config):
        named = str(spec.type)
        kind = float if "float" in named else int if "int" in named else None
        if spec.init and kind is not None:
            object.__setattr__(config, spec.name, _plain(getattr(config, spec.name), kind, spec.name))


def _plain(value: Any, kind: type[float] | type[int], name: str) -> Any:
    if isinstance(value, tuple):
        return tuple(_plain(own, kind, name) for own in value)
    # Numbers of more digits are refused by `check_numbers`.
    if value is None or (isinstance(value, int) and abs(value) > LARGEST):
        return value
    if not _is_number(value) or (kind is int and not float(value).is_integer()):
        raise ConfigError(f"{name} is {value!r}; pass a {'whole ' if kind is int else ''}number")
    # −0.0 + 0.0 is 0.0.
    return kind(value) + kind(0)


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


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
