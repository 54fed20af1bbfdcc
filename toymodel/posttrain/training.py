"""Continue one trained run on narrow data, on preferences, or on verifiable rewards."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from toymodel.config import RunConfig
from toymodel.data import dataset
from toymodel.errors import ConfigError
from toymodel.network import Network, network_of
from toymodel.posttrain.config import Kind, PostTraining
from toymodel.posttrain.losses import dpo_losses, masked_mean, reinforce_losses
from toymodel.posttrain.sampling import picked_log_probs, sample_continuations, token_log_probs
from toymodel.precision import full_precision
from toymodel.stages import stage
from toymodel.stages.base import Params
from toymodel.tasks import ModularWalks
from toymodel.tasks.modular_walk_laws import possible_walks
from toymodel.tasks.modular_walk_probes import probe_split
from toymodel.trainable import State, Trainable

Band = tuple[int, int]
# Streams of random numbers of their own, one for each kind: training batches have others (`toymodel.feed`).
STREAM = 23
# Sequences of the narrow data.
NARROW = 2_048


class Objective(Protocol):
    """Give the loss of one update."""

    def __call__(self, params: Params) -> Tensor:
        """Return the loss () of the parameters (1, *shape), on data that it draws."""
        ...


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
    if settings.prompt + settings.length > task.length + 1:
        raise ConfigError(
            f"prompt {settings.prompt} and length {settings.length} are longer than the {task.length + 1} tokens of a "
            "sequence; lower them"
        )
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


def as_params(weights: Mapping[str, Tensor], device: torch.device | str = "cpu") -> dict[str, Tensor]:
    """Return parameters (1, *shape) of the weights (*shape) of one run."""
    return {name: value.detach().to(device).unsqueeze(0) for name, value in weights.items()}


@full_precision()
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
    check_post(config, settings, band)
    network = network_at_end(config)
    trainable = Trainable(
        network,
        torch.tensor([settings.lr]),
        [config.weight_decay],
        config.newton_schulz,
        beta2=config.beta2,
        clip=settings.clip,
    )
    for bank in trainable.banks:
        bank.load([weights])
    loss_of = objective(config, weights, settings, band)
    for t in range(1, settings.steps + 1):
        loss = loss_of(trainable.params)
        grads = torch.autograd.grad(loss, list(trainable.params.values()))
        trainable.step(trainable.flatten(dict(zip(trainable.params, grads, strict=True))), t)
        if progress is not None:
            progress(t, float(loss.detach()))
    return trainable.weights([0])[0]


def objective(
    config: RunConfig, weights: Mapping[str, Tensor], settings: PostTraining, band: Band | None = None
) -> Objective:
    """Return the loss of a kind of post-training; arguments as `post_train`."""
    task = check_post(config, settings, band)
    network, batch = network_at_end(config), settings.batch_size
    kind: Kind = settings.kind
    # Prompts and batches of one seed are the same for all kinds that take them from the training split.
    draws = np.random.default_rng(np.random.SeedSequence(settings.seed, spawn_key=(STREAM,)))
    train = torch.tensor(dataset(task).train.tokens).long()
    if kind == "sft":
        assert band is not None
        train = torch.tensor(probe_split(task, *band, n=NARROW, seed=settings.seed).tokens).long()
    if kind in ("plain", "sft"):
        return _NextToken(network, train, batch, draws)
    generator = torch.Generator().manual_seed(int(draws.integers(2**62)))
    if kind == "rlvr":
        prompts = train[:, : settings.prompt]
        return _Rewards(network, task, prompts, settings, draws, generator)
    chosen = train[torch.tensor(draws.permutation(len(train))[: settings.pairs])]
    pairs = draw_pairs(network, as_params(weights), task, chosen, generator)
    return _Preferences(network, pairs, batch, settings.beta, draws)


@dataclass(eq=False)
class _NextToken:
    network: Network
    sequences: Tensor
    batch: int
    draws: np.random.Generator

    def __call__(self, params: Params) -> Tensor:
        rows = self.draws.integers(0, len(self.sequences), self.batch)
        return self.network.losses(params, self.sequences[torch.tensor(rows)][None])[0]


@dataclass(eq=False)
class _Rewards:
    network: Network
    task: ModularWalks
    prompts: Tensor
    settings: PostTraining
    draws: np.random.Generator
    generator: torch.Generator

    def __call__(self, params: Params) -> Tensor:
        own = self.settings
        rows = self.draws.integers(0, len(self.prompts), own.batch_size // own.samples)
        prompts = self.prompts[torch.tensor(rows)]
        tokens = sample_continuations(
            self.network, params, prompts, own.samples, own.length, self.generator
        ).flatten(0, 1)
        rewards = torch.tensor(possible_walks(self.task, tokens.numpy())).float().view(-1, own.samples)
        drawn = picked_log_probs(self.network, params, tokens)[:, own.prompt - 1 :].sum(dim=1)
        return reinforce_losses(drawn.view(-1, own.samples), rewards).mean()


@dataclass(frozen=True, eq=False)
class Pairs:
    """Hold sequences (n, T+1), a wrong token (n, T) at every position, whether it counts, and both as before.

    Attributes:
        sequences: the true ones.
        wrong: tokens that the reference drew in place of the next ones.
        counted: whether no walk has that token after the tokens before it.
        right_before, wrong_before: (n, T) log-probabilities of the reference.
    """

    sequences: Tensor
    wrong: Tensor
    counted: Tensor
    right_before: Tensor
    wrong_before: Tensor


@torch.no_grad()
def draw_pairs(
    network: Network, params: Params, task: ModularWalks, sequences: Tensor, generator: torch.Generator
) -> Pairs:
    """Draw at every position a token other than the next one from the network; it counts where it is impossible.

    Positions that have read one token are left out: there most tokens are possible.
    """
    log_probs = token_log_probs(network, params, sequences)
    right = sequences[:, 1:, None]
    others = log_probs.double().exp().scatter(-1, right, 0.0).clamp(min=1e-30).scatter(-1, right, 0.0)
    wrong = torch.multinomial(others.flatten(0, 1), 1, generator=generator).view(right.shape)
    counted = torch.zeros(right.shape[:2], dtype=torch.bool)
    for t in range(1, right.shape[1]):
        with_wrong = torch.cat([sequences[:, : t + 1], wrong[:, t]], dim=1)
        counted[:, t] = torch.tensor(~possible_walks(task, with_wrong.numpy()))
    both = (log_probs.gather(-1, own).squeeze(-1) for own in (right, wrong))
    return Pairs(sequences, wrong.squeeze(-1), counted, *both)


@dataclass(eq=False)
class _Preferences:
    network: Network
    pairs: Pairs
    batch: int
    beta: float
    draws: np.random.Generator

    def __call__(self, params: Params) -> Tensor:
        rows = torch.tensor(self.draws.integers(0, len(self.pairs.sequences), self.batch))
        own = self.pairs
        log_probs = token_log_probs(self.network, params, own.sequences[rows])
        right, wrong = (
            log_probs.gather(-1, tokens[..., None]).squeeze(-1)
            for tokens in (own.sequences[rows, 1:], own.wrong[rows])
        )
        losses = dpo_losses(right, wrong, own.right_before[rows], own.wrong_before[rows], self.beta)
        return masked_mean(losses, own.counted[rows])
