"""Learning rates of matrices by the spectra of their weights, for the trainers of toys and of language models."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from torch import Tensor

from sims.system.process_group import SINGLE, ProcessGroup
from toymodel.controllers import Controller, Layerwise
from toymodel.observe import View
from toymodel.rates import Rates


def weight_scores(name: str, matrices: Mapping[str, Tensor]) -> dict[str, float]:
    """Return the scores of the matrices of one model that have one (`sims.measure.weight_scores`).

    They depend on the matrices of this model alone, so that an ensemble gives each member what it would get alone.

    Args:
        name: one of `toymodel.rates.SCORES`.
        matrices: (rows, columns) by name.
    """
    # Runs of one rate load no estimators.
    from sims.measure.weight_scores import estimates

    found = estimates(name, matrices)
    return {matrix: own.value for matrix, own in found.items() if own.status != "not fitted"}


def layerwise(rates: Rates, sizes: Mapping[str, int], steps: int, group: ProcessGroup = SINGLE) -> Layerwise:
    """Return the controller of a run (a `toymodel.controllers.MakeController`).

    Args:
        rates, sizes, steps: as for `toymodel.controllers.Controller`.
        group: processes that share every step. All take the scores of the first: those of each by itself would differ
            by rounding, and part their weights.
    """

    def scores(name: str, matrices: Mapping[str, Tensor]) -> dict[str, float]:
        return group.from_first(lambda: weight_scores(name, matrices))

    return Layerwise(rates, sizes, steps, scores)


def seconds_a_step(controllers: Sequence[Controller], view: Callable[[int], View]) -> float:
    """Return the seconds that the choices of learning rates add to each training step; one choice is timed.

    Args:
        controllers: of the members of one run or ensemble, which have chosen before.
        view: shows a member to its controller.
    """
    if not controllers:
        return 0.0
    began = time.perf_counter()
    for k, controller in enumerate(controllers):
        controller.choose(view(k))
    first = controllers[0]
    return (time.perf_counter() - began) / first.rates.period(first.steps)
