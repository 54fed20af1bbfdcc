"""The transformer of this package as a subject: a toy, or a language model; and members of an ensemble as one stack."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from sims.models.block_list import chosen_blocks, numbered, within
from sims.models.run_network import BIAS, OwnRun, network_of_run, without_blocks
from sims.models.stack import GradientFactors
from sims.models.subject import EMBED, HEAD, input_site
from sims.runs.measure_config import LINEAR
from sims.system.errors import MeasureError
from spectra import Factors
from spectra.gradients import Inputs
from toymodel.cross_entropy import position_losses
from toymodel.ensemble import sequences_at_once
from toymodel.network import Network
from toymodel.rates import ONE_RATE
from toymodel.sizes import Sizes
from toymodel.transformer import matrices

# Most logits that exist at once.
LOGITS = 2**26
# Most logits at once of states that are given: on a CPU they stay in its cache.
STATE_LOGITS = {"cpu": 2**20}
# Numbers of the residual stream that go through a network at once; a CPU takes fewer (`sequences_at_once`).
STREAM = 2**25

# Fields of a run's configuration that describe a subject, where the configuration has them.
_ABOUT = ("tier", "stage", "lr", "seed", "batch_size")


@dataclass(frozen=True, eq=False)
class TransformerStack:
    """Transformers of one stage and size at one step, which run as one (a `sims.models.stack.Stack`).

    Args:
        configs: of the runs; all have the stage, sizes and steps of the first.
        params: parameters (K, *shape) by name, on the device where they are measured.
        step: optimiser steps so far.
        removed: blocks that the residual stream passes unchanged.
    """

    configs: Sequence[OwnRun]
    params: Mapping[str, Tensor]
    step: int
    removed: frozenset[int] = frozenset()

    @property
    def members(self) -> Sequence[TransformerSubject]:
        """The transformers one by one; they share the parameters."""
        return self._members

    @cached_property
    def _members(self) -> Sequence[TransformerSubject]:
        return [
            TransformerSubject(
                config, {name: p[k : k + 1] for name, p in self.params.items()}, self.step, self.removed
            )
            for k, config in enumerate(self.configs)
        ]

    @property
    def sizes(self) -> Sizes:
        """Sizes that fix every shape."""
        return self.configs[0].sizes

    @cached_property
    def transformer(self) -> Network:
        """The architecture at this step."""
        whole = network_of_run(self.configs[0])
        if self.removed:
            whole = without_blocks(whole, self.removed)
        return whole.at(self.step, self.configs[0].steps)

    @property
    def matrices(self) -> Mapping[str, Tensor]:
        """Weight matrices (K, rows, cols)."""
        return self._matrices

    @cached_property
    def _matrices(self) -> Mapping[str, Tensor]:
        return matrices(self.params)

    @cached_property
    def head(self) -> Tensor:
        """Rows (K, V, d) of the head."""
        return self.transformer.stage.head.weight(self.params)

    def activations(self, sequences: Tensor, sites: Sequence[str]) -> Iterator[Mapping[str, Tensor]]:
        """Yield activations (K, b, T, width) at sites or inputs of matrices, in batches.

        Raises:
            MeasureError: unknown sites.
        """
        first = self.members[0]
        known = dict.fromkeys((*first.sites, *first.input_sites.values()))
        if unknown := [s for s in sites if s not in known]:
            raise MeasureError(f"unknown sites {', '.join(unknown)}; this model has {', '.join(known)}")
        for batch in self.batches(sequences):
            kept: dict[str, Tensor] = {}

            def keep(site: str, x: Tensor, kept: dict[str, Tensor] = kept) -> Tensor:
                if site in sites:
                    kept[site] = x
                return x

            with torch.no_grad():
                self.transformer.hidden(self.params, self._inputs(batch), keep)
            yield kept

    @torch.no_grad()
    def last_states(self, sequences: Tensor) -> Tensor:
        """Return the final states (K, n, width) of the last position."""
        if sequences.device.type == "cpu" and len(self.configs) > 1:
            # A core is fastest with the weights of one model at a time.
            return torch.cat([member.stack.last_states(sequences) for member in self.members])
        parts = [
            self.transformer.hidden(self.params, self._inputs(batch), last=True)[:, :, -1]
            for batch in self.batches(sequences)
        ]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)

    def gradient_factors(self, sequences: Tensor, matrices: Sequence[str]) -> Mapping[str, GradientFactors]:
        """Return factors of the per-sample gradients; q, k and v of one block share their inputs.

        Raises:
            MeasureError: a matrix that is unknown, the embedding or the head.
        """
        known = [n for n in self.matrices if n.endswith(LINEAR)]
        if unknown := [n for n in matrices if n not in known]:
            raise MeasureError(
                f"no per-sample gradients of {', '.join(unknown)}; this model has {', '.join(known)}"
            )
        seen: dict[str, Tensor] = {}

        def keep(site: str, x: Tensor) -> Tensor:
            # The head's own gradients are formed eagerly; a leaf at the embedding makes autograd record the rest.
            seen[site] = x.requires_grad_() if site == EMBED else x
            return seen[site]

        params = {name: p.detach() for name, p in self.params.items()}
        every = sequences.long().expand(len(self.configs), -1, -1)
        loss = self.transformer.losses(params, every, keep)
        outputs = [seen[name] for name in matrices]
        # The loss is a mean over M sequences; the gradient of one sample's loss is M times its share of it.
        grads = torch.autograd.grad(loss.sum() * len(sequences), outputs)
        inputs = {source: seen[source].detach() for source in map(input_site, matrices)}
        return {
            name: GradientFactors(inputs[input_site(name)], grad)
            for name, grad in zip(matrices, grads, strict=True)
        }

    @torch.no_grad()
    def head_losses(self, states: Tensor, targets: Tensor) -> Tensor:
        """Return cross-entropies (K, n) in nats of final states (K, n, d) against targets (n,)."""
        most = STATE_LOGITS.get(states.device.type, LOGITS)
        rows = max(1, most // (len(states) * self.sizes.vocab))
        every = targets.expand(len(states), -1)
        parts = [
            position_losses(self.transformer.logits(self.params, x.unsqueeze(2)).squeeze(2), y)
            for x, y in zip(states.split(rows, dim=1), every.split(rows, dim=1), strict=True)
        ]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)

    def edited(self, name: str, values: Tensor) -> TransformerStack:
        """Return K·E copies with a matrix replaced by values (K, E, rows, cols).

        Replacing a tied embedding replaces the head too.
        """
        copies = values.shape[1]
        params = {
            n: p.unsqueeze(1).expand(-1, copies, *p.shape[1:]).reshape(-1, *p.shape[1:])
            for n, p in self.params.items()
        }
        flat = values.flatten(0, 1)
        if name in params:
            params[name] = flat.to(params[name])
        else:
            stacked, part = name[:-1] + "qkv", "qkv".index(name[-1])
            params[stacked] = params[stacked].clone()
            params[stacked][:, part] = flat
        configs = [c for c in self.configs for _ in range(copies)]
        return TransformerStack(configs, params, self.step, self.removed)

    def batches(self, sequences: Tensor, most: int | None = None) -> tuple[Tensor, ...]:
        """Split the sequences into batches of a fast size for all members together, and of at most `most`."""
        positions, members = sequences.shape[1] - 1, len(self.configs)
        if sequences.device.type == "cpu":
            chunk = sequences_at_once(positions * members, sequences.device)
        else:
            chunk = max(1, STREAM // (positions * members * self.sizes.d))
        return sequences.split(chunk if most is None else max(1, min(chunk, most)))

    def _inputs(self, batch: Tensor) -> Tensor:
        """Return the (K, b, T) inputs of a batch (b, T+1), the same for all members."""
        return batch[:, :-1].long().expand(len(self.configs), -1, -1)


@dataclass(frozen=True, eq=False)
class TransformerSubject:
    """A transformer of one of the stages: an ensemble member, a checkpoint or a language model.

    Args:
        config: of its run.
        params: its parameters (1, *shape) by name, on the device where it is measured.
        step: optimiser steps so far.
        removed: blocks that the residual stream passes unchanged (`without_blocks`).
    """

    config: OwnRun
    params: Mapping[str, Tensor]
    step: int
    removed: frozenset[int] = frozenset()

    @classmethod
    def of_weights(
        cls, config: OwnRun, weights: Mapping[str, Tensor], step: int, device: str = "cpu"
    ) -> TransformerSubject:
        """Return the subject of one member's weights (*shape)."""
        return cls(config, {name: w.detach().to(device).unsqueeze(0) for name, w in weights.items()}, step)

    @cached_property
    def stack(self) -> TransformerStack:
        """This transformer as a stack of one."""
        return TransformerStack((self.config,), self.params, self.step, self.removed)

    @property
    def transformer(self) -> Network:
        """The architecture at this step."""
        return self.stack.transformer

    @property
    def tokens(self) -> int:
        """Training tokens so far."""
        return self.step * self.config.tokens_per_step

    @property
    def about(self) -> dict[str, Any]:
        """What the configuration says of the run, as plain values."""
        known = {name: getattr(self.config, name) for name in _ABOUT if hasattr(self.config, name)}
        if getattr(self.config, BIAS, False):
            known[BIAS] = True
        rates = getattr(self.config, "rates", ONE_RATE)
        if not rates.uniform:
            known["rates"] = rates.in_words
        return {**known, "planned_steps": self.config.steps, "heads": self.config.sizes.heads}

    @property
    def longest(self) -> int:
        """Longest input: that of training."""
        return self.config.sizes.length

    @property
    def sites(self) -> tuple[str, ...]:
        """The residual stream after the embedding and after every block, and the input of the head."""
        gone = {f"blocks.{layer}" for layer in self.removed}
        every = self.transformer.stage.sites(self.config.sizes.layers)
        return tuple(site for site in every if site not in gone)

    @property
    def matrices(self) -> Mapping[str, Tensor]:
        """Weight matrices (rows, cols)."""
        return {name: value[0] for name, value in self.stack.matrices.items()}

    @property
    def with_gradients(self) -> tuple[str, ...]:
        """Names of the matrices with per-sample gradients: not embedding and head."""
        return tuple(name for name in self.matrices if name.endswith(LINEAR))

    @property
    def parameters(self) -> Mapping[str, Tensor]:
        """All weights (*shape) by name."""
        return {name: value[0] for name, value in self.params.items()}

    @property
    def input_sites(self) -> Mapping[str, str]:
        """Matrix → site that it multiplies; tables that are looked up have none."""
        return {name: input_site(name) for name in self.matrices if name == HEAD or name.endswith(LINEAR)}

    @property
    def head(self) -> Tensor:
        """Rows (V, d) of the head."""
        return self.stack.head[0]

    def activations(self, sequences: Tensor, sites: Sequence[str]) -> Iterator[Mapping[str, Tensor]]:
        """Yield activations (b, T, width) at `sites` or `input_sites`, in batches.

        Raises:
            MeasureError: unknown sites.
        """
        for kept in self.stack.activations(sequences, sites):
            yield {site: x[0] for site, x in kept.items()}

    def last_states(self, sequences: Tensor) -> Tensor:
        """Return the final states (n, width) of the last position."""
        return self.stack.last_states(sequences)[0]

    def gradient_factors(self, sequences: Tensor, matrices: Sequence[str]) -> Mapping[str, Factors]:
        """Return factors of the per-sample gradients; q, k and v of one block share their inputs.

        Raises:
            MeasureError: a matrix that is unknown, the embedding or the head.
        """
        inputs: dict[str, Inputs] = {}
        factors = {}
        for name, (a, d) in self.stack.gradient_factors(sequences, matrices).items():
            source = input_site(name)
            if source not in inputs:
                inputs[source] = Inputs(a[0])
            factors[name] = Factors(inputs[source], d[0])
        return factors

    def head_losses(self, states: Tensor, targets: Tensor) -> Tensor:
        """Return cross-entropies (n,) in nats of final states (n, d) against targets (n,)."""
        return self.stack.head_losses(states[None], targets)[0]

    @torch.no_grad()
    def head_log_probs(self, states: Tensor) -> Tensor:
        """Return log-probabilities (n, V) in nats of the next tokens after final states (n, d)."""
        logits = self.transformer.logits(self.params, states[None, :, None])[0, :, 0]
        return logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(dim=-1)

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
        if self.transformer.stage.network != "transformer":
            raise MeasureError(
                f"stage {self.config.stage} predicts the last target of a sequence only; losses and probabilities at "
                "every position exist for transformers"
            )
        most = LOGITS // ((sequences.shape[1] - 1) * self.config.sizes.vocab)
        for batch in self.stack.batches(sequences, most):
            with torch.no_grad():
                hidden = self.transformer.hidden(self.params, batch[None, :, :-1].long())
                logits = self.transformer.logits(self.params, hidden)[0]
            yield batch, logits

    def with_matrix(self, name: str, value: Tensor) -> TransformerSubject:
        """Return a copy with one matrix replaced; replacing a tied embedding replaces the head too.

        Raises:
            MeasureError: unknown matrix, or a value of another shape.
        """
        if name not in self.matrices or self.matrices[name].shape != value.shape:
            raise MeasureError(
                f"{name} of shape {tuple(value.shape)} is not a replaceable matrix of this model"
            )
        return replace(self, params=self.stack.edited(name, value[None, None]).params)

    def without_blocks(self, blocks: Collection[int]) -> TransformerSubject:
        """Return the model without some blocks, on the same weights (see `Subject.without_blocks`).

        Raises:
            MeasureError: numbers that are no blocks or repeated, or a stage whose blocks read more of earlier ones than
                the residual stream.
        """
        chosen = chosen_blocks(blocks, numbered(self.sites))
        if not chosen:
            return self
        removed = self.removed | set(chosen)
        without_blocks(network_of_run(self.config), removed)
        params = {name: p for name, p in self.params.items() if not within(name, chosen)}
        return replace(self, params=params, removed=removed)
