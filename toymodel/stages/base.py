"""What a stage is made of, and what it can change.

A stage is data: a choice of components for one and the same transformer. It names its parent and only what it
changes, so the chain of files reads as the chain of the experiment.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

from toymodel.parameter_spec import ParameterSpec, Role
from toymodel.sizes import Sizes

if TYPE_CHECKING:
    from torch import Tensor

Params: TypeAlias = "Mapping[str, Tensor]"


class Positions(Protocol):
    """Tell a transformer the position of a token."""

    def specs(self, sizes: Sizes) -> tuple[ParameterSpec, ...]:
        """Return the parameters that this component adds."""
        ...

    def embed(self, params: Params, x: Tensor) -> Tensor:
        """Return the residual stream (K, B, T, d), with positions added or unchanged."""
        ...

    def rotate(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        """Return queries and keys (N, heads, T, head width) as attention compares them."""
        ...


class Head(Protocol):
    """Turn the final hidden state into logits."""

    def specs(self, sizes: Sizes) -> tuple[ParameterSpec, ...]:
        """Return the parameters that this component adds."""
        ...

    def weight(self, params: Params) -> Tensor:
        """Return the rows (K, V, d) that the hidden state is multiplied with."""
        ...


class Stream(Protocol):
    """Combine what a block reads from the residual stream with outputs of earlier blocks."""

    def specs(self, sizes: Sizes) -> tuple[ParameterSpec, ...]:
        """Return the parameters that this component adds."""
        ...

    def enter(self, sizes: Sizes, params: Params, trail: Sequence[Tensor]) -> Tensor:
        """Return the input (K, B, T, d) of the next block.

        Args:
            sizes: every shape.
            params: (K, …) tensors by name.
            trail: the embedded tokens x₀, then the output of every block so far.
        """
        ...


class Values(Protocol):
    """Mix the values that attention averages with other vectors."""

    def specs(self, sizes: Sizes) -> tuple[ParameterSpec, ...]:
        """Return the parameters that this component adds."""
        ...

    def mix(self, sizes: Sizes, params: Params, tokens: Tensor, values: Sequence[Tensor]) -> Tensor:
        """Return the values (K, B, T, d) that attention averages.

        Args:
            sizes: every shape.
            params: (K, …) tensors by name.
            tokens: (K, B, T) inputs of the model.
            values: outputs (K, B, T, d) of the value matrices of all blocks so far; the last is the present one.
        """
        ...


class Window(Protocol):
    """Limit how far back attention sees."""

    def size(self, layer: int, progress: float) -> int:
        """Return the number of positions that a query of this block sees, itself included.

        Args:
            layer: index of the block.
            progress: share of the configured steps that are done, in [0, 1].
        """
        ...


@dataclass(frozen=True)
class Routing:
    """Assign roles of parameters to optimisers, with their constants.

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
    """Describe one stage of the chain.

    Args:
        name: what a configuration calls it.
        parent: the stage it builds on, None for the first.
        change: one line that says what is new.
        positions, head, routing: the components.
        embedding_norm: RMSNorm right after the token embedding.
        stream, values, window: further components; None gives a block the output of the one before, unmixed
            values and all earlier positions.
        attention_scale: factor of the scores q·k; None is 1/√(head width).
        softcap: bound c of the logits z ← c·tanh(z/c); None for none.
        network: "transformer", or "mlp", which reads only the head and the routing of a stage.

    >>> from toymodel.stages import stage
    >>> capped = stage("rope").then("capped_rope", "logits within ±10", softcap=10.0)
    >>> capped.parent, capped.differs_from(stage("rope"))
    ('rope', ('softcap',))
    """

    name: str
    parent: str | None
    change: str
    positions: Positions
    head: Head
    routing: Routing
    embedding_norm: bool = False
    stream: Stream | None = None
    values: Values | None = None
    window: Window | None = None
    attention_scale: float | None = None
    softcap: float | None = None
    network: Literal["transformer", "mlp"] = "transformer"

    def then(self, name: str, change: str, **components: Any) -> Stage:
        """Return the next stage: this one with the given components exchanged."""
        return replace(self, name=name, parent=self.name, change=change, **components)

    def moves(self, layers: int) -> bool:
        """Return whether the attention window of one of that many blocks changes during training."""
        window = self.window
        return window is not None and any(
            window.size(layer, 0.0) != window.size(layer, 1.0) for layer in range(layers)
        )

    def sites(self, layers: int) -> tuple[str, ...]:
        """Return the sites between the layers of a network of that many blocks, in the order of the forward pass.

        >>> from toymodel.stages import stage
        >>> stage("rope").sites(2), stage("mlp").sites(2)
        (('embed', 'blocks.0', 'blocks.1', 'final'), ('embed', 'hidden', 'final'))
        """
        inner = ["hidden"] if self.network == "mlp" else [f"blocks.{layer}" for layer in range(layers)]
        return ("embed", *inner, "final")

    def differs_from(self, other: Stage) -> tuple[str, ...]:
        """Return the names of the components in which two stages differ."""
        components = [f.name for f in fields(self) if f.name not in ("name", "parent", "change")]
        return tuple(c for c in components if getattr(self, c) != getattr(other, c))
