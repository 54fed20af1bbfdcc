"""Training as a generator of snapshots, with observers between the steps."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from toymodel.config import RunConfig
from toymodel.ensemble import Ensemble
from toymodel.errors import ConfigError
from toymodel.observe import Observer

Ended = Literal["finished", "target", "diverged"]


@dataclass(frozen=True)
class Snapshot:
    """Describe an ensemble at an evaluation.

    Attributes:
        step, tokens: optimiser steps and target tokens seen by each member so far.
        configs: the live members, in the order of all other fields.
        train_losses: mean training loss in nats since the last snapshot; NaN at step 0.
        val_losses: validation loss in nats now.
        ended: why a member leaves after this snapshot, or None if it continues.
        seconds: wall time since the last snapshot, of "training" and "evaluation", and of "observation" where a
            member has observers.
        ensemble: the live ensemble; valid until the generator is advanced.

    >>> from toymodel import ModelConfig, RunConfig, TaskConfig
    >>> task = TaskConfig(vocab=11, length=8, train=64, val=16, test=16)
    >>> config = RunConfig(task=task, model=ModelConfig(8, 2, 1), batch_size=4, steps=1, eval_size=16)
    >>> first = next(train(Ensemble([config])))
    >>> first.step, first.tokens, len(first.val_losses)
    (0, 0, 1)
    """

    step: int
    tokens: int
    configs: tuple[RunConfig, ...]
    train_losses: tuple[float, ...]
    val_losses: tuple[float, ...]
    ended: tuple[Ended | None, ...]
    seconds: dict[str, float]
    ensemble: Ensemble


def train(ensemble: Ensemble, observers: Sequence[Sequence[Observer]] | None = None) -> Iterator[Snapshot]:
    """Train to the end, yielding a snapshot every `eval_every` steps and one before the first.

    A member that has reached its target, or whose loss is no longer finite, leaves after the snapshot that reports
    it; the others continue in a smaller ensemble. An ensemble restored at a later step continues from there, without
    repeating the snapshot of that step.

    Args:
        ensemble: the members, fresh or restored.
        observers: for each member those that look at it between the steps; None for nobody. They are offered step 0
            before the first update of a fresh ensemble, then every step after its update and before its snapshot. A
            run that continues needs their states restored (`Observer.load_state_dict`) by the caller.

    Raises:
        ConfigError: not one sequence of observers for each member, or one observer given twice.
        CompileError: what torch.compile made does not compute what eager code does (see `Ensemble.check_compiled`).

    >>> from toymodel import ModelConfig, RunConfig, TaskConfig
    >>> task = TaskConfig(vocab=11, length=8, train=64, val=16, test=16)
    >>> config = RunConfig(task=task, model=ModelConfig(8, 2, 1), batch_size=4, steps=6, eval_every=4, eval_size=16)
    >>> [(snapshot.step, snapshot.ended) for snapshot in train(Ensemble([config]))]
    [(0, (None,)), (4, (None,)), (6, ('finished',))]
    """
    watch = _Watch(ensemble, observers)
    ensemble.check_compiled()
    return _snapshots(ensemble, watch)


def _snapshots(ensemble: Ensemble, watch: _Watch) -> Iterator[Snapshot]:
    shared = ensemble.shared
    if ensemble.step == 0:
        watch.look()
        snapshot = _snapshot(ensemble, [math.nan] * len(ensemble.configs), watch.seconds(0.0))
        yield snapshot
        if not _stays(snapshot, ensemble, watch):
            return
    while ensemble.step < shared.steps:
        until_evaluation = shared.eval_every - ensemble.step % shared.eval_every
        began = time.perf_counter()
        steps = min(until_evaluation, shared.steps - ensemble.step)
        losses = ensemble.advance(steps, watch.look if watch.present else None).tolist()
        snapshot = _snapshot(ensemble, losses, watch.seconds(time.perf_counter() - began))
        yield snapshot
        if not _stays(snapshot, ensemble, watch):
            return


def _stays(snapshot: Snapshot, ensemble: Ensemble, watch: _Watch) -> bool:
    """Drop the members that have ended, and return whether one is left."""
    staying = [k for k, reason in enumerate(snapshot.ended) if reason is None]
    if 0 < len(staying) < len(snapshot.ended):
        ensemble.keep(staying)
        watch.keep(staying)
    return bool(staying)


class _Watch:
    """Offer steps to the observers of every live member and add up the time that they take."""

    def __init__(self, ensemble: Ensemble, observers: Sequence[Sequence[Observer]] | None) -> None:
        members = len(ensemble.configs)
        if observers is not None and len(observers) != members:
            raise ConfigError(
                f"observers has {len(observers)} entries for {members} members; pass one sequence for each member, an "
                "empty one where nobody looks"
            )
        self.ensemble = ensemble
        self.observers = [tuple(o) for o in observers or [()] * members]
        distinct = {id(observer) for each in self.observers for observer in each}
        if len(distinct) < sum(map(len, self.observers)):
            raise ConfigError("an observer is given twice; make one for each member")
        self.spent = 0.0

    @property
    def present(self) -> bool:
        return any(self.observers)

    def look(self) -> None:
        """Offer the present step."""
        step = self.ensemble.step
        for k, observers in enumerate(self.observers):
            for observer in observers:
                if observer.due(step):
                    began = time.perf_counter()
                    observer.look(self.ensemble.view(k))
                    self.spent += time.perf_counter() - began

    def keep(self, members: Sequence[int]) -> None:
        """Drop the observers of all other members."""
        self.observers = [self.observers[k] for k in members]

    def seconds(self, passed: float) -> dict[str, float]:
        """Split the time since the last snapshot into training and observation."""
        spent, self.spent = self.spent, 0.0
        if not self.present:
            return {"training": passed}
        return {"training": max(0.0, passed - spent), "observation": spent}


def _snapshot(ensemble: Ensemble, train_losses: list[float], seconds: dict[str, float]) -> Snapshot:
    began = time.perf_counter()
    val_losses = ensemble.evaluate().tolist()
    pairs = zip(train_losses, val_losses, strict=True)
    return Snapshot(
        step=ensemble.step,
        tokens=ensemble.tokens,
        configs=tuple(ensemble.configs),
        train_losses=tuple(train_losses),
        val_losses=tuple(val_losses),
        ended=tuple(_ended(ensemble, train_loss, val_loss) for train_loss, val_loss in pairs),
        seconds={**seconds, "evaluation": time.perf_counter() - began},
        ensemble=ensemble,
    )


def _ended(ensemble: Ensemble, train_loss: float, val_loss: float) -> Ended | None:
    shared = ensemble.shared
    if not math.isfinite(val_loss) or (ensemble.step > 0 and not math.isfinite(train_loss)):
        return "diverged"
    if shared.target_loss is not None and val_loss <= shared.target_loss:
        return "target"
    return "finished" if ensemble.step >= shared.steps else None
