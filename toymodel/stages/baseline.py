"""Stage 1: learned absolute positions, a head tied to the embedding, AdamW."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from toymodel.parameter_spec import ParameterSpec
from toymodel.sizes import Sizes
from toymodel.stages.base import Params, Routing, Stage

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class LearnedPositions:
    """Add a learned vector for each position to the embedding (standard deviation 0.02 at the start)."""

    def specs(self, sizes: Sizes) -> tuple[ParameterSpec, ...]:
        """Return the (T, d) table."""
        return (ParameterSpec("positions", (sizes.length, sizes.d), "position", "normal", std=0.02),)

    def embed(self, params: Params, x: Tensor) -> Tensor:
        """Return x + table[:T]."""
        return x + params["positions"][:, None, : x.shape[2]]

    def rotate(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        """Return queries and keys unchanged."""
        return q, k


@dataclass(frozen=True)
class TiedHead:
    """Take the token embedding as head, without further parameters."""

    def specs(self, sizes: Sizes) -> tuple[ParameterSpec, ...]:
        """Return no parameters."""
        return ()

    def weight(self, params: Params) -> Tensor:
        """Return the embedding."""
        return params["embed"]


BASELINE = Stage(
    name="baseline",
    parent=None,
    change="learned positions, tied head, AdamW without weight decay",
    positions=LearnedPositions(),
    head=TiedHead(),
    routing=Routing(),
)
