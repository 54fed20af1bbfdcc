"""Options that were given: those that another option leaves without effect are refused, and not passed over."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from sims.system.errors import QueryError


def given(options: Any, names: Sequence[str] = (), prefix: str = "", default: Any = None) -> list[str]:
    """Return the options, as typed, whose values are not the defaults.

    Args:
        options: a dataclass.
        names: fields to look at; all of them by default.
        prefix: of the options.
        default: holds the defaults, where those of the dataclass are others.
    """
    looked = [f for f in fields(options) if not names or f.name in names]
    other = [
        f for f in looked if getattr(options, f.name) != (getattr(default, f.name) if default else f.default)
    ]
    return [f"--{prefix}{f.name.replace('_', '-')}" for f in other]


MOST_SEEDS = 1_000
# Options of what is written.
_OUTPUTS = ("out", "to", "figure", "cache", "keep")


def place_option(options: Any, path: Path) -> str:
    """Return the option, as typed, that chooses where a path lies; empty where none does.

    Args:
        options: a command, or its class where it was not made.
        path: that cannot be written.
    """
    outputs = dict(_outputs(options))
    wanted = path.absolute()
    given = {} if isinstance(options, type) else {name: value for name, value in outputs.items() if value}
    for name, value in given.items():
        place = value.absolute()
        if place in (wanted, *wanted.parents) or wanted in place.parents:
            return f"--{name}"
    # One that was not given, or not yet made, chose it by its default.
    return next((f"--{name}" for name in outputs if name not in given), "")


def _outputs(options: Any) -> Iterator[tuple[str, Path | None]]:
    for spec in fields(options):
        value = getattr(options, spec.name, None)
        if spec.name in _OUTPUTS:
            yield spec.name, value
        elif is_dataclass(value) and not isinstance(value, type):
            yield from _outputs(value)


def check_sizes(options: Any) -> None:
    """Refuse whole numbers of a command, or of options within it, that no 64 bits hold.

    Raises:
        QueryError: naming the option.
    """
    # `speclens --help` loads no package.
    from toymodel.limits import LARGEST

    for spec in fields(options):
        value = getattr(options, spec.name)
        if is_dataclass(value) and not isinstance(value, type):
            check_sizes(value)
        for number in value if isinstance(value, tuple | list) else (value,):
            if isinstance(number, int) and abs(number) > LARGEST:
                name = spec.name.replace("_", "-")
                raise QueryError(f"--{name} has more digits than a 64-bit number; it must be at most 2⁶³ − 1")


def check_seeds(seeds: int) -> None:
    """Refuse a number of seeds that no study trains.

    Raises:
        QueryError: fewer than one, or more than `MOST_SEEDS`.
    """
    if not 1 <= seeds <= MOST_SEEDS:
        raise QueryError(f"--seeds is {seeds}; it is the number of seeds, 1 to {MOST_SEEDS:,}")


def refuse(found: Sequence[str], rule: str) -> None:
    """Refuse options that were given.

    Raises:
        QueryError: there are such; the message names them, and the rule.
    """
    if found:
        raise QueryError(f"{', '.join(found)}: {rule}")
