"""Refuse numbers that no configuration may hold: not finite, or of more digits than files and tensors take."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING

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
