"""What post-training needs of a trained model, and the updates of any kind of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from toymodel.errors import ConfigError
from toymodel.network import Network
from toymodel.posttrain.config import Kind, PostTraining
from toymodel.posttrain.losses import dpo_losses, masked_mean, reinforce_losses
from toymodel.posttrain.sampling import picked_log_probs, sample_continuations, token_log_probs
from toymodel.precision import full_precision
from toymodel.sequences import Sequences
from toymodel.stages.base import Params
from toymodel.trainable import State, Trainable

# Streams of random numbers of their own, one for each kind: training batches have others (`toymodel.feed`).
STREAM = 23
# Chances of tokens that are drawn from at once.
CHANCES = 2**22
# Samples, at least, whose share of right ones is told before training.
SAMPLES = 512


class Continued(Protocol):
    """Describe a trained model that goes on: its network, its data, and a rule for right continuations."""

    @property
    def network(self) -> Network:
        """Return the network as it is after its last step."""
        ...

    def trainable(self, lr: float, clip: float) -> Trainable:
        """Return parameters and fresh moments of its optimiser."""
        ...

    def train(self) -> Sequences:
        """Return the sequences that it was trained on."""
        ...

    def narrow(self, seed: int) -> Sequences:
        """Return the narrow data of "sft"."""
        ...

    def right(self, tokens: np.ndarray, prompt: int) -> np.ndarray:
        """Return (n,) whether prompts with their continuations (n, m) are right.

        Args:
            tokens: integers.
            prompt: tokens of a prompt, which are given.
        """
        ...

    def impossible(self, sequences: Tensor, others: Tensor) -> Tensor:
        """Return (n, T) whether other tokens (n, T) can never follow in the place of the next ones of (n, T+1)."""
        ...


@dataclass(frozen=True)
class Signal:
    """Hold what preferences and rewards have to learn from in a model before the first update.

    Attributes:
        pairs: of a true and a drawn next token, one a position.
        counted: those whose drawn token is impossible; with none, "dpo" trains nothing.
        samples: continuations of training prompts, those of the first updates of "rlvr".
        right: right ones.
        prompts: those of the samples.
        mixed: prompts with right and wrong samples; with none, rewards of a prompt are equal and "rlvr" trains nothing.

    >>> Signal(pairs=200, counted=30, samples=512, right=128, prompts=64, mixed=40).share
    0.25
    """

    pairs: int
    counted: int
    samples: int
    right: int
    prompts: int
    mixed: int

    @property
    def share(self) -> float:
        """Return the share of right samples."""
        return self.right / max(self.samples, 1)


class Objective(Protocol):
    """Give the loss of one update."""

    def __call__(self, params: Params) -> Tensor:
        """Return the loss () of the parameters (1, *shape), on data that it draws."""
        ...


def as_params(weights: Mapping[str, Tensor], device: torch.device | str = "cpu") -> dict[str, Tensor]:
    """Return parameters (1, *shape) of the weights (*shape) of one run."""
    return {name: value.detach().to(device).unsqueeze(0) for name, value in weights.items()}


@full_precision()
def train_further(
    model: Continued,
    weights: Mapping[str, Tensor],
    settings: PostTraining,
    progress: Callable[[int, float], None] | None = None,
) -> State:
    """Train a model further from its last weights, with fresh moments of its optimiser, and return the new weights.

    Equal arguments give equal weights; the kinds differ in their losses alone.

    Args:
        model: what goes on.
        weights: its parameters (*shape) by name.
        settings: what is done.
        progress: called with the number of updates and the last loss.
    """
    trainable = model.trainable(settings.lr, settings.clip)
    for bank in trainable.banks:
        bank.load([weights])
    loss_of = objective_of(model, weights, settings)
    for t in range(1, settings.steps + 1):
        loss = loss_of(trainable.params)
        grads = torch.autograd.grad(loss, list(trainable.params.values()))
        trainable.step(trainable.flatten(dict(zip(trainable.params, grads, strict=True))), t)
        if progress is not None:
            progress(t, float(loss.detach()))
    return trainable.weights([0])[0]


def objective_of(model: Continued, weights: Mapping[str, Tensor], settings: PostTraining) -> Objective:
    """Return the loss of a kind of post-training; arguments as `train_further`.

    Raises:
        ConfigError: "dpo" where no pair counts, which would train nothing.
    """
    kind: Kind = settings.kind
    draws = np.random.default_rng(np.random.SeedSequence(settings.seed, spawn_key=(STREAM,)))
    if kind in ("plain", "sft"):
        data = model.narrow(settings.seed) if kind == "sft" else model.train()
        return _NextToken(model.network, data, settings.batch_size, draws)
    if kind == "rlvr":
        return _rewards(model, settings, draws)
    pairs = _pairs(model, weights, settings, draws)
    if not pairs.counted.any():
        raise ConfigError(
            f"0 of {pairs.counted.numel()} pairs of dpo count: no token that the model draws in place of the next one "
            "is impossible, so that it would train nothing; take a rule that allows fewer tokens, or more pairs"
        )
    return _Preferences(model.network, pairs, settings.batch_size, settings.beta, draws)


def signal_of(model: Continued, weights: Mapping[str, Tensor], settings: Sequence[PostTraining]) -> Signal:
    """Return what preferences and rewards have to learn from before the first update.

    Args:
        model: what goes on.
        weights: its parameters (*shape) by name.
        settings: of which those of "dpo" and "rlvr" are looked at.
    """
    pairs, counted, samples, right, prompts, mixed = 0, 0, 0, 0, 0, 0
    for own in settings:
        draws = np.random.default_rng(np.random.SeedSequence(own.seed, spawn_key=(STREAM,)))
        if own.kind == "dpo":
            found = _pairs(model, weights, own, draws).counted
            pairs, counted = found.numel(), int(found.sum())
        elif own.kind == "rlvr":
            rewards, params = _rewards(model, own, draws), as_params(weights)
            while samples < SAMPLES:
                good = rewards.sample(params)[1].view(-1, own.samples)
                samples, right = samples + good.numel(), right + int(good.sum())
                prompts, mixed = prompts + len(good), mixed + int((good.any(1) & ~good.all(1)).sum())
    return Signal(pairs, counted, samples, right, prompts, mixed)


def _pairs(
    model: Continued, weights: Mapping[str, Tensor], settings: PostTraining, draws: np.random.Generator
) -> Pairs:
    train, generator = model.train(), _generator(draws)
    chosen = train.take(draws.permutation(len(train))[: settings.pairs])
    return draw_pairs(model, as_params(weights), chosen, generator)


def _rewards(model: Continued, settings: PostTraining, draws: np.random.Generator) -> _Rewards:
    generator = _generator(draws)
    return _Rewards(model, model.train(), settings, draws, generator)


def _generator(draws: np.random.Generator) -> torch.Generator:
    return torch.Generator().manual_seed(int(draws.integers(2**62)))


@dataclass(eq=False)
class _NextToken:
    network: Network
    sequences: Sequences
    batch: int
    draws: np.random.Generator

    def __call__(self, params: Params) -> Tensor:
        rows = self.draws.integers(0, len(self.sequences), self.batch)
        return self.network.losses(params, self.sequences.take(rows)[None])[0]


@dataclass(eq=False)
class _Rewards:
    model: Continued
    train: Sequences
    settings: PostTraining
    draws: np.random.Generator
    generator: torch.Generator

    @torch.no_grad()
    def sample(self, params: Params) -> tuple[Tensor, Tensor]:
        """Return the prompts of one update with continuations (n, m), and (n,) whether these are right."""
        own, network = self.settings, self.model.network
        rows = self.draws.integers(0, len(self.train), own.batch_size // own.samples)
        prompts = self.train.take(rows)[:, : own.prompt]
        tokens = sample_continuations(network, params, prompts, own.samples, own.length, self.generator)
        tokens = tokens.flatten(0, 1)
        return tokens, torch.tensor(self.model.right(tokens.numpy(), own.prompt))

    def __call__(self, params: Params) -> Tensor:
        own, network = self.settings, self.model.network
        tokens, right = self.sample(params)
        drawn = picked_log_probs(network, params, tokens)[:, own.prompt - 1 :].sum(dim=1)
        return reinforce_losses(drawn.view(-1, own.samples), right.float().view(-1, own.samples)).mean()


@dataclass(frozen=True, eq=False)
class Pairs:
    """Hold sequences (n, T+1), a wrong token (n, T) at every position, whether it counts, and both as before.

    Attributes:
        sequences: the true ones.
        wrong: tokens that the reference drew in place of the next ones.
        counted: whether that token can never follow the tokens before it.
        right_before, wrong_before: (n, T) log-probabilities of the reference.
    """

    sequences: Tensor
    wrong: Tensor
    counted: Tensor
    right_before: Tensor
    wrong_before: Tensor


@torch.no_grad()
def draw_pairs(model: Continued, params: Params, sequences: Tensor, generator: torch.Generator) -> Pairs:
    """Draw at every position a token other than the next one from a model; it counts where it is impossible."""
    network = model.network
    each = (sequences.shape[1] - 1) * network.sizes.vocab
    parts = []
    for some in sequences.split(max(1, CHANCES // each)):
        log_probs = token_log_probs(network, params, some)
        right = some[:, 1:, None]
        others = log_probs.double().exp().scatter(-1, right, 0.0).clamp(min=1e-30).scatter(-1, right, 0.0)
        wrong = torch.multinomial(others.flatten(0, 1), 1, generator=generator).view(right.shape)
        counted = model.impossible(some, wrong.squeeze(-1))
        both = (log_probs.gather(-1, own).squeeze(-1) for own in (right, wrong))
        parts.append((wrong.squeeze(-1), counted, *both))
    return Pairs(sequences, *(torch.cat(own) for own in zip(*parts, strict=True)))


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
