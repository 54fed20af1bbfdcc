"""Estimate the time of a sweep from a few timed steps."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch

from sims.measure.engine import gather
from sims.measure.measurement import Data
from sims.measure.observers import observers
from sims.measure.registry import schedules, wanted
from sims.measure.toy import prepare
from sims.runs.measure_config import MeasureConfig
from sims.runs.step_settings import update_windows
from sims.sweep.plan import cost
from sims.training.rates import layerwise, seconds_a_step
from sims.training.snapshot import of_members, stack_of
from toymodel import Task
from toymodel.config import RunConfig, ensemble_key
from toymodel.data import dataset
from toymodel.ensemble import Ensemble
from toymodel.training import train

# Time spent on the estimate; shapes that do not fit into it are scaled by their cost.
ESTIMATE_SECONDS = 4.0
TIMED_STEPS = 2


@dataclass(frozen=True)
class Estimate:
    """Hold the expected training time of a plan.

    Attributes:
        seconds: training by one worker, without measurements.
        timed: number of shapes that were timed.
        shapes: number of shapes in the plan.
    """

    seconds: float
    timed: int
    shapes: int


def estimate(groups: Sequence[Sequence[RunConfig]], device: str) -> Estimate:
    """Estimate the training time of all groups on a device.

    A few steps of each shape are timed, the cheapest shape first, for at most `ESTIMATE_SECONDS`.
    """
    shapes = {ensemble_key(g[0]): g for g in sorted(groups, key=lambda g: cost(g[0]) / g[0].steps)}
    deadline = time.perf_counter() + ESTIMATE_SECONDS
    per_cost: dict[RunConfig, float] = {}
    for shape, group in shapes.items():
        if not per_cost or time.perf_counter() < deadline:
            work = sum(cost(c) / c.steps for c in group)
            per_cost[shape] = _seconds_a_step(group, device) / work
    # Shapes that were not timed cost more than all timed ones: the most expensive timed one is the most similar.
    fallback = list(per_cost.values())[-1]
    seconds = sum(per_cost.get(ensemble_key(c), fallback) * cost(c) for g in groups for c in g)
    return Estimate(seconds, len(per_cost), len(shapes))


@dataclass(frozen=True)
class Costs:
    """Hold what training, an evaluation and a measurement of runs of one size take, on one worker.

    Attributes:
        training: seconds a token, by stage.
        evaluation, measurement: seconds of one.
    """

    training: dict[str, float]
    evaluation: float
    measurement: float

    def seconds(self, config: RunConfig, steps: int, measuring: MeasureConfig) -> float:
        """Return the seconds of a run that ends after some steps."""
        evaluations, measurements = looks(replace(config, steps=steps), measuring)
        trained = steps * config.tokens_per_step * self.training[config.stage]
        return trained + evaluations * self.evaluation + measurements * self.measurement


def costs(configs: Sequence[RunConfig], measuring: MeasureConfig, device: str) -> Costs:
    """Time a few steps of each stage at its smallest batch, one evaluation and one measurement.

    Args:
        configs: runs of one size of task and model, none of which looks between its steps.
        measuring: what is measured of them.
        device: where.
    """
    training = {}
    for config in sorted(configs, key=lambda c: c.batch_size):
        if config.stage not in training:
            training[config.stage] = _seconds_a_step([config], device) / config.tokens_per_step
    return Costs(training, *_seconds_a_look(configs[0], measuring, device))


def looking(configs: Sequence[RunConfig], measuring: MeasureConfig, device: str) -> float:
    """Estimate the seconds that one worker takes to evaluate and measure runs of one size.

    One evaluation and one measurement of an untrained model are timed, and what looks at it between its first steps.

    Args:
        configs: the runs; each is taken to cost what the first one does.
        measuring: what is measured.
        device: where.
    """
    config = configs[0]
    evaluation, measurement = _seconds_a_look(config, measuring, device)
    data = prepare(measuring, config, dataset(config.task), device)
    numbers = [looks(c, measuring) for c in configs]
    evaluations, measurements = (sum(column) for column in zip(*numbers, strict=True))
    between = sum(c.steps for c in configs) * _observing(config, measuring, data, device)
    return evaluations * evaluation + measurements * measurement + between


def _seconds_a_look(config: RunConfig, measuring: MeasureConfig, device: str) -> tuple[float, float]:
    """Return the seconds of an evaluation and of a measurement of an untrained model."""
    ((_, snapshot),) = of_members(next(train(Ensemble([config], device, controller=layerwise))))
    data = prepare(measuring, config, dataset(config.task), device)
    models, measurement = stack_of([snapshot.model]), 0.0
    for _ in range(2):
        # The first one also loads packages.
        began = time.perf_counter()
        gather(models, data)[0].sheet()
        measurement = time.perf_counter() - began
    return snapshot.seconds["evaluation"], measurement


def _observing(config: RunConfig, measuring: MeasureConfig, data: Data, device: str) -> float:
    """Return the seconds of observers for a training step: those of the period after windows of updates are full.

    At most `ESTIMATE_SECONDS` of steps are trained; what is not due within them counts nothing.
    """
    looking = observers(measuring, config, data)
    if not looking:
        return 0.0
    every = [
        s.every or 1 for m in wanted(measuring) if m.observer and m.schedule and (s := m.schedule(measuring))
    ]
    every += [schedule.every or 1 for schedule in schedules(measuring).values()]
    if not config.rates.uniform:
        every.append(config.rates.period(config.steps))
    filled = max(update_windows(measuring)) * measuring.update_stride if measuring.updates else 0
    ensemble, seconds = Ensemble([config], device, controller=layerwise), 0.0
    deadline = time.perf_counter() + ESTIMATE_SECONDS
    while ensemble.step < min(filled + max(every), config.steps):
        ensemble.advance(1)
        began = time.perf_counter()
        for observer in looking:
            if observer.due(ensemble.step):
                observer.look(ensemble.view(0))
        seconds += (time.perf_counter() - began) * (ensemble.step > filled)
        if began > deadline:
            break
    return seconds / max(1, ensemble.step - filled)


def looks(config: RunConfig, measuring: MeasureConfig) -> tuple[int, int]:
    """Return how often a run that trains to its end is evaluated, and how often measured.

    >>> looks(RunConfig(steps=100, eval_every=40), MeasureConfig(every=80, early=1))
    (4, 4)
    """
    steps = sorted({*range(0, config.steps, config.eval_every), config.steps})
    early = measuring.early * config.eval_every
    return len(steps), sum(s <= early or s % measuring.every == 0 or s == config.steps for s in steps)


def _seconds_a_step(group: Sequence[RunConfig], device: str) -> float:
    # The time of a step does not depend on the data: a small split saves the time to generate them.
    small = [replace(c, task=_small(c), eval_size=None) for c in group]
    ensemble = Ensemble(small, device, controller=layerwise)
    ensemble.advance(1)
    # Learning rates are chosen in few steps: the choice is timed by itself.
    trainable = ensemble.trainable
    controllers, trainable.controllers = trainable.controllers, []
    began = time.perf_counter()
    ensemble.advance(TIMED_STEPS)
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    seconds = (time.perf_counter() - began) / TIMED_STEPS
    return seconds + seconds_a_step(controllers, ensemble.view)


def _small(config: RunConfig) -> Task:
    # A task that computes its sizes is taken as it is; none is made larger, for which it may have too few sequences.
    task = config.task
    settable = {spec.name for spec in fields(task) if spec.init}
    sizes = {"train": max(config.batch_size, 256), "val": 8, "test": 8}
    smaller = {name: min(size, getattr(task, name)) for name, size in sizes.items() if name in settable}
    return replace(task, **smaller)
