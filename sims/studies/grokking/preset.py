"""Define the runs of the study: operations that are learned late, and four types of control that memorise only.

Weight decay, labels, the number of training pairs and the operation are each taken away from the setting in which the
network groks. A signal that warns of grokking has to tell the runs that grok from every type of control; random labels
and operations that are not learned keep the weight decay, whose traces in the weights are not those of generalisation.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

from sims.runs.measure_config import MeasureConfig
from sims.studies.grokking.study import STUDY
from sims.studies.profile import ToyProfile
from sims.system.errors import QueryError
from toymodel.config import ModelConfig, RunConfig
from toymodel.stages import stage
from toymodel.tasks.modular_arithmetic import ModularArithmetic, Operation

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
WINDOW, STRIDE, DRAWS = 10, 5, 199
PAIRS = 3
Network = Literal["mlp", "rope", "transformer"]


@dataclass(frozen=True)
class Preset:
    """Describe a network that is known to generalise late, and the runs in which it does and does not.

    Attributes:
        stage, width, layers: of the network.
        p: modulus of the operations.
        batch: training examples of a step.
        lr, weight_decay: of the runs that are meant to generalise.
        steps: of every run.
        accuracy, signals: steps from one measurement of accuracies, and of signals, to the next.
        operations: learned late by it.
        controlled: those of the controls without weight decay, with random labels, and with few pairs.
        hard: operations that it does not learn within the steps.
    """

    stage: str
    width: int
    layers: int
    p: int
    batch: int
    lr: float
    weight_decay: float
    steps: int
    accuracy: int
    signals: int
    operations: tuple[Operation, ...]
    controlled: tuple[Operation, ...]
    hard: tuple[Operation, ...]

    @property
    def settings(self) -> int:
        """Return the number of settings, each of which is trained with every seed."""
        return len(self.operations) + 3 * len(self.controlled) + len(self.hard)


_SMALL = Preset(
    stage="mlp",
    width=64,
    layers=2,
    p=47,
    batch=512,
    lr=3e-3,
    weight_decay=1.0,
    steps=3_000,
    accuracy=25,
    signals=50,
    operations=("add", "sub", "mul"),
    controlled=("add", "mul"),
    hard=("x2+xy+y2", "x3+xy"),
)
NETWORKS: Mapping[Network, Preset] = {
    "mlp": _SMALL,
    "rope": replace(_SMALL, stage="rope", layers=1, weight_decay=3.0),
    "transformer": Preset(
        stage="baseline",
        width=128,
        layers=2,
        p=97,
        batch=512,
        lr=1e-3,
        weight_decay=1.0,
        steps=5_000,
        accuracy=100,
        signals=100,
        operations=("add",),
        controlled=("add",),
        hard=("x3+xy",),
    ),
}
# Of profile full: the transformer has the operations of the published runs, two for each of three types of control, and
# one hard operation; with eight seeds at least eight runs of each type.
FULL_NETWORKS: Mapping[Network, Preset] = {
    **NETWORKS,
    "transformer": replace(
        NETWORKS["transformer"],
        steps=7_500,
        operations=("add", "sub", "mul", "x2+y2"),
        controlled=("add", "mul"),
    ),
}
HARD = tuple(dict.fromkeys(op for preset in NETWORKS.values() for op in preset.hard))


@STUDY.profile
def quick() -> dict[Network, ToyProfile]:
    """Return the runs of each network: minutes on two CPU cores for the smallest."""
    return {network: _profile(network, NETWORKS) for network in NETWORKS}


@STUDY.profile
def full() -> dict[Network, ToyProfile]:
    """Return the runs of each network with the published operations."""
    return {network: _profile(network, FULL_NETWORKS) for network in FULL_NETWORKS}


def _profile(network: Network, presets: Mapping[Network, Preset]) -> ToyProfile:
    configs = partial(grokking_configs, network=network, presets=presets)
    return ToyProfile(configs, grokking_measurements(network, presets), label(network, presets))


def label(network: Network, presets: Mapping[Network, Preset] = NETWORKS) -> dict[str, str]:
    """Return the purpose of a folder of these runs; a folder of another one is refused before any work."""
    preset = presets[network]
    return {"campaign": "grokking", "preset": f"{network}, p = {preset.p}, {preset.steps} steps"}


def grokking_configs(
    seeds: Sequence[int], network: Network = "mlp", presets: Mapping[Network, Preset] = NETWORKS
) -> list[RunConfig]:
    """Return the runs, seed by seed: operations that are meant to generalise, and those of each type of control."""
    return [
        replace(config, seed=seed, task=replace(config.task, seed=seed))
        for seed in seeds
        for config in _kinds(presets[network])
    ]


def _kinds(preset: Preset) -> Iterator[RunConfig]:
    for op in preset.operations:
        yield _run(preset, op)
    for op in preset.controlled:
        yield _run(preset, op, weight_decay=0.0)
        yield _run(preset, op, labels="random")
        yield _run(preset, op, fraction=0.25)
    for op in preset.hard:
        yield _run(preset, op)


def _run(preset: Preset, op: Operation, weight_decay: float | None = None, **task: Any) -> RunConfig:
    return RunConfig(
        stage=preset.stage,
        task=ModularArithmetic(p=preset.p, op=op, **task),
        model=ModelConfig(d_model=preset.width, layers=preset.layers),
        batch_size=preset.batch,
        lr=preset.lr,
        steps=preset.steps,
        weight_decay=preset.weight_decay if weight_decay is None else weight_decay,
        beta2=0.98,
        clip=1.0,
        eval_every=500,
        eval_size=None,
    )


def grokking_measurements(
    network: Network = "mlp", presets: Mapping[Network, Preset] = NETWORKS
) -> MeasureConfig:
    """Return what is measured between the steps: accuracies, windows of updates, and the commutator defect."""
    preset = presets[network]
    return MeasureConfig(
        every=preset.steps,
        sequences=512,
        gradient_sequences=0,
        bands=(),
        training_bands=0,
        causal_sequences=0,
        checkpoints=False,
        accuracy=preset.accuracy,
        updates=preset.signals,
        update_windows=(WINDOW,),
        update_stride=STRIDE,
        update_groups=("all",),
        update_draws=DRAWS,
        update_decay=True,
        defect=preset.signals,
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
