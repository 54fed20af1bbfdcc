"""Learning rates of matrices by the spectra of their weights, for the trainers of toys and of language models."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from toymodel.controllers import Layerwise
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


def layerwise(rates: Rates, sizes: Mapping[str, int], steps: int) -> Layerwise:
    """Return the controller of a run (a `toymodel.controllers.MakeController`)."""
    return Layerwise(rates, sizes, steps, weight_scores)
