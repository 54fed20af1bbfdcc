"""What a controller of learning rates is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from toymodel.observe import View
    from toymodel.rates import Rates


class Controller(ABC):
    """Choose a learning-rate multiplier for each matrix of one run.

    A controller belongs to one run (one member of an ensemble). It is asked before every update while the weights are
    finite; what it chooses holds until it chooses again, and starts at 1. A matrix with multiplier m is updated as if
    its learning rate were m times the configured one, by AdamW (decoupled weight decay included) and by Muon.
    Multipliers and state are part of the member's checkpoint.

    Args:
        rates: the settings of the run.
        sizes: numbers of weights of the matrices, by name (see `toymodel.transformer.matrix_sizes`).
        steps: planned number of updates.

    Attributes:
        name: what messages call it.
        matrices: names of the matrices.
        rated: multiplier and score by matrix, as last chosen, for rows; None where a matrix has no score.
    """

    def __init__(self, rates: Rates, sizes: Mapping[str, int], steps: int) -> None:
        self.rates, self.sizes, self.steps = rates, dict(sizes), steps
        self.name, self.matrices = rates.by, tuple(sizes)
        self.rated: dict[str, tuple[float, float | None]] = {}

    @abstractmethod
    def due(self, step: int) -> bool:
        """Return whether to choose before the next update; `step` counts the updates so far."""

    @abstractmethod
    def choose(self, view: View) -> Mapping[str, float]:
        """Return multipliers (finite, ≥ 0) by name of matrix; those left out stay as they are."""

    def state_dict(self) -> dict[str, Tensor]:
        """Return all that a later process needs to continue exactly, besides the multipliers themselves."""
        return {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:  # noqa: B027 (nothing to do without state)
        """Restore what `state_dict` returned."""
