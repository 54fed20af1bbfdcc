"""Choose learning rates by scores of weight matrices, every few steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from toymodel.controllers.base import Controller
from toymodel.controllers.maps import multipliers
from toymodel.rates import Rates, base_of

if TYPE_CHECKING:
    from torch import Tensor

    from toymodel.observe import View

# Of a score by name, and matrices (rows, columns) by name: the scores of those that have one.
Scorer = Callable[[str, Mapping[str, "Tensor"]], Mapping[str, float]]


class Layerwise(Controller):
    """Multiply the learning rate of each matrix of the blocks by a number that follows from its score.

    A matrix without a score (one of zeros has no exponent) has multiplier 1, and does not count in the map.

    Args:
        rates: the settings.
        sizes: numbers of weights of all matrices of the model.
        steps: planned number of updates.
        scorer: computes scores; `sims.training.rates` has that of the commands.

    >>> from toymodel.rates import Rates
    >>> controller = Layerwise(Rates("farms"), {"embed": 99, "blocks.0.attn.q": 16}, 500, lambda name, matrices: {})
    >>> controller.matrices, controller.due(5), controller.due(6)
    (('blocks.0.attn.q',), True, False)
    """

    def __init__(self, rates: Rates, sizes: Mapping[str, int], steps: int, scorer: Scorer) -> None:
        super().__init__(rates, sizes, steps)
        self.matrices = rates.taking_part(self.matrices)
        self.every, self.scorer = rates.period(steps), scorer

    def due(self, step: int) -> bool:
        """Return whether to choose before the next update: at step 0, and every few steps."""
        return step % self.every == 0

    def choose(self, view: View) -> Mapping[str, float]:
        """Return the multipliers of all matrices that take part."""
        from toymodel.transformer import matrices

        own = matrices({name: weight[None] for name, weight in view.weights().items()})
        found = self.scorer(base_of(self.rates.by), {name: own[name][0] for name in self.matrices})
        scores = {name: found[name] for name in self.matrices if name in found}
        chosen = dict.fromkeys(self.matrices, 1.0)
        chosen |= multipliers(scores, self.sizes, self.rates, self.matrices)
        self.rated = {name: (value, scores.get(name)) for name, value in chosen.items()}
        return chosen
