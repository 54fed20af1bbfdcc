"""The transformer of this package as a subject: a toy, or a language model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from sims.models.subject import EMBED, HEAD, input_site
from sims.system.errors import MeasureError
from spectra import Factors
from spectra.gradients import Inputs
from toymodel.cross_entropy import position_losses, softcap
from toymodel.ensemble import sequences_at_once
from toymodel.sizes import Sizes
from toymodel.stages import stage
from toymodel.transformer import FINAL, Transformer, matrices

# Most logits that exist at once.
LOGITS = 2**26

# Linear maps of a block, by the ending of the matrix's name.
_LINEAR = ("attn.q", "attn.k", "attn.v", "attn.o", "mlp.fc", "mlp.proj")
# Fields of a run's configuration that describe a subject, where the configuration has them.
_ABOUT = ("tier", "stage", "lr", "seed", "batch_size")


class Described(Protocol):
    """The fields of a run's configuration that a subject needs."""

    @property
    def stage(self) -> str:
        """Name of a stage."""
        ...

    @property
    def sizes(self) -> Sizes:
        """Sizes that fix every shape."""
        ...

    @property
    def steps(self) -> int:
        """Planned optimiser steps; schedules of a stage (attention windows) depend on their share."""
        ...

    @property
    def tokens_per_step(self) -> int:
        """Target tokens of one step."""
        ...


@dataclass(frozen=True, eq=False)
class TransformerSubject:
    """A transformer of one of the stages: an ensemble member, a checkpoint or a language model.

    Args:
        config: of its run.
        params: its parameters (1, *shape) by name, on the device where it is measured.
        step: optimiser steps so far.
    """

    config: Described
    params: Mapping[str, Tensor]
    step: int

    @classmethod
    def of_weights(
        cls, config: Described, weights: Mapping[str, Tensor], step: int, device: str = "cpu"
    ) -> TransformerSubject:
        """Return the subject of one member's weights (*shape)."""
        return cls(config, {name: w.detach().to(device).unsqueeze(0) for name, w in weights.items()}, step)

    @property
    def transformer(self) -> Transformer:
        """The architecture at this step."""
        whole = Transformer(stage(self.config.stage), self.config.sizes)
        return whole.at(self.step, self.config.steps)

    @property
    def tokens(self) -> int:
        """Training tokens so far."""
        return self.step * self.config.tokens_per_step

    @property
    def about(self) -> dict[str, Any]:
        """What the configuration says of the run, as plain values."""
        known = {name: getattr(self.config, name) for name in _ABOUT if hasattr(self.config, name)}
        return {**known, "planned_steps": self.config.steps, "heads": self.config.sizes.heads}

    @property
    def longest(self) -> int:
        """Longest input: that of training."""
        return self.config.sizes.length

    @property
    def sites(self) -> tuple[str, ...]:
        """The residual stream after the embedding and after every block, and the input of the head."""
        return (EMBED, *(f"blocks.{layer}" for layer in range(self.config.sizes.layers)), FINAL)

    @property
    def matrices(self) -> Mapping[str, Tensor]:
        """Weight matrices (rows, cols)."""
        return {name: value[0] for name, value in matrices(self.params).items()}

    @property
    def parameters(self) -> Mapping[str, Tensor]:
        """All weights (*shape) by name."""
        return {name: value[0] for name, value in self.params.items()}

    @property
    def input_sites(self) -> Mapping[str, str]:
        """Matrix → site that it multiplies; tables that are looked up have none."""
        return {name: input_site(name) for name in self.matrices if name == HEAD or name.endswith(_LINEAR)}

    @property
    def head(self) -> Tensor:
        """Rows (V, d) of the head."""
        return self.transformer.stage.head.weight(self.params)[0]

    def activations(self, sequences: Tensor, sites: Sequence[str]) -> Iterator[Mapping[str, Tensor]]:
        """Yield activations (b, T, width) at `sites` or `input_sites`, in batches.

        Raises:
            MeasureError: unknown sites.
        """
        known = dict.fromkeys((*self.sites, *self.input_sites.values()))
        if unknown := [s for s in sites if s not in known]:
            raise MeasureError(f"unknown sites {', '.join(unknown)}; this model has {', '.join(known)}")
        for batch in self._batches(sequences):
            kept: dict[str, Tensor] = {}

            def keep(site: str, x: Tensor, kept: dict[str, Tensor] = kept) -> Tensor:
                if site in sites:
                    kept[site] = x[0]
                return x

            with torch.no_grad():
                self.transformer.hidden(self.params, batch[None, :, :-1].long(), keep)
            yield kept

    @torch.no_grad()
    def last_states(self, sequences: Tensor) -> Tensor:
        """Return the final states (n, width) of the last position."""
        parts = [
            self.transformer.hidden(self.params, batch[None, :, :-1].long(), last=True)[0, :, -1]
            for batch in self._batches(sequences)
        ]
        return torch.cat(parts)

    def gradient_factors(self, sequences: Tensor, matrices: Sequence[str]) -> Mapping[str, Factors]:
        """Return factors of the per-sample gradients; q, k and v of one block share their inputs.

        Raises:
            MeasureError: a matrix that is unknown, the embedding or the head.
        """
        known = [n for n in self.matrices if n.endswith(_LINEAR)]
        unknown = [n for n in matrices if n not in known]
        if unknown:
            raise MeasureError(
                f"no per-sample gradients of {', '.join(unknown)}; this model has {', '.join(known)}"
            )
        seen: dict[str, Tensor] = {}

        def keep(site: str, x: Tensor) -> Tensor:
            # The head's own gradients are formed eagerly; a leaf at the embedding makes autograd record the rest.
            seen[site] = x.requires_grad_() if site == EMBED else x
            return seen[site]

        params = {name: p.detach() for name, p in self.params.items()}
        loss = self.transformer.losses(params, sequences[None].long(), keep)
        outputs = [seen[name] for name in matrices]
        # The loss is a mean over M sequences; the gradient of one sample's loss is M times its share of it.
        grads = torch.autograd.grad(loss.sum() * len(sequences), outputs)
        inputs: dict[str, Inputs] = {}
        factors = {}
        for name, grad in zip(matrices, grads, strict=True):
            source = input_site(name)
            if source not in inputs:
                inputs[source] = Inputs(seen[source][0].detach())
            factors[name] = Factors(inputs[source], grad[0])
        return factors

    @torch.no_grad()
    def head_losses(self, states: Tensor, targets: Tensor) -> Tensor:
        """Return cross-entropies (n,) in nats of final states (n, d) against targets (n,)."""
        return position_losses(softcap(states @ self.head.T, self.transformer.stage.softcap), targets)

    def losses(self, sequences: Tensor) -> Tensor:
        """Return cross-entropies (n, T) in nats."""
        return torch.cat(
            [position_losses(logits, batch[:, 1:].long()) for batch, logits in self._logits(sequences)]
        )

    def log_probs(self, sequences: Tensor) -> Tensor:
        """Return log-probabilities (n, T, V) in nats of every next token."""
        n, positions = len(sequences), sequences.shape[1] - 1
        found = self.head.new_empty(n, positions, self.config.sizes.vocab)
        start = 0
        for batch, logits in self._logits(sequences):
            found[start : start + len(batch)] = logits.log_softmax(dim=-1)
            start += len(batch)
        return found

    def _logits(self, sequences: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield batches (b, T+1) of the sequences with their logits (b, T, V), at most LOGITS at once."""
        most = LOGITS // ((sequences.shape[1] - 1) * self.config.sizes.vocab)
        for batch in self._batches(sequences, most):
            with torch.no_grad():
                hidden = self.transformer.hidden(self.params, batch[None, :, :-1].long())
                logits = self.transformer.logits(self.params, hidden)[0]
            yield batch, logits

    def _batches(self, sequences: Tensor, most: int | None = None) -> tuple[Tensor, ...]:
        """Split the sequences into batches of a fast size, and of at most `most`."""
        chunk = sequences_at_once(sequences.shape[1] - 1, sequences.device)
        return sequences.split(chunk if most is None else max(1, min(chunk, most)))

    def with_matrix(self, name: str, value: Tensor) -> TransformerSubject:
        """Return a copy with one matrix replaced; replacing a tied embedding replaces the head too.

        Raises:
            MeasureError: unknown matrix, or a value of another shape.
        """
        if name not in self.matrices or self.matrices[name].shape != value.shape:
            raise MeasureError(
                f"{name} of shape {tuple(value.shape)} is not a replaceable matrix of this model"
            )
        if name in self.params:
            return replace(self, params={**self.params, name: value.to(self.params[name])[None]})
        stack, part = name[:-1] + "qkv", "qkv".index(name[-1])
        stacked = self.params[stack].clone()
        stacked[0, part] = value
        return replace(self, params={**self.params, stack: stacked})
