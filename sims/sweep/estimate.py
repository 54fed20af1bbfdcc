"""What a sweep will cost, from a few steps of its own."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from sims.sweep.plan import cost
from toymodel import Task
from toymodel.config import RunConfig, ensemble_key
from toymodel.ensemble import Ensemble

# No more than this is spent on estimating; shapes that were not timed are scaled by their cost.
ESTIMATE_SECONDS = 4.0
TIMED_STEPS = 2


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
    """Time a few steps of each shape, the cheapest first, on the device that would do the work."""
    shapes = {ensemble_key(g[0]): g for g in sorted(groups, key=lambda g: cost(g[0]) / g[0].steps)}
    deadline = time.perf_counter() + ESTIMATE_SECONDS
    per_cost: dict[RunConfig, float] = {}
    for shape, group in shapes.items():
        if not per_cost or time.perf_counter() < deadline:
            work = sum(cost(c) / c.steps for c in group)
            per_cost[shape] = _seconds_a_step(group, device) / work
    # The dearest shape that was timed is most like those that were not.
    otherwise = list(per_cost.values())[-1]
    seconds = sum(per_cost.get(ensemble_key(c), otherwise) * cost(c) for g in groups for c in g)
    return Estimate(seconds, len(per_cost), len(shapes))


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


def _small(config: RunConfig) -> Task:
    return replace(config.task, train=max(config.batch_size, 256), val=8, test=8)
