"""Define the runs of the study: operations that are learned late, and four types of control that memorise only.

Weight decay, labels, the number of training pairs and the operation are each taken away from the setting in which the
network groks. A signal that warns of grokking has to tell the runs that grok from every type of control; random labels
and operations that are not learned keep the weight decay, whose traces in the weights are not those of generalisation.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from sims.runs.measure_config import MeasureConfig
from sims.system.errors import QueryError
from toymodel.config import ModelConfig, RunConfig
from toymodel.stages import stage
from toymodel.tasks.modular_arithmetic import ModularArithmetic, Operation

# Learned late by the network of the preset, and not learned by it within the steps.
OPERATIONS = ("add", "sub", "mul")
HARD = ("x2+xy+y2", "x3+xy")
# Runs whose training pairs are fewer than this share count as controls: too few to find the rule.
FEW = 0.3
MEANT = ""
NO_DECAY, RANDOM, FEW_PAIRS, HARD_OPERATION = CONTROLS = (
    "no weight decay",
    "random labels",
    "few pairs",
    "hard operation",
)
SEEDS = 4
STEPS, BATCH = 3_000, 512
ACCURACY_EVERY, SIGNALS_EVERY = 25, 50
WINDOW, STRIDE, DRAWS = 10, 5, 199
PAIRS = 3
# The networks that are known to generalise late, and the weight decay with which they do.
Network = Literal["mlp", "rope"]
DECAY: Mapping[Network, float] = {"mlp": 1.0, "rope": 3.0}


def label(network: Network) -> dict[str, str]:
    """Return the purpose of a folder of these runs; a folder of another one is refused before any work."""
    return {"campaign": "grokking", "preset": f"{network}, p = 47, {STEPS} steps"}


def grokking_configs(seeds: Sequence[int], network: Network = "mlp") -> list[RunConfig]:
    """Return the runs: three operations that are meant to generalise, and two settings of each type of control."""
    return [
        replace(config, seed=seed, task=replace(config.task, seed=seed))
        for config in _kinds(network)
        for seed in seeds
    ]


def _kinds(network: Network) -> Iterator[RunConfig]:
    for op in OPERATIONS:
        yield _run(network, op)
    for op in ("add", "mul"):
        yield _run(network, op, weight_decay=0.0)
        yield _run(network, op, labels="random")
        yield _run(network, op, fraction=0.25)
    for op in HARD:
        yield _run(network, op)


def _run(network: Network, op: Operation, weight_decay: float | None = None, **task: Any) -> RunConfig:
    return RunConfig(
        stage=network,
        task=ModularArithmetic(p=47, op=op, **task),
        model=ModelConfig(d_model=64, layers=2 if network == "mlp" else 1),
        batch_size=BATCH,
        lr=3e-3,
        steps=STEPS,
        weight_decay=DECAY[network] if weight_decay is None else weight_decay,
        beta2=0.98,
        clip=1.0,
        eval_every=500,
        eval_size=None,
    )


def grokking_measurements() -> MeasureConfig:
    """Return what is measured between the steps: accuracies, windows of updates, and the commutator defect."""
    return MeasureConfig(
        every=STEPS,
        sequences=512,
        gradient_sequences=0,
        bands=(),
        training_bands=0,
        causal_sequences=0,
        checkpoints=False,
        accuracy=ACCURACY_EVERY,
        updates=SIGNALS_EVERY,
        update_windows=(WINDOW,),
        update_stride=STRIDE,
        update_groups=("all",),
        update_draws=DRAWS,
        update_decay=True,
        defect=SIGNALS_EVERY,
        defect_pairs=PAIRS,
    )


def control_of(config: RunConfig) -> str:
    """Return the type of control of a run, "" where it is meant to generalise.

    Raises:
        QueryError: the task is no modular arithmetic.

    >>> [control_of(config) for config in grokking_configs([0])][:5]
    ['', '', '', 'no weight decay', 'random labels']
    """
    task = config.task
    if not isinstance(task, ModularArithmetic):
        raise QueryError(
            f"run {config.run_id} has the task {task.kind}; the study compares runs of modular_arithmetic"
        )
    if task.labels == "random":
        return RANDOM
    decay = config.weight_decay
    if (stage(config.stage).routing.weight_decay if decay is None else decay) == 0:
        return NO_DECAY
    if task.fraction < FEW:
        return FEW_PAIRS
    return HARD_OPERATION if task.op in HARD else MEANT
