"""Interventions on K members that train together, before and after each of their updates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from toymodel.intervention import Intervention
from toymodel.subspace import SubspaceScaling

if TYPE_CHECKING:
    from toymodel.trainable import Trainable


class Interventions:
    """Change the updates of members as their settings say; a member without an intervention stays as it is.

    Args:
        trainable: parameters and optimisers of the members.
        settings: the intervention of each member, with the seed of its run.
    """

    def __init__(self, trainable: Trainable, settings: Sequence[tuple[Intervention, int]]) -> None:
        self.trainable = trainable
        self.settings = [own for own, _ in settings]
        self.scalings = {
            k: SubspaceScaling(own, seed) for k, (own, seed) in enumerate(settings) if own.scales_updates
        }
        # What the weight decay of each member is multiplied by now.
        self._factors = [1.0] * len(settings)
        self._before: dict[int, Tensor] = {}

    def before_update(self, step: int) -> None:
        """Set the weight decays of the next update, and keep the weights that it starts from.

        Args:
            step: number of updates so far.
        """
        factors = [s.factor if s.kind == "decay" and s.changes(step) else 1.0 for s in self.settings]
        if factors != self._factors:
            self.trainable.scale_decay(factors)
            self._factors = factors
        self._before = {k: self._weights(k) for k, scaling in self.scalings.items() if scaling.due(step)}

    @torch.no_grad()
    def after_update(self, step: int, scale: float = 1.0) -> None:
        """Change the update that was just made.

        Args:
            step: that of `before_update`.
            scale: of all learning rates in this update.
        """
        params = self.trainable.params
        for k, before in self._before.items():
            shares = self.trainable.decay_of(k, scale)
            kept = [(1.0 - shares[name]) if name in shares else None for name in params]
            parts = [
                own if share is None else (own.double() * share.expand(p.shape[1:]).flatten()).to(own.dtype)
                for own, p, share in zip(self._split(before), params.values(), kept, strict=True)
            ]
            changed = self.scalings[k].change(step, before, torch.cat(parts), self._weights(k))
            for own, p in zip(self._split(changed), params.values(), strict=True):
                p.detach()[k].copy_(own.view(p.shape[1:]))
        self._before = {}

    def _weights(self, k: int) -> Tensor:
        """Return a copy of all weights (P,) of member k."""
        return torch.cat([p.detach()[k].flatten() for p in self.trainable.params.values()])

    def _split(self, weights: Tensor) -> tuple[Tensor, ...]:
        """Return the weights of each parameter, flattened."""
        return weights.split([p[0].numel() for p in self.trainable.params.values()])

    def state_of(self, k: int) -> dict[str, Tensor]:
        """Return copies of all that member k needs to continue, on the CPU."""
        held = self.scalings[k].state_dict() if k in self.scalings else {}
        return {name: value.to("cpu", copy=True) for name, value in held.items()}

    def restore(self, k: int, state: Mapping[str, Tensor]) -> None:
        """Restore what `state_of` returned."""
        if k in self.scalings:
            self.scalings[k].load_state_dict(state, self.trainable.lr.device)
