"""The protocol of a model that can be measured: sites, matrices and losses.

Toy transformers and language models implement the same protocol, so that one pipeline measures both.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Protocol

from torch import Tensor

from spectra import Factors

# Names that every model has: the token embedding (site and matrix), the input of the head, and the head.
EMBED, FINAL, HEAD = "embed", "final", "head"

# The input of every linear map of a block, by the ending of its matrix's name.
_INPUT_OF = {
    "attn.q": "attn.in",
    "attn.k": "attn.in",
    "attn.v": "attn.in",
    "attn.o": "attn.mix",
    "mlp.gate": "mlp.in",
    "mlp.fc": "mlp.in",
    "mlp.proj": "mlp.act",
}


class Subject(Protocol):
    """A model at one point of its training.

    Sequences are (n, T+1) integer tokens: T inputs, and the targets one position later.
    """

    @property
    def step(self) -> int:
        """Number of optimiser steps so far."""
        ...

    @property
    def tokens(self) -> int | None:
        """Number of training tokens so far; None if the checkpoint does not record it."""
        ...

    @property
    def about(self) -> Mapping[str, Any]:
        """What is known of its origin (kind, path, stage, seed, …), as plain values."""
        ...

    @property
    def longest(self) -> int | None:
        """Longest input; None where the model has no limit."""
        ...

    @property
    def sites(self) -> tuple[str, ...]:
        """Sites of the residual stream in the order of the forward pass; the last is "final", the input of the head."""
        ...

    @property
    def matrices(self) -> Mapping[str, Tensor]:
        """Weight matrices (rows, cols) by name, with "embed" and, unless it is tied, "head"."""
        ...

    @property
    def with_gradients(self) -> tuple[str, ...]:
        """Names of the matrices whose per-sample gradients are products of factors: not tables, head and experts."""
        ...

    @property
    def parameters(self) -> Mapping[str, Tensor]:
        """All weights by the names of its own code; a tied one is there once."""
        ...

    @property
    def input_sites(self) -> Mapping[str, str]:
        """Matrix → site whose activation x it multiplies in y = Wx + b; matrices that are looked up have none.

        `activations` accepts these sites too. Matrices with the same input have the same site (q, k and v).
        """
        ...

    @property
    def head(self) -> Tensor:
        """Rows (V, d) that the final state is compared with; the embedding itself if they are tied."""
        ...

    def activations(self, sequences: Tensor, sites: Sequence[str]) -> Iterator[Mapping[str, Tensor]]:
        """Yield activations (b, T, width) at `sites` or `input_sites`, in batches in the order of the sequences."""
        ...

    def last_states(self, sequences: Tensor) -> Tensor:
        """Return the final states (n, width) of the last position."""
        ...

    def gradient_factors(self, sequences: Tensor, matrices: Sequence[str]) -> Mapping[str, Factors]:
        """Return factors of ∂L_m/∂W for every sequence m, L_m its mean cross-entropy, from one backward pass."""
        ...

    def head_losses(self, states: Tensor, targets: Tensor) -> Tensor:
        """Return cross-entropies (n,) in nats of final states (n, d) against targets (n,)."""
        ...

    def head_log_probs(self, states: Tensor) -> Tensor:
        """Return log-probabilities (n, V) in nats, float32 or wider, of the next tokens after final states (n, d)."""
        ...

    def losses(self, sequences: Tensor) -> Tensor:
        """Return cross-entropies (n, T) in nats at every position."""
        ...

    def log_probs(self, sequences: Tensor) -> Tensor:
        """Return log-probabilities (n, T, V) in nats of every next token.

        The model works in batches of bounded memory; the result itself has n·T·V entries, so choose n by that.
        """
        ...

    def with_matrix(self, name: str, value: Tensor) -> Subject:
        """Return a copy with one matrix replaced; the original does not change."""
        ...

    def without_blocks(self, blocks: Collection[int]) -> Subject:
        """Return the model without some blocks: the residual stream passes them unchanged.

        Weights are shared, and the original does not change. The other blocks keep their numbers in the names of sites
        and matrices.

        Args:
            blocks: numbers of blocks as in the sites "blocks.0", …; all of them leave embedding, last norm and head.

        Raises:
            MeasureError: numbers that are no blocks or repeated, or a model in which the removal of a block does not
                mean that the stream passes it.
        """
        ...


def input_site(matrix: str) -> str:
    """Return the name of the site that a matrix multiplies.

    >>> input_site("blocks.0.attn.q"), input_site("head"), input_site("up")
    ('blocks.0.attn.in', 'final', 'up.in')
    """
    if matrix == HEAD:
        return FINAL
    ending = next((e for e in _INPUT_OF if matrix.endswith(e)), None)
    return f"{matrix}.in" if ending is None else matrix.removesuffix(ending) + _INPUT_OF[ending]
