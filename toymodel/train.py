"""Training as a generator of snapshots: it does not know who looks."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from toymodel.config import RunConfig
from toymodel.ensemble import Ensemble

Ended = Literal["finished", "target", "diverged"]


@dataclass(frozen=True)
class Snapshot:
    """The ensemble at an evaluation point.

    Attributes:
        step, tokens: optimiser steps and target tokens seen by each member so far.
        configs: the live members, in the order of all other fields.
        train_losses: mean training loss in nats since the last snapshot; NaN at step 0.
        val_losses: validation loss in nats now.
        ended: why a member leaves after this snapshot, or None while it goes on.
        seconds: wall time since the last snapshot, of "training" and of "evaluation".
        ensemble: the live ensemble; valid until the generator is advanced.
    """

    step: int
    tokens: int
    configs: tuple[RunConfig, ...]
    train_losses: tuple[float, ...]
    val_losses: tuple[float, ...]
    ended: tuple[Ended | None, ...]
    seconds: dict[str, float]
    ensemble: Ensemble


def train(ensemble: Ensemble) -> Iterator[Snapshot]:
    """Train to the end, yielding every `eval_every` steps (and once before the first).

    A member that reached its target, or whose loss is no longer finite, leaves after the snapshot that says so;
    the others go on in a smaller ensemble. An ensemble restored at a later step goes on from there, without
    repeating the snapshot of that step.
    """
    shared = ensemble.shared
    if ensemble.step == 0:
        yield _snapshot(ensemble, [math.nan] * len(ensemble.configs), 0.0)
    while ensemble.step < shared.steps:
        until_evaluation = shared.eval_every - ensemble.step % shared.eval_every
        began = time.perf_counter()
        losses = ensemble.advance(min(until_evaluation, shared.steps - ensemble.step)).tolist()
        snapshot = _snapshot(ensemble, losses, time.perf_counter() - began)
        yield snapshot
        staying = [k for k, reason in enumerate(snapshot.ended) if reason is None]
        if not staying:
            return
        if len(staying) < len(snapshot.ended):
            ensemble.keep(staying)


def _snapshot(ensemble: Ensemble, train_losses: list[float], training: float) -> Snapshot:
    began = time.perf_counter()
    val_losses = ensemble.evaluate().tolist()
    pairs = zip(train_losses, val_losses, strict=True)
    return Snapshot(
        step=ensemble.step,
        tokens=ensemble.step * ensemble.shared.tokens_per_step,
        configs=tuple(ensemble.configs),
        train_losses=tuple(train_losses),
        val_losses=tuple(val_losses),
        ended=tuple(_ended(ensemble, train_loss, val_loss) for train_loss, val_loss in pairs),
        seconds={"training": training, "evaluation": time.perf_counter() - began},
        ensemble=ensemble,
    )


def _ended(ensemble: Ensemble, train_loss: float, val_loss: float) -> Ended | None:
    shared = ensemble.shared
    if not math.isfinite(val_loss) or (ensemble.step > 0 and not math.isfinite(train_loss)):
        return "diverged"
    if shared.target_loss is not None and val_loss <= shared.target_loss:
        return "target"
    return "finished" if ensemble.step >= shared.steps else None
