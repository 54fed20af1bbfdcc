"""What a sweep will cost, from a few steps of its own."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from sims.sweep.plan import cost
from toymodel.config import RunConfig, ensemble_key
from toymodel.ensemble import Ensemble

# No more than this is spent on estimating; shapes that were not timed are scaled by their cost.
ESTIMATE_SECONDS = 6.0
TIMED_STEPS = 3


@dataclass(frozen=True)
class Estimate:
    """What a plan is expected to take.

    Attributes:
        seconds: of training, by one worker; measuring comes on top.
        timed: shapes that were timed for it.
        shapes: shapes there are.
    """

    seconds: float
    timed: int
    shapes: int


def estimate(groups: Sequence[Sequence[RunConfig]], device: str) -> Estimate:
    """Time a few steps of each shape, the dearest first, on the device that would do the work."""
    per_step: dict[RunConfig, float] = {}
    shapes = {ensemble_key(g[0]): g for g in groups}
    deadline = time.perf_counter() + ESTIMATE_SECONDS
    for shape, group in shapes.items():
        if per_step and time.perf_counter() > deadline:
            break
        per_step[shape] = _seconds_a_step(group, device)
    known = sum(per_step[s] / (cost(s) / s.steps * len(shapes[s])) for s in per_step) / len(per_step)
    total = 0.0
    for group in groups:
        shape = ensemble_key(group[0])
        guess = known * cost(shape) / shape.steps
        total += (
            shape.steps * (per_step[shape] / len(shapes[shape]) if shape in per_step else guess) * len(group)
        )
    return Estimate(total, len(per_step), len(shapes))


def _seconds_a_step(group: Sequence[RunConfig], device: str) -> float:
    # Data do not matter for time: a small split spares their generation.
    small = [replace(c, task=_small(c), eval_size=None) for c in group]
    ensemble = Ensemble(small, device)
    ensemble.advance(1)
    began = time.perf_counter()
    ensemble.advance(TIMED_STEPS)
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return (time.perf_counter() - began) / TIMED_STEPS


def _small(config: RunConfig):
    return replace(config.task, train=max(config.batch_size, 256), val=8, test=8)
