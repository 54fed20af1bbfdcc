"""Continue one trained toy run on narrow data, on preferences, or on verifiable rewards."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from toymodel.config import RunConfig
from toymodel.data import dataset
from toymodel.errors import ConfigError
from toymodel.network import Network, network_of
from toymodel.posttrain.config import PostTraining
from toymodel.posttrain.continued import Objective, objective_of, train_further
from toymodel.sequences import Rows
from toymodel.stages import stage
from toymodel.tasks import ModularWalks
from toymodel.tasks.modular_walk_laws import possible_walks
from toymodel.tasks.modular_walk_probes import probe_split
from toymodel.trainable import State, Trainable

Band = tuple[int, int]
# Sequences of the narrow data.
NARROW = 2_048


def check_post(config: RunConfig, settings: PostTraining, band: Band | None = None) -> ModularWalks:
    """Return the task of a run that can be post-trained.

    Raises:
        ConfigError: another task than modular walks without noise or mixtures, a network that predicts the last target
            only, prompts and continuations longer than the sequences, or no band that fits for narrow data.
    """
    task = config.task
    if not isinstance(task, ModularWalks):
        raise ConfigError(
            f"the task is {task.kind}; post-training knows what is right in {ModularWalks.kind} only"
        )
    if stage(config.stage).network != "transformer":
        raise ConfigError(f"stage {config.stage} does not predict every next token; take a transformer")
    settings.check_length(task.length)
    if settings.kind == "sft":
        if band is None:
            raise ConfigError("sft needs the band (modulus, offset) of its data; pass one, such as (17, 0)")
        probe_split(task, *band, n=1)
    # Refuses mixtures and noise.
    possible_walks(task, np.zeros((0, 2), np.int64))
    return task


def network_at_end(config: RunConfig) -> Network:
    """Return the network of a run as it is after its last step."""
    return network_of(stage(config.stage), config.sizes).at(config.steps, config.steps)


@dataclass(frozen=True, eq=False)
class ContinuedWalks:
    """Continue a toy run on modular walks (`Continued`): a continuation is right if some walk has it.

    Args:
        config: of the run.
        task: its task.
        band: modulus and offset of the narrow data of "sft".
    """

    config: RunConfig
    task: ModularWalks
    band: Band | None = None

    @property
    def network(self) -> Network:
        """Return the network after its last step."""
        return self._network

    @cached_property
    def _network(self) -> Network:
        return network_at_end(self.config)

    def trainable(self, lr: float, clip: float) -> Trainable:
        """Return parameters and fresh moments of its optimiser."""
        config = self.config
        return Trainable(
            self.network,
            torch.tensor([lr]),
            [config.weight_decay],
            config.newton_schulz,
            beta2=config.beta2,
            clip=clip,
        )

    def train(self) -> Rows:
        """Return the training split."""
        return Rows(torch.tensor(dataset(self.task).train.tokens).long())

    def narrow(self, seed: int) -> Rows:
        """Return sequences of the band."""
        assert self.band is not None
        return Rows(torch.tensor(probe_split(self.task, *self.band, n=NARROW, seed=seed).tokens).long())

    def right(self, tokens: np.ndarray, prompt: int) -> np.ndarray:
        """Return (n,) whether some walk has prompts with their continuations (n, m)."""
        del prompt
        return possible_walks(self.task, tokens)

    def impossible(self, sequences: Tensor, others: Tensor) -> Tensor:
        """Return (n, T) whether no walk has other tokens after the tokens before them.

        Positions that have read one token are left out: there most tokens are possible.
        """
        found = torch.zeros(others.shape, dtype=torch.bool)
        for t in range(1, others.shape[1]):
            with_other = torch.cat([sequences[:, : t + 1], others[:, t : t + 1]], dim=1)
            found[:, t] = torch.tensor(~possible_walks(self.task, with_other.numpy()))
        return found


def post_train(
    config: RunConfig,
    weights: Mapping[str, Tensor],
    settings: PostTraining,
    band: Band | None = None,
    progress: Callable[[int, float], None] | None = None,
) -> State:
    """Train a run further from its last weights, with fresh moments of its optimiser, and return the new weights.

    Equal arguments give equal weights; the kinds differ in their losses alone.

    Args:
        config: of the run.
        weights: its parameters (*shape) by name.
        settings: what is done.
        band: modulus and offset of the narrow data of "sft".
        progress: called with the number of updates and the last loss.

    Raises:
        ConfigError: as `check_post`.

    >>> from toymodel import ModelConfig, TaskConfig
    >>> from toymodel.ensemble import Ensemble
    >>> task = TaskConfig(vocab=11, length=8, train=64, val=16, test=16)
    >>> config = RunConfig("rope", task=task, model=ModelConfig(8, 2, 1), batch_size=4, eval_size=16)
    >>> settings = PostTraining("rlvr", steps=1, batch_size=8, samples=4, length=3)
    >>> sorted(post_train(config, Ensemble([config]).weights(0), settings))[0]
    'blocks.0.attn.o'
    """
    task = check_post(config, settings, band)
    return train_further(ContinuedWalks(config, task, band), weights, settings, progress)


def objective(
    config: RunConfig, weights: Mapping[str, Tensor], settings: PostTraining, band: Band | None = None
) -> Objective:
    """Return the loss of a kind of post-training; arguments as `post_train`."""
    return objective_of(ContinuedWalks(config, check_post(config, settings, band), band), weights, settings)
