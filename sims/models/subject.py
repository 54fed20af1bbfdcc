"""What can be measured: any model seen through sites, matrices and losses.

The toy transformer is the first adapter; a language model goes through the same protocol, so that "the same
pipeline" is literal.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from torch import Tensor

from spectra import Factors


class Subject(Protocol):
    """A model at one point of its training.

    Sequences are (n, T+1) integer tokens: inputs and, one further, targets.
    """

    @property
    def step(self) -> int:
        """Optimiser steps so far."""
        ...

    @property
    def tokens(self) -> int | None:
        """Training tokens so far; None for a foreign checkpoint that does not say."""
        ...

    @property
    def longest(self) -> int | None:
        """Inputs that a sequence has at most; None where the model has no limit."""
        ...

    @property
    def sites(self) -> tuple[str, ...]:
        """Names of the places where activations can be taken; "final" is what the head reads."""
        ...

    @property
    def matrices(self) -> Mapping[str, Tensor]:
        """Every weight matrix (rows, cols) by name; "embed" and, where it is not tied, "head" among them."""
        ...

    @property
    def head(self) -> Tensor:
        """(V, d) rows that the final state is compared with; the embedding itself where they are tied."""
        ...

    def activations(self, sequences: Tensor, sites: Sequence[str]) -> Iterator[Mapping[str, Tensor]]:
        """Activations (b, T, width) at the sites, batch by batch in the order of the sequences."""
        ...

    def last_states(self, sequences: Tensor) -> Tensor:
        """(n, width) final states of the last position: what the head reads there."""
        ...

    def gradient_factors(self, sequences: Tensor, matrices: Sequence[str]) -> Mapping[str, Factors]:
        """Factors of ∂L_m/∂W for every sequence m, L_m its mean cross-entropy, from one backward pass."""
        ...

    def head_losses(self, states: Tensor, targets: Tensor) -> Tensor:
        """(n,) cross-entropies in nats of final states (n, d) against targets (n,)."""
        ...

    def losses(self, sequences: Tensor) -> Tensor:
        """(n, T) cross-entropies in nats, position by position."""
        ...

    def with_matrix(self, name: str, value: Tensor) -> Subject:
        """The same model with one matrix replaced; this one stays as it is."""
        ...
