"""A small network without attention, beside the chain: two ReLU layers over the concatenated tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from toymodel.parameter_spec import ParameterSpec
from toymodel.sizes import Sizes
from toymodel.stages.base import Params, Routing, Stage
from toymodel.stages.untied import UntiedHead

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class ByColumn:
    """Give each position columns of the first layer, and nothing else."""

    def specs(self, sizes: Sizes) -> tuple[ParameterSpec, ...]:
        """Return no parameters."""
        return ()

    def embed(self, params: Params, x: Tensor) -> Tensor:
        """Return x unchanged."""
        return x

    def rotate(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        """Return queries and keys unchanged."""
        return q, k


MLP = Stage(
    name="mlp",
    parent=None,
    change="two ReLU layers with biases over the concatenated tokens; predicts the last target only",
    positions=ByColumn(),
    head=UntiedHead(),
    routing=Routing(),
    network="mlp",
)
