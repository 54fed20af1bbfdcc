"""Measure any `torch.nn.Module` by naming its sites (`Layout`).

Activations are outputs of modules, and inputs of linear ones, read through hooks; gradients of a matrix come as the
factors of `spectra.capture_factors`. The model must take (b, T) tokens and have a linear head. The adapters of known
formats are layouts for this class.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sims.models.block_list import chosen_blocks, numbered
from sims.models.cuts import whole_matrix
from sims.models.factors import factors_of
from sims.models.forward_pass import activations_at
from sims.models.layout import Layout, Matrices, check_module, unwrapped, with_tensors
from sims.models.passage import BlockChain, final_states
from sims.models.subject import FINAL
from sims.system.errors import MeasureError
from spectra import Factors, capture_factors
from toymodel.cross_entropy import head_cross_entropy, position_losses, softcap

# Positions that go through the model at once, and rows that go through the head.
BATCH_POSITIONS = 16_384
HEAD_ROWS = 1_024


_INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.uint16, torch.uint32)


@dataclass(frozen=True, eq=False)
class ModuleSubject:
    """A model that is measured through hooks, at one point of its training. Create it with `ModuleSubject.of`.

    Biases have no matrix and no factors: gradients are those of the weights only.

    Args:
        model: in eval mode, all parameters float32 and frozen.
        layout: where its sites and matrices are.
        step: optimiser steps so far.
        tokens: training tokens so far, None if unknown.
        about: what is known of its origin, as plain values.
    """

    model: nn.Module
    layout: Layout
    step: int
    tokens: int | None = None
    about: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        model: nn.Module,
        layout: Layout,
        step: int,
        tokens: int | None = None,
        device: torch.device | str | None = None,
        about: Mapping[str, Any] | None = None,
    ) -> ModuleSubject:
        """Return the subject of a model; the model keeps its mode, requires_grad and dtype.

        Args:
            model, layout, step, tokens, about: as above; weights that are already float32 on the device are shared, so
                further training of the model changes the subject. Wrappers (torch.compile, data parallel) are taken
                off.
            device: where it is measured; by default where the parameters are.

        Raises:
            MeasureError: not a module, weights that are not dense real floating-point tensors, or a layout that does
                not fit the model.
        """
        check_module(model)
        model = unwrapped(model)
        layout.check(model)

        def frozen(tensor: Tensor) -> Tensor:
            dtype = torch.float32 if tensor.is_floating_point() else tensor.dtype
            moved = tensor.detach().to(device or tensor.device, dtype)
            return nn.Parameter(moved, requires_grad=False) if isinstance(tensor, nn.Parameter) else moved

        return cls(with_tensors(model, frozen).eval(), layout, step, tokens, dict(about or {}))

    @property
    def longest(self) -> int | None:
        """Longest input; None where the layout has no limit."""
        return self.layout.length

    @property
    def sites(self) -> tuple[str, ...]:
        """Sites of the layout, in the order of the forward pass."""
        return tuple(self.layout.sites)

    @property
    def matrices(self) -> Mapping[str, Tensor]:
        """Weight matrices (rows, cols), cut out of their modules' weights when they are read."""
        return Matrices(self.model, self.layout.matrices)

    @property
    def parameters(self) -> Mapping[str, Tensor]:
        """All weights by their names in the module; a tied one is there once."""
        return dict(self.model.named_parameters())

    @property
    def with_gradients(self) -> tuple[str, ...]:
        """Names of the matrices with per-sample gradients: not tables, head, routers and experts."""
        return tuple(n for n, place in self.layout.matrices.items() if place.has_factors(n, self.model))

    @property
    def input_sites(self) -> Mapping[str, str]:
        """Matrix → site that it multiplies; an embedding has none."""
        return self.layout.input_sites(self.model)

    @property
    def head(self) -> Tensor:
        """Rows (V, d) that the final state is compared with."""
        return self._head.weight

    @property
    def _head(self) -> nn.Linear:
        head = self.model.get_submodule(self.layout.head)
        assert isinstance(head, nn.Linear)  # Layout.check
        return head

    def activations(self, sequences: Tensor, sites: Sequence[str]) -> Iterator[Mapping[str, Tensor]]:
        """Yield activations (b, T, width) at `sites` or `input_sites`, in batches.

        Raises:
            MeasureError: unknown sites, sequences that do not fit the model, or matrices of one input site that do not
                have the same input.
        """
        _refuse_unknown("sites", sites, self.sites, self.input_sites.values())
        for batch in self._batches(sequences):
            with torch.no_grad():
                seen = activations_at(self.model, self.layout, batch[:, :-1], sites)
            yield seen

    def last_states(self, sequences: Tensor) -> Tensor:
        """Return the final states (n, width) of the last position."""
        # A view would keep the states of all positions in memory until the last batch.
        return torch.cat([batch[FINAL][:, -1].clone() for batch in self.activations(sequences, (FINAL,))])

    def gradient_factors(self, sequences: Tensor, matrices: Sequence[str]) -> Mapping[str, Factors]:
        """Return factors of ∂L_m/∂W for every sequence m, from one backward pass.

        Parts of a fused weight share their inputs. All sequences are processed at once: pass as many as fit in memory.

        Raises:
            MeasureError: unknown matrices, the embedding or the head (whose gradient is not a product of two factors
                if they are tied), a weight that is used more than once, or sequences that do not fit the model.
        """
        _refuse_unknown("matrices with per-sample gradients", matrices, self.with_gradients)
        sequences = self._checked(sequences)
        modules = dict.fromkeys(self.layout.matrices[name].module for name in matrices)
        with torch.enable_grad(), capture_factors(self.model, list(modules)) as capture:
            # After the capture's own hooks, which then see (M, T, out).
            states = activations_at(self.model, self.layout, sequences[:, :-1], (FINAL,))[FINAL]
            terms = capture.factors(self._sequence_losses(states, sequences[:, 1:]))
        return factors_of(self.layout.matrices, matrices, terms)

    def _sequence_losses(self, states: Tensor, targets: Tensor) -> Tensor:
        """Return mean cross-entropies (M,) of states (M, T, width); logits exist for one sequence at a time."""
        weight, bias = self._head.weight, self._head.bias
        if bias is not None:
            # x Wᵀ + b is (x, 1) (W, b)ᵀ.
            states, weight = F.pad(states, (0, 1), value=1.0), torch.cat((weight, bias[:, None]), dim=1)
        cap, scale = self.layout.softcap, self.layout.scale
        states = states if scale == 1.0 else states * scale
        return torch.cat(
            [
                head_cross_entropy(h[None], weight[None], y[None], cap)
                for h, y in zip(states, targets, strict=True)
            ]
        )

    @torch.no_grad()
    def head_losses(self, states: Tensor, targets: Tensor) -> Tensor:
        """Return cross-entropies (n,) in nats of final states (n, width) against targets (n,)."""
        parts = zip(self._logits(states), targets.to(states.device).split(HEAD_ROWS), strict=True)
        return torch.cat([position_losses(logits, y) for logits, y in parts])

    @torch.no_grad()
    def head_log_probs(self, states: Tensor) -> Tensor:
        """Return log-probabilities (n, V) in nats of the next tokens after final states (n, width)."""
        parts = [
            logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(dim=-1)
            for logits in self._logits(states)
        ]
        return torch.cat(parts)

    def losses(self, sequences: Tensor) -> Tensor:
        """Return cross-entropies (n, T) in nats."""
        sequences = self._checked(sequences)
        targets = sequences[:, 1:].split(self._batch_size(sequences))
        parts = [
            self.head_losses(batch[FINAL].flatten(0, 1), y.flatten()).view(y.shape)
            for batch, y in zip(self.activations(sequences, (FINAL,)), targets, strict=True)
        ]
        return torch.cat(parts)

    @torch.no_grad()
    def log_probs(self, sequences: Tensor) -> Tensor:
        """Return log-probabilities (n, T, V) in nats of every next token."""
        sequences = self._checked(sequences)
        n, positions = len(sequences), sequences.shape[1] - 1
        found = self.head.new_empty(n * positions, len(self.head))
        start = 0
        for batch in self.activations(sequences, (FINAL,)):
            for logits in self._logits(batch[FINAL].flatten(0, 1)):
                found[start : start + len(logits)] = logits.log_softmax(dim=-1)
                start += len(logits)
        return found.view(n, positions, -1)

    def _logits(self, states: Tensor) -> Iterator[Tensor]:
        """Yield logits (≤ HEAD_ROWS, V) of final states (n, width)."""
        for h in states.split(HEAD_ROWS):
            logits = self._head(h)
            yield softcap(
                logits if self.layout.scale == 1.0 else logits * self.layout.scale, self.layout.softcap
            )

    def with_matrix(self, name: str, value: Tensor) -> ModuleSubject:
        """Return a copy with one matrix replaced; a tied weight changes wherever it is used.

        Raises:
            MeasureError: unknown matrix, or a value of another shape.
        """
        own = self.matrices
        if name not in own or own[name].shape != value.shape:
            known = f"it is {tuple(own[name].shape)}" if name in own else f"this model has {', '.join(own)}"
            raise MeasureError(f"{name} of shape {tuple(value.shape)} is no matrix of this model; {known}")
        projection = self.layout.matrices[name]
        old = projection.weight(self.model)
        new = old.detach().clone()
        whole = whole_matrix(new, projection.index, projection.turned)
        whole[slice(None) if projection.rows is None else projection.rows] = value.to(new)
        changed = nn.Parameter(new, requires_grad=False)
        return replace(self, model=with_tensors(self.model, lambda t: changed if t is old else t))

    def without_blocks(self, blocks: Collection[int]) -> ModuleSubject:
        """Return the model without some blocks, on the same weights (see `Subject.without_blocks`).

        The structure is copied, and a `Passage` takes the place of each removed block. The model is run on a few tokens
        first, to see that its blocks form a chain.

        Args:
            blocks: numbers of blocks; the layout must name the modules of all blocks as sites "blocks.0", ….

        Raises:
            MeasureError: numbers that are no blocks or repeated, or a model whose blocks form no chain.
        """
        chosen = chosen_blocks(blocks, numbered(self.sites))
        if not chosen:
            return self
        chain = self._chain
        layout = self.layout.without([chain.places[block] for block in chosen])
        return replace(self, model=chain.without(chosen), layout=layout)

    @cached_property
    def _chain(self) -> BlockChain:
        return BlockChain.of(self.model, self.layout.sites, partial(final_states, self.layout))

    def _batches(self, sequences: Tensor) -> Iterator[Tensor]:
        sequences = self._checked(sequences)
        yield from sequences.split(self._batch_size(sequences))

    def _batch_size(self, sequences: Tensor) -> int:
        return max(1, BATCH_POSITIONS // sequences.shape[1])

    def _checked(self, sequences: Tensor) -> Tensor:
        """Return sequences (n, T+1) as int64 on the device of the model, or refuse them."""
        if not isinstance(sequences, Tensor):
            raise MeasureError(
                f"sequences are a {type(sequences).__name__}; they must be a torch tensor (n, T+1) of integers"
            )
        ragged = sequences.is_nested or sequences.layout != torch.strided or sequences.is_meta
        shape = () if sequences.is_nested else tuple(sequences.shape)
        if ragged or len(shape) != 2 or 0 in shape or shape[1] < 2 or sequences.dtype not in _INTEGERS:
            kind = (
                f"nested, sparse or meta ({sequences.layout}, {sequences.device})"
                if ragged
                else f"of shape {shape}"
            )
            raise MeasureError(
                f"sequences are {kind} and dtype {sequences.dtype}; they must be (n, T+1) integers, dense and none "
                "empty: cut them to one length"
            )
        positions, vocabulary = sequences.shape[1] - 1, len(self.head)
        if self.layout.length is not None and positions > self.layout.length:
            raise MeasureError(
                f"sequences of {positions} inputs are longer than the {self.layout.length} positions of this model; "
                "cut them"
            )
        sequences = sequences.to(self.head.device, torch.int64)
        if int(sequences.min()) < 0 or int(sequences.max()) >= vocabulary:
            raise MeasureError(
                f"tokens lie in {int(sequences.min())}..{int(sequences.max())}; this model knows 0..{vocabulary - 1}: "
                "the data are of another vocabulary"
            )
        return sequences


def _refuse_unknown(what: str, asked: Sequence[str], known: Sequence[str], more: Iterable[str] = ()) -> None:
    names = list(dict.fromkeys((*known, *more)))
    unknown = [name for name in asked if name not in names]
    if unknown or not asked:
        raise MeasureError(
            f"unknown {what}: {', '.join(unknown) or 'none named'}; this model has {', '.join(names)}"
        )
