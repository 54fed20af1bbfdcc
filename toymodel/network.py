"""The networks of the stages: what an ensemble needs of one, and which stage has which."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from toymodel.data import dataset
from toymodel.errors import ConfigError
from toymodel.mlp import Mlp
from toymodel.parameter_spec import ParameterSpec
from toymodel.sizes import Sizes
from toymodel.stages import Stage
from toymodel.stages.base import Params
from toymodel.task import Task
from toymodel.transformer import Tap, Transformer, pass_on


class Network(Protocol):
    """Compute the function of one stage at one size, for K members together; it holds no state.

    T' is T, or 1 for a network that predicts the last target only.
    """

    @property
    def stage(self) -> Stage:
        """Return the stage."""
        ...

    @property
    def sizes(self) -> Sizes:
        """Return every shape."""
        ...

    @property
    def windows(self) -> tuple[int, ...]:
        """Return the attention window of each block, where they are limited."""
        ...

    def at(self, step: int, steps: int) -> Network:
        """Return the same architecture as it is after that many of the configured steps."""
        ...

    def specs(self) -> tuple[ParameterSpec, ...]:
        """Return every parameter, in the order in which they are stored."""
        ...

    def parameter_count(self) -> int:
        """Count the trainable numbers of one member."""
        ...

    def hidden(self, params: Params, tokens: Tensor, tap: Tap = pass_on, last: bool = False) -> Tensor:
        """Return the states (K, B, T', d) that the head reads, of tokens (K, B, T)."""
        ...

    def logits(self, params: Params, hidden: Tensor) -> Tensor:
        """Return the logits (K, B, T', V) of states (K, B, T', d)."""
        ...

    def losses(
        self,
        params: Params,
        sequences: Tensor,
        tap: Tap = pass_on,
        mask: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> Tensor:
        """Return the (K,) mean cross-entropies in nats of (K, B, T+1) sequences over the targets that count."""
        ...


def network_of(stage: Stage, sizes: Sizes, logit_bias: bool = False) -> Network:
    """Return the network of a stage.

    Args:
        stage, sizes: which one, and every shape.
        logit_bias: whether the logits of a transformer have a learned bias; that of other networks has one.

    >>> from toymodel.stages import stage
    >>> type(network_of(stage("mlp"), Sizes(5, 2, 8, 1, 1, 16))).__name__
    'Mlp'
    """
    return Mlp(stage, sizes) if stage.network == "mlp" else Transformer(stage, sizes, logit_bias=logit_bias)


def check_targets(stage: Stage, task: Task) -> None:
    """Refuse a task whose losses count targets that the network of a stage does not predict; its data are drawn.

    Raises:
        ConfigError: naming stage and task.

    >>> from toymodel import ModularWalks
    >>> from toymodel.stages import stage
    >>> check_targets(stage("mlp"), ModularWalks(train=8, val=8, test=8))  # doctest: +IGNORE_EXCEPTION_DETAIL
    Traceback (most recent call last):
    ConfigError: stage mlp predicts the last target of a sequence only
    """
    if stage.network != "mlp":
        return
    data = dataset(task)
    masks = [split.mask for split in (data.train, data.val, data.test)]
    if any(mask is None or mask[:, :-1].any() for mask in masks):
        raise ConfigError(
            f"stage {stage.name} predicts the last target of a sequence only, and {task.kind} counts others; take a "
            "task such as modular_arithmetic, or another stage"
        )
