"""The transformer of the stages as a subject: a toy, or a language model of this package."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from sims.system.errors import MeasureError
from spectra import Factors
from spectra.gradients import Inputs
from toymodel.cross_entropy import position_losses, softcap
from toymodel.ensemble import sequences_at_once
from toymodel.sizes import Sizes
from toymodel.stages import stage
from toymodel.transformer import FINAL, Transformer, matrices

# Logits that there may be at once.
LOGITS = 2**26

# The input of every linear map, by the ending of its matrix's name.
_INPUT_OF = {
    "attn.q": "attn.in",
    "attn.k": "attn.in",
    "attn.v": "attn.in",
    "attn.o": "attn.mix",
    "mlp.fc": "mlp.in",
    "mlp.proj": "mlp.act",
}


class Described(Protocol):
    """What a subject asks of the configuration of its run."""

    @property
    def stage(self) -> str:
        """Name of a stage."""
        ...

    @property
    def sizes(self) -> Sizes:
        """Everything that fixes a shape."""
        ...

    @property
    def steps(self) -> int:
        """Optimiser steps of the whole run, over a share of which windows open."""
        ...

    @property
    def tokens_per_step(self) -> int:
        """Target tokens that one step sees."""
        ...


@dataclass(frozen=True, eq=False)
class TransformerSubject:
    """One member of an ensemble, one checkpoint, or a language model of the same stages.

    Args:
        config: the run it belongs to.
        params: its parameters (1, *shape) by name, on the device where measuring shall happen.
        step: optimiser steps so far.
    """

    config: Described
    params: Mapping[str, Tensor]
    step: int

    @classmethod
    def of_weights(
        cls, config: Described, weights: Mapping[str, Tensor], step: int, device: str = "cpu"
    ) -> TransformerSubject:
        """The subject of one member's weights (*shape)."""
        return cls(config, {name: w.detach().to(device).unsqueeze(0) for name, w in weights.items()}, step)

    @property
    def transformer(self) -> Transformer:
        """The architecture as it is at this step."""
        whole = Transformer(stage(self.config.stage), self.config.sizes)
        return whole.at(self.step, self.config.steps)

    @property
    def tokens(self) -> int:
        """Training tokens so far."""
        return self.step * self.config.tokens_per_step

    @property
    def longest(self) -> int:
        """Inputs that a sequence has at most: those of training."""
        return self.config.sizes.length

    @property
    def sites(self) -> tuple[str, ...]:
        """The residual stream after the embedding and after every block, and what the head reads."""
        return ("embed", *(f"blocks.{layer}" for layer in range(self.config.sizes.layers)), FINAL)

    @property
    def matrices(self) -> Mapping[str, Tensor]:
        """Every weight matrix (rows, cols)."""
        return {name: value[0] for name, value in matrices(self.params).items()}

    @property
    def head(self) -> Tensor:
        """(V, d) rows of the head."""
        return self.transformer.stage.head.weight(self.params)[0]

    def activations(self, sequences: Tensor, sites: Sequence[str]) -> Iterator[Mapping[str, Tensor]]:
        """Activations (b, T, width) at the sites."""
        unknown = [s for s in sites if s not in self.sites]
        if unknown:
            raise MeasureError(f"unknown sites {', '.join(unknown)}; this model has {', '.join(self.sites)}")
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
        """(n, width) final states of the last position."""
        parts = [
            self.transformer.hidden(self.params, batch[None, :, :-1].long(), last=True)[0, :, -1]
            for batch in self._batches(sequences)
        ]
        return torch.cat(parts)

    def gradient_factors(self, sequences: Tensor, matrices: Sequence[str]) -> Mapping[str, Factors]:
        """Factors of the per-sample gradients; q, k and v of one block share their inputs."""
        known = [n for n in self.matrices if n.endswith(tuple(_INPUT_OF))]
        unknown = [n for n in matrices if n not in known]
        if unknown:
            raise MeasureError(
                f"no per-sample gradients of {', '.join(unknown)}; this model has {', '.join(known)}"
            )
        seen: dict[str, Tensor] = {}

        def keep(site: str, x: Tensor) -> Tensor:
            # The head's own gradients are formed eagerly; a leaf at the embedding makes autograd record the rest.
            seen[site] = x.requires_grad_() if site == "embed" else x
            return seen[site]

        params = {name: p.detach() for name, p in self.params.items()}
        loss = self.transformer.losses(params, sequences[None].long(), keep)
        outputs = [seen[name] for name in matrices]
        # The loss is a mean over sequences; each sample's own loss is M times its share of it.
        grads = torch.autograd.grad(loss.sum() * len(sequences), outputs)
        inputs: dict[str, Inputs] = {}
        factors = {}
        for name, grad in zip(matrices, grads, strict=True):
            ending = next(e for e in _INPUT_OF if name.endswith(e))
            source = name.removesuffix(ending) + _INPUT_OF[ending]
            if source not in inputs:
                inputs[source] = Inputs(seen[source][0].detach())
            factors[name] = Factors(inputs[source], grad[0])
        return factors

    @torch.no_grad()
    def head_losses(self, states: Tensor, targets: Tensor) -> Tensor:
        """(n,) cross-entropies in nats of final states."""
        return position_losses(softcap(states @ self.head.T, self.transformer.stage.softcap), targets)

    @torch.no_grad()
    def losses(self, sequences: Tensor) -> Tensor:
        """(n, T) cross-entropies in nats."""
        parts = []
        for batch in self._batches(sequences, LOGITS // ((sequences.shape[1] - 1) * self.config.sizes.vocab)):
            tokens = batch[None].long()
            hidden = self.transformer.hidden(self.params, tokens[..., :-1])
            parts.append(position_losses(self.transformer.logits(self.params, hidden), tokens[..., 1:])[0])
        return torch.cat(parts)

    def _batches(self, sequences: Tensor, most: int | None = None) -> tuple[Tensor, ...]:
        """The sequences in parts that are fast, and not larger than asked for."""
        chunk = sequences_at_once(sequences.shape[1] - 1, sequences.device)
        return sequences.split(chunk if most is None else max(1, min(chunk, most)))

    def with_matrix(self, name: str, value: Tensor) -> TransformerSubject:
        """The same model with one matrix replaced; editing a tied embedding edits the head too."""
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
