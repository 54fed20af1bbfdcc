"""Stage 1: learned absolute positions, a head tied to the embedding, AdamW."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from toymodel.parameters import ParameterSpec
from toymodel.sizes import Sizes
from toymodel.stages.base import Params, Routing, Stage


@dataclass(frozen=True)
class LearnedPositions:
    """One learned vector a position, added to the embedding (standard deviation 0.02 at the start)."""

    def specs(self, sizes: Sizes) -> tuple[ParameterSpec, ...]:
        """The (T, d) table."""
        return (ParameterSpec("positions", (sizes.length, sizes.d), "position", "normal", std=0.02),)

    def embed(self, params: Params, x: Tensor) -> Tensor:
        """x + table[:T]."""
        return x + params["positions"][:, None, : x.shape[2]]

    def rotate(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        """Queries and keys as they are."""
        return q, k


@dataclass(frozen=True)
class TiedHead:
    """Logits against the token embedding itself; no parameters of its own."""

    def specs(self, sizes: Sizes) -> tuple[ParameterSpec, ...]:
        """None."""
        return ()

    def weight(self, params: Params) -> Tensor:
        """The embedding."""
        return params["embed"]


BASELINE = Stage(
    name="baseline",
    parent=None,
    change="learned positions, tied head, AdamW without weight decay",
    positions=LearnedPositions(),
    head=TiedHead(),
    routing=Routing(),
)
