"""Several models of one architecture that are measured together: every tensor has a leading member axis K.

Measurements are written for such a stack. A single model of any kind is a stack of one; members of an ensemble of toys
run through their network in one pass (`sims.models.transformer.TransformerStack`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from sims.models.subject import Subject


class GradientFactors(NamedTuple):
    """Hold per-sample gradients Σ_t d_t^m (a_t^m)ᵀ: a (K, M, T, in) and d (K, M, T, out)."""

    a: Tensor
    d: Tensor


class Stack(Protocol):
    """K models of one architecture at one step. The methods are those of `Subject`, with a leading member axis."""

    @property
    def members(self) -> Sequence[Subject]:
        """The models one by one."""
        ...

    @property
    def matrices(self) -> Mapping[str, Tensor]:
        """Weight matrices (K, rows, cols) by name."""
        ...

    def activations(self, sequences: Tensor, sites: Sequence[str]) -> Iterator[Mapping[str, Tensor]]:
        """Yield activations (K, b, T, width), in batches in the order of the sequences (n, T+1)."""
        ...

    def last_states(self, sequences: Tensor) -> Tensor:
        """Return the final states (K, n, width) of the last position of sequences (n, T+1)."""
        ...

    def gradient_factors(self, sequences: Tensor, matrices: Sequence[str]) -> Mapping[str, GradientFactors]:
        """Return factors of ∂L_m/∂W for every sequence m (M, T+1)."""
        ...

    def head_losses(self, states: Tensor, targets: Tensor) -> Tensor:
        """Return cross-entropies (K, n) in nats of final states (K, n, width) against targets (n,)."""
        ...

    def edited(self, name: str, values: Tensor) -> Stack:
        """Return K·E models: E copies of each in turn, with a matrix replaced by values (K, E, rows, cols).

        The originals do not change.
        """
        ...


@dataclass(frozen=True, eq=False)
class SubjectStack:
    """Any models as a stack: each runs its own passes."""

    members: Sequence[Subject]

    @property
    def matrices(self) -> Mapping[str, Tensor]:
        """Weight matrices (K, rows, cols) by name."""
        return self._matrices

    @cached_property
    def _matrices(self) -> Mapping[str, Tensor]:
        each = [member.matrices for member in self.members]
        return {name: _joined([own[name] for own in each]) for name in each[0]}

    def activations(self, sequences: Tensor, sites: Sequence[str]) -> Iterator[Mapping[str, Tensor]]:
        """Yield activations (K, b, T, width), in batches."""
        for batches in zip(*(m.activations(sequences, sites) for m in self.members), strict=True):
            yield {site: _joined([own[site] for own in batches]) for site in batches[0]}

    def last_states(self, sequences: Tensor) -> Tensor:
        """Return the final states (K, n, width) of the last position."""
        return _joined([member.last_states(sequences) for member in self.members])

    def gradient_factors(self, sequences: Tensor, matrices: Sequence[str]) -> Mapping[str, GradientFactors]:
        """Return factors of the per-sample gradients of linear maps."""
        each = [member.gradient_factors(sequences, matrices) for member in self.members]
        found = {}
        for name in matrices:
            sides = [(own[name].a, own[name].d) for own in each]
            dense = [d for _, d in sides if isinstance(d, Tensor)]
            found[name] = GradientFactors(_joined([a for a, _ in sides]), _joined(dense))
        return found

    def head_losses(self, states: Tensor, targets: Tensor) -> Tensor:
        """Return cross-entropies (K, n) in nats."""
        return _joined([m.head_losses(own, targets) for m, own in zip(self.members, states, strict=True)])

    def edited(self, name: str, values: Tensor) -> SubjectStack:
        """Return K·E copies with a matrix replaced."""
        pairs = zip(self.members, values, strict=True)
        return SubjectStack([member.with_matrix(name, value) for member, own in pairs for value in own])


def _joined(tensors: Sequence[Tensor]) -> Tensor:
    """Stack tensors of several members; that of a single one is only viewed."""
    return tensors[0][None] if len(tensors) == 1 else torch.stack(list(tensors))
