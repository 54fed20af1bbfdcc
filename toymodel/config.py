"""Configurations of training runs: frozen, validated, each with one canonical hash."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Literal

from toymodel.errors import ConfigError
from toymodel.intervention import NONE, Intervention
from toymodel.limits import check_numbers, plain_numbers
from toymodel.rates import ONE_RATE, Rates
from toymodel.sizes import Sizes
from toymodel.stages import stage
from toymodel.task import OMIT_DEFAULT, Task
from toymodel.tasks import ModularWalks, check_task, task_from, task_values

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

NewtonSchulz = Literal["bfloat16", "float32", "exact"]
Precision = Literal["float32", "tf32", "bfloat16"]
# How training steps are launched; no part of a run's identity.
Graphs = Literal["auto", "on", "off"]


@dataclass(frozen=True)
class ModelConfig:
    """Set the size of the transformer; the defaults are the published toy.

    Args:
        d_model: residual width.
        heads: attention heads; must divide d_model into an even head width.
        layers: blocks.
        mlp_ratio: MLP width over d_model.

    Raises:
        ConfigError: a size below 1, or an odd head width.

    >>> ModelConfig(d_model=64).layers
    2
    """

    d_model: int = 128
    heads: int = 4
    layers: int = 2
    mlp_ratio: int = 2

    def __post_init__(self) -> None:
        plain_numbers(self)
        for name in ("d_model", "heads", "layers", "mlp_ratio"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.d_model % (2 * self.heads):
            raise ConfigError(
                f"d_model {self.d_model} over {self.heads} heads is not an even head width; rotary embeddings need "
                f"d_model to be a multiple of {2 * self.heads}"
            )


@dataclass(frozen=True)
class RunConfig:
    """Describe one training run of one toy transformer.

    Args:
        stage: name of a stage (see `toymodel.stages`).
        task: the data distribution, its sizes and its data seed (see `toymodel.tasks`).
        model: size of the transformer.
        batch_size: sequences a step, drawn with replacement from the training split.
        lr: base learning rate; Muon matrices use 50 times it in the stages that name Muon.
        steps: optimiser steps at most; windows that open during training open over a share of them.
        seed: of the initialisation and of the batch order (the data have their own, `task.seed`).
        weight_decay: decoupled decay of the AdamW group; None takes the default of the stage.
        newton_schulz: arithmetic of Muon's orthogonalisation (published: bfloat16); "exact" is the polar factor.
        eval_every: steps between evaluations.
        eval_size: validation sequences per evaluation; None takes all.
        compile: train by code of torch.compile, which rounds elsewhere; compared with eager code before it trains.
        precision: of the matrix products of training steps; losses of evaluations and everything measured are in
            float32 at least. tf32 needs a GPU.
        target_loss: a run whose validation loss is at or below it ends; None trains all steps.
        beta2: decay of AdamW's second moment; None takes that of the stage.
        clip: largest norm of a run's gradient over all its parameters; longer ones are scaled to it. None for none.
        intervention: what is changed in some updates on purpose (see `Intervention`); by default nothing.
        rates: how the learning rates of matrices differ (see `Rates`); by default one rate.

    Raises:
        ConfigError: a value outside its range; the message names value, rule and remedy.

    >>> RunConfig(stage="muon", seed=3).run_id[:22]
    'muon-b32-lr0.0006-s3-8'
    """

    stage: str = "baseline"
    task: Task = field(default_factory=ModularWalks)
    model: ModelConfig = field(default_factory=ModelConfig)
    batch_size: int = 32
    lr: float = 6e-4
    steps: int = 5_000
    seed: int = 0
    weight_decay: float | None = None
    newton_schulz: NewtonSchulz = "bfloat16"
    eval_every: int = 50
    eval_size: int | None = 512
    target_loss: float | None = None
    precision: Precision = field(default="float32", metadata=OMIT_DEFAULT)
    compile: bool = field(default=False, metadata=OMIT_DEFAULT)
    beta2: float | None = field(default=None, metadata=OMIT_DEFAULT)
    clip: float | None = field(default=None, metadata=OMIT_DEFAULT)
    intervention: Intervention = field(default=NONE, metadata=OMIT_DEFAULT)
    rates: Rates = field(default=ONE_RATE, metadata=OMIT_DEFAULT)

    def __post_init__(self) -> None:
        plain_numbers(self)
        check_numbers(self)
        stage(self.stage)  # raises, with the known names, if there is no such stage
        check_task(self.task)
        for name in ("batch_size", "steps", "eval_every"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.batch_size > self.task.train:
            raise ConfigError(
                f"batch_size {self.batch_size} is larger than the {self.task.train} training sequences; "
                "lower batch_size or raise task.train"
            )
        if not 0 < self.lr < float("inf"):
            raise ConfigError(f"lr is {self.lr}; it must be a positive number")
        if self.target_loss is not None and not self.target_loss > 0:
            raise ConfigError(f"target_loss is {self.target_loss}; a loss in nats is positive")
        if self.weight_decay is not None and not 0 <= self.weight_decay < float("inf"):
            raise ConfigError(f"weight_decay is {self.weight_decay}; it must be 0 or positive")
        if self.beta2 is not None and not 0 <= self.beta2 < 1:
            raise ConfigError(f"beta2 is {self.beta2}; it must be at least 0 and below 1, such as 0.98")
        if self.clip is not None and not 0 < self.clip < float("inf"):
            raise ConfigError(f"clip is {self.clip}; a norm of gradients is positive: leave it out for none")
        if self.newton_schulz not in ("bfloat16", "float32", "exact"):
            raise ConfigError(
                f"newton_schulz is {self.newton_schulz!r}; choose 'bfloat16' (published), 'float32' or 'exact'"
            )
        if self.precision not in ("float32", "tf32", "bfloat16"):
            raise ConfigError(
                f"precision is {self.precision!r}; choose 'float32', 'tf32' (a GPU's) or 'bfloat16'"
            )
        if self.compile and stage(self.stage).moves(self.model.layers):
            raise ConfigError(
                f"stage {self.stage} has an attention window that opens during training, which would be compiled anew "
                "whenever it does; leave out --compile"
            )
        if self.eval_size is not None and not 1 <= self.eval_size <= self.task.val:
            raise ConfigError(
                f"eval_size is {self.eval_size}; it must lie in 1..{self.task.val} (task.val) or be None for all"
            )
        if self.seed < 0:
            raise ConfigError(f"seed is {self.seed}; it must be 0 or positive")
        decay = stage(self.stage).routing.weight_decay if self.weight_decay is None else self.weight_decay
        self.intervention.check(self.steps, decay)
        self.rates.check(self.model.layers if stage(self.stage).network == "transformer" else 0, self.stage)

    @property
    def sizes(self) -> Sizes:
        """Return all numbers that fix a shape of the transformer."""
        m = self.model
        return Sizes(self.task.vocab, self.task.length, m.d_model, m.heads, m.layers, m.mlp_ratio * m.d_model)

    @property
    def tokens_per_step(self) -> int:
        """Return the target tokens of one optimiser step: batch_size · task.length."""
        return self.batch_size * self.task.length

    @property
    def run_id(self) -> str:
        """Return a readable name with the first 10 digits of the canonical hash."""
        return f"{self.stage}-b{self.batch_size}-lr{self.lr:.3g}-s{self.seed}-{canonical_hash(self)[:10]}"


def as_dict(config: DataclassInstance) -> dict[str, Any]:
    """Return a dataclass as plain JSON values."""
    return json.loads(canonical_json(config))


def canonical_json(config: DataclassInstance) -> str:
    """Return the one JSON text of a configuration: sorted keys, no spaces, shortest round-trip floats.

    >>> canonical_json(ModelConfig(8, 2, 1))
    '{"d_model":8,"heads":2,"layers":1,"mlp_ratio":2}'
    """
    return json.dumps(_values(config), sort_keys=True, separators=(",", ":"), allow_nan=False)


def _values(config: DataclassInstance) -> dict[str, Any]:
    values = asdict(config)
    for spec in fields(config):
        value = getattr(config, spec.name)
        if spec.metadata == OMIT_DEFAULT and value == spec.default:
            del values[spec.name]
        elif isinstance(value, Task):
            values[spec.name] = task_values(value)
    return values


def canonical_hash(config: DataclassInstance) -> str:
    """Return the SHA-256 (hex) of the canonical JSON of a dataclass."""
    return hashlib.sha256(canonical_json(config).encode()).hexdigest()


def run_config(data: dict[str, Any]) -> RunConfig:
    """Return the configuration that `as_dict` wrote.

    Raises:
        ConfigError: an unknown or missing field, or a value outside its range.

    >>> run_config(as_dict(RunConfig(seed=3))) == RunConfig(seed=3)
    True
    """
    try:
        parts = {"task": task_from(data["task"]), "model": ModelConfig(**data["model"])}
        if "intervention" in data:
            parts["intervention"] = Intervention(**data["intervention"])
        if "rates" in data:
            parts["rates"] = Rates(**data["rates"])
        return RunConfig(**{**data, **parts})
    except (TypeError, KeyError) as error:
        raise ConfigError(
            f"not a run configuration of this version: {error}; it was written by another version or by hand"
        ) from error


def ensemble_key(config: RunConfig) -> RunConfig:
    """Return the configuration without the differences that members of one ensemble may have.

    They may differ in lr, weight_decay, intervention, seed and task.seed (data sets of one shape are stacked).

    >>> ensemble_key(RunConfig(seed=1, lr=0.1)) == ensemble_key(RunConfig(seed=2))
    True
    """
    task = replace(config.task, seed=0)
    return replace(config, lr=1.0, weight_decay=None, seed=0, task=task, intervention=NONE)
