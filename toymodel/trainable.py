"""Parameters of K members together with the optimisers that their stage routes them to."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from toymodel.config import NewtonSchulz
from toymodel.errors import CheckpointError
from toymodel.optim import AdamW, Muon, Share, alone
from toymodel.parameters import ParameterBank, initial_value
from toymodel.transformer import Transformer

State = dict[str, Tensor]


class Trainable:
    """Parameters and optimiser state of K members, which is all that a step changes.

    Args:
        transformer: whose parameters, and whose stage's routing.
        lr: (K,) base learning rates.
        weight_decay: decoupled decay of the AdamW roles, one a member; None takes the stage's own.
        arithmetic: of Muon's orthogonalisation.
        device: where everything lives.
        share: who orthogonalises (see `Muon`).

    Attributes:
        params: (K, *shape) tensors by name, which require gradients; all zero until they are loaded.
    """

    def __init__(
        self,
        transformer: Transformer,
        lr: Tensor,
        weight_decay: list[float | None],
        arithmetic: NewtonSchulz,
        device: torch.device | str = "cpu",
        share: Share = alone,
    ) -> None:
        routing, specs, members = transformer.stage.routing, transformer.specs(), len(lr)
        lr = lr.to(device)
        decays = [routing.weight_decay if d is None else d for d in weight_decay]
        decay = torch.tensor(decays, device=device) if any(decays) else None
        self.adamw_bank = ParameterBank([s for s in specs if s.role not in routing.muon], members, device)
        self.muon_bank = ParameterBank([s for s in specs if s.role in routing.muon], members, device)
        self.banks = (self.adamw_bank, self.muon_bank)
        self.params = {**self.adamw_bank.params, **self.muon_bank.params}
        self.adamw = AdamW(
            self.adamw_bank.vector,
            self.adamw_bank.per_member(lr),
            None if decay is None else self.adamw_bank.per_member(decay),
            routing.betas,
            routing.eps,
        )
        offsets = self.muon_bank.offsets
        blocks = [
            (slice(offsets[s.name], offsets[s.name] + members * s.size), (members, *s.shape))
            for s in self.muon_bank.specs
        ]
        self.muon = Muon(
            self.muon_bank.vector,
            blocks,
            routing.muon_lr_ratio * lr,
            routing.momentum,
            routing.newton_schulz_steps,
            arithmetic,
            share,
        )

    def initialise(self, k: int, seed: int) -> None:
        """Give member k the parameters that belong to this seed."""
        for bank in self.banks:
            bank.load(k, {s.name: initial_value(s, seed) for s in bank.specs})

    def flatten(self, grads: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Gradients (K, *shape) by name as the two vectors that `step` takes."""
        adamw, muon = (bank.flatten(grads[s.name] for s in bank.specs) for bank in self.banks)
        return adamw, muon

    def step(self, grads: tuple[Tensor, Tensor], t: int, scale: float = 1.0) -> None:
        """Apply one update.

        Args:
            grads: vectors in the layouts of the AdamW and the Muon bank.
            t: counts updates from 1.
            scale: of all learning rates in this update.
        """
        self.adamw.step(grads[0], t, scale)
        if self.muon_bank.specs:
            self.muon.step(grads[1], scale)

    def weights(self, k: int) -> State:
        """Copies of member k's parameters (*shape) by name, on the CPU."""
        return {name: p.detach()[k].to("cpu", copy=True) for name, p in self.params.items()}

    def _vectors(self) -> tuple[tuple[str, ParameterBank, Tensor], ...]:
        return (
            ("param", self.adamw_bank, self.adamw_bank.vector),
            ("adamw.first", self.adamw_bank, self.adamw.first),
            ("adamw.second", self.adamw_bank, self.adamw.second),
            ("param", self.muon_bank, self.muon_bank.vector),
            ("muon.buffer", self.muon_bank, self.muon.buffer),
        )

    def state(self, k: int) -> State:
        """All that member k needs to go on elsewhere: parameters and optimiser state, keys "kind/name"."""
        return {
            f"{kind}/{name}": value
            for kind, bank, vector in self._vectors()
            for name, value in bank.member(k, vector).items()
        }

    def check(self, state: Mapping[str, Tensor], run_id: str) -> None:
        """Refuse a state that is not of these parameters and optimisers.

        Raises:
            CheckpointError: naming the run and the tensors that are missing, foreign or of another shape.
        """
        expected = {f"{kind}/{s.name}": s.shape for kind, bank, _ in self._vectors() for s in bank.specs}
        found = {key: tuple(value.shape) for key, value in state.items()}
        if found != expected:
            wrong = sorted(k for k in expected.keys() | found.keys() if expected.get(k) != found.get(k))
            raise CheckpointError(
                f"the state of {run_id} does not fit its configuration: {', '.join(wrong[:4])} missing, foreign or of "
                "another shape; delete the run folder to train it again"
            )

    def restore(self, k: int, state: Mapping[str, Tensor]) -> None:
        """Give member k the state that `state` once gave."""
        for kind, bank, vector in self._vectors():
            bank.load(k, {s.name: state[f"{kind}/{s.name}"] for s in bank.specs}, vector)
