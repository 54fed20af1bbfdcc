"""Controllers of learning rates. A new one is one file and one line in `_CONTROLLERS`."""

from __future__ import annotations

from collections.abc import Sequence

from toymodel.controllers.base import Controller
from toymodel.errors import ConfigError

UNIFORM = "uniform"

_CONTROLLERS: tuple[type[Controller], ...] = ()

# "uniform" is the absence of a controller: one learning rate for all matrices of an optimiser, at no cost.
CONTROLLERS: dict[str, type[Controller] | None] = {UNIFORM: None, **{c.name: c for c in _CONTROLLERS}}


def check_controller(name: str) -> None:
    """Refuse a name that is not registered.

    Raises:
        ConfigError: naming the registered controllers.
    """
    if name not in CONTROLLERS:
        raise ConfigError(f"unknown controller {name!r}; the controllers are {', '.join(CONTROLLERS)}")


def make_controllers(name: str, members: int, matrices: Sequence[str], steps: int) -> list[Controller]:
    """Return one controller for each member, none at all for "uniform".

    >>> make_controllers("uniform", 3, ["embed"], 100)
    []
    """
    check_controller(name)
    kind = CONTROLLERS[name]
    return [] if kind is None else [kind(matrices, steps) for _ in range(members)]


__all__ = ["CONTROLLERS", "UNIFORM", "Controller", "check_controller", "make_controllers"]
