"""Benchmark cases of the toy: ensembles against single runs, and the vectorised task against its loop."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from torch.utils._python_dispatch import TorchDispatchMode

from sims.bench.benchmark import Trial, case
from toymodel import TaskConfig
from toymodel.config import ModelConfig, RunConfig
from toymodel.ensemble import Ensemble
from toymodel.reference import draw_sequences
from toymodel.tasks.modular_walks import draw_split

# So small that launching operations, not arithmetic, bounds a step.
TINY = RunConfig(
    stage="untied",
    task=TaskConfig(vocab=32, length=8, train=512, val=32, test=8),
    model=ModelConfig(d_model=16, heads=2, layers=1),
    batch_size=8,
    lr=1e-3,
    eval_size=32,
)
PUBLISHED = replace(
    RunConfig(stage="untied", batch_size=32), task=TaskConfig(train=2_000, val=64, test=8), eval_size=64
)


class _Count(TorchDispatchMode):
    """Counts dispatched operations, the cost on a launch-bound device."""

    def __init__(self) -> None:
        super().__init__()
        self.operations = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.operations += 1
        return func(*args, **(kwargs or {}))


def _dispatches(function) -> float:
    with _Count() as count:
        function()
    return float(count.operations)


def _against_sequential(config: RunConfig, members: int, steps: int, setting: str) -> Trial:
    configs = [replace(config, seed=seed) for seed in range(members)]
    alone = [Ensemble([c]) for c in configs]
    together = Ensemble(configs)

    def sequential() -> list[Ensemble]:
        for ensemble in alone:
            ensemble.advance(steps)
        return alone

    def ensemble() -> Ensemble:
        together.advance(steps)
        return together

    def difference(_: list[Ensemble], __: Ensemble) -> float:
        pairs = [(e.weights(0), together.weights(k)) for k, e in enumerate(alone)]
        # NaN stays NaN, which no goal admits.
        return float(np.max([(a[name] - b[name]).abs().max() for a, b in pairs for name in a]))

    return Trial(setting, sequential, ensemble, difference)


@case("tiny ensemble / one run at a time", goal=3.5, max_error=0.0)
def tiny_ensemble(quick: bool) -> Trial:
    """Compare sixteen members of a launch-bound size; the results are bitwise equal."""
    steps = 5 if quick else 40
    return _against_sequential(TINY, 16, steps, f"K=16 V=32 T=8 d=16 B=8, {steps} steps")


@case("dispatched operations, 16 runs / one ensemble", goal=10.0, max_error=0.0)
def dispatches(quick: bool) -> Trial:
    """Compare numbers of operations: the gain where launches bound the speed."""
    return replace(_against_sequential(TINY, 16, 1, "K=16, 1 step"), cost=_dispatches, unit="ops")


@case("published size, ensemble / one run at a time", goal=0.9, max_error=0.0)
def real_shape(quick: bool) -> Trial:
    """Compare where arithmetic bounds the speed: an ensemble must not be slower."""
    steps = 1 if quick else 3
    return _against_sequential(PUBLISHED, 4, steps, f"K=4 V=1024 T=64 d=128 B=32, {steps} steps")


@case("dataset / loop over sequences", goal=80.0, max_error=0.05)
def task_generator(quick: bool) -> Trial:
    """Compare draws from the same distribution by different streams; the error is that of the mean token."""
    config = TaskConfig()
    n = 400 if quick else 4_000

    def by_loop() -> np.ndarray:
        return draw_sequences(config, np.random.default_rng(0), n)[0]

    def vectorised() -> np.ndarray:
        return draw_split(config, np.random.default_rng(0), n).tokens

    def difference(slow: np.ndarray, fast: np.ndarray) -> float:
        return abs(float(slow.mean()) - float(fast.mean())) / 1024

    return Trial(f"{n} sequences of 65 tokens", by_loop, vectorised, difference)
