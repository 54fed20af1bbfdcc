"""Describe a run after a step, for the toy and for language models."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, Protocol

import torch
from torch import Tensor

from sims.models.subject import Subject
from sims.models.transformer import TransformerStack, TransformerSubject
from toymodel.config import RunConfig
from toymodel.ensemble import Ensemble
from toymodel.trainable import State
from toymodel.training import Snapshot as EnsembleSnapshot

Ended = Literal["finished", "target", "diverged"]


class TrainedModel(Protocol):
    """Give access to the model of a run while it trains."""

    def subject(self) -> Subject:
        """Return the present model for measuring; it shares the parameters."""
        ...

    def weights(self) -> Mapping[str, Tensor]:
        """Return copies of all parameters by name, on the CPU."""
        ...

    def state(self) -> Mapping[str, Tensor]:
        """Return copies of the state to continue from, on the CPU."""
        ...


@dataclass(frozen=True)
class Snapshot:
    """Describe one run after a step.

    Args:
        step, tokens: optimiser steps and target tokens so far.
        model: the model, valid until the next step.
        train_loss: in nats; at an evaluation the mean since the last one, otherwise the loss of this step; None before
            the first step.
        val_loss: in nats, at an evaluation; None between evaluations.
        ended: why the run ends here; None while it continues.
        reason: of a divergence, in words.
        seconds: wall time since the last snapshot by part ("training", "evaluation").
        speed: of the last steps: "tokens_per_second", "mfu"; empty where it is not measured.
    """

    step: int
    tokens: int
    model: TrainedModel
    train_loss: float | None
    val_loss: float | None
    ended: Ended | None = None
    reason: str = ""
    seconds: Mapping[str, float] = field(default_factory=dict)
    speed: Mapping[str, float] = field(default_factory=dict)


class Copies:
    """Hold copies of the members of an ensemble on the CPU, made together when the first is asked for."""

    def __init__(self, ensemble: Ensemble) -> None:
        self.ensemble = ensemble

    @cached_property
    def weights(self) -> list[State]:
        """Parameters (*shape) by name, for each member."""
        return self.ensemble.trainable.weights(range(len(self.ensemble.configs)))

    @cached_property
    def states(self) -> list[State]:
        """Parameters and optimiser state, for each member."""
        return self.ensemble.trainable.states(range(len(self.ensemble.configs)))


@dataclass(frozen=True)
class Member:
    """Give access to one member of an ensemble (a `TrainedModel`).

    Args:
        ensemble: the ensemble, whose member is valid until its next step.
        k: index of the member.
        config: its run.
        copies: of all members at this step.
    """

    ensemble: Ensemble
    k: int
    config: RunConfig
    copies: Copies

    def subject(self) -> TransformerSubject:
        """Return the present member for measuring; it shares the parameters."""
        params = {name: p.detach()[self.k : self.k + 1] for name, p in self.ensemble.params.items()}
        return TransformerSubject(self.config, params, self.ensemble.step)

    def weights(self) -> Mapping[str, Tensor]:
        """Return copies of its parameters (*shape) by name, on the CPU."""
        return self.copies.weights[self.k]

    def state(self) -> Mapping[str, Tensor]:
        """Return copies of its parameters and optimiser state, on the CPU."""
        return self.copies.states[self.k]


def stack_of(members: Sequence[TrainedModel]) -> TransformerStack:
    """Return members of one ensemble as one stack for measuring; it shares the parameters where all are given."""
    own = [member for member in members if isinstance(member, Member)]
    ensemble, which = own[0].ensemble, [member.k for member in own]
    params = {name: p.detach() for name, p in ensemble.params.items()}
    if which != list(range(len(ensemble.configs))):
        index = torch.tensor(which, device=ensemble.device)
        params = {name: p.index_select(0, index) for name, p in params.items()}
    return TransformerStack([member.config for member in own], params, ensemble.step)


def of_members(snapshot: EnsembleSnapshot) -> Iterator[tuple[RunConfig, Snapshot]]:
    """Split an ensemble's snapshot into one per live member.

    Each member gets an equal share of the seconds.
    """
    count, copies = len(snapshot.configs), Copies(snapshot.ensemble)
    for k, config in enumerate(snapshot.configs):
        yield (
            config,
            Snapshot(
                snapshot.step,
                snapshot.tokens,
                Member(snapshot.ensemble, k, config, copies),
                snapshot.train_losses[k] if snapshot.step > 0 else None,
                snapshot.val_losses[k],
                snapshot.ended[k],
                _divergence(snapshot, k) if snapshot.ended[k] == "diverged" else "",
                seconds={part: seconds / count for part, seconds in snapshot.seconds.items()},
            ),
        )


def _divergence(snapshot: EnsembleSnapshot, k: int) -> str:
    """Say which loss of a member is no number."""
    val_loss = snapshot.val_losses[k]
    found = ("training", snapshot.train_losses[k]) if math.isfinite(val_loss) else ("validation", val_loss)
    return f"the {found[0]} loss is {found[1]}"
