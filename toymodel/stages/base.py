"""What a stage is made of, and what it can change.

A stage is data: a choice of components for one and the same transformer. It names its parent and only what it
changes, so the chain of files reads as the chain of the experiment.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol

from torch import Tensor

from toymodel.parameters import ParameterSpec, Role
from toymodel.sizes import Sizes

Params = Mapping[str, Tensor]


class Positions(Protocol):
    """How a transformer knows where a token stands."""

    def specs(self, sizes: Sizes) -> tuple[ParameterSpec, ...]:
        """Parameters of its own."""
        ...

    def embed(self, params: Params, x: Tensor) -> Tensor:
        """The residual stream (K, B, T, d) with positions added, or as it is."""
        ...

    def rotate(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        """Queries and keys (N, heads, T, head width) as attention shall see them."""
        ...


class Head(Protocol):
    """How the final hidden state becomes logits."""

    def specs(self, sizes: Sizes) -> tuple[ParameterSpec, ...]:
        """Parameters of its own."""
        ...

    def weight(self, params: Params) -> Tensor:
        """(K, V, d) rows that the hidden state is compared with."""
        ...


@dataclass(frozen=True)
class Routing:
    """Which optimiser updates which role, and with what constants.

    Args:
        muon: roles whose matrices Muon updates; every other role goes to AdamW.
        muon_lr_ratio: Muon's learning rate over the base learning rate.
        momentum: Muon's momentum (Nesterov).
        newton_schulz_steps: iterations of the orthogonalisation.
        weight_decay: decoupled decay of the AdamW roles; Muon matrices have none.
        betas, eps: AdamW's.
    """

    muon: tuple[Role, ...] = ()
    muon_lr_ratio: float = 50.0
    momentum: float = 0.95
    newton_schulz_steps: int = 5
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8


@dataclass(frozen=True)
class Stage:
    """One stage of the chain.

    Args:
        name: what a configuration calls it.
        parent: the stage it builds on, None for the first.
        change: one line that says what is new.
        positions, head, routing: the components.
        embedding_norm: RMSNorm right after the token embedding.
    """

    name: str
    parent: str | None
    change: str
    positions: Positions
    head: Head
    routing: Routing
    embedding_norm: bool = False

    def then(self, name: str, change: str, **components: Any) -> Stage:
        """The next stage: this one with the given components exchanged."""
        return replace(self, name=name, parent=self.name, change=change, **components)

    def differs_from(self, other: Stage) -> tuple[str, ...]:
        """Names of the components in which two stages differ."""
        components = [f.name for f in fields(self) if f.name not in ("name", "parent", "change")]
        return tuple(c for c in components if getattr(self, c) != getattr(other, c))
