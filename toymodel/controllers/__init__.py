"""Controllers of learning rates: multipliers for each matrix of a run, chosen anew while it trains."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from toymodel.controllers.base import Controller
from toymodel.controllers.layerwise import Layerwise, Scorer
from toymodel.controllers.maps import multipliers
from toymodel.errors import ConfigError
from toymodel.rates import Rates

# Makes the controller of one run: of its rates, the numbers of weights of its matrices, and its number of steps.
MakeController = Callable[[Rates, Mapping[str, int], int], Controller]


def make_controllers(
    rates: Rates, members: int, sizes: Mapping[str, int], steps: int, make: MakeController | None = None
) -> list[Controller]:
    """Return one controller for each member, none at all for uniform rates.

    Args:
        rates: of all members.
        members: their number.
        sizes: numbers of weights of the matrices of the model.
        steps: planned number of updates.
        make: makes one; toymodel itself computes no scores.

    Raises:
        ConfigError: rates that are not uniform, and no `make`.

    >>> make_controllers(Rates(), 3, {"embed": 64}, 100)
    []
    """
    if rates.uniform:
        return []
    if make is None:
        raise ConfigError(
            f"rates.by is {rates.by!r}, and toymodel computes no scores of weights; pass "
            "controller=sims.training.rates.layerwise (as `speclens train --rates` does), or "
            "functools.partial(toymodel.controllers.Layerwise, scorer=…) with a function of your own"
        )
    return [make(rates, sizes, steps) for _ in range(members)]


__all__ = ["Controller", "Layerwise", "MakeController", "Scorer", "make_controllers", "multipliers"]
