"""Draw continuations from a network, and the log-probabilities of given tokens."""

from __future__ import annotations

import torch
from torch import Tensor

from toymodel.network import Network
from toymodel.stages.base import Params


@torch.no_grad()
def sample_continuations(
    network: Network, params: Params, prompts: Tensor, samples: int, length: int, generator: torch.Generator
) -> Tensor:
    """Draw continuations of prompts at temperature 1.

    Args:
        network: of one model, which predicts every next token.
        params: its parameters (1, *shape) by name.
        prompts: (n, m) tokens.
        samples: S, continuations of each prompt.
        length: tokens of each of them.
        generator: of the draws, on the device of the prompts.

    Returns:
        (n, S, m + length) tokens, the prompt first.

    >>> from toymodel import ModelConfig, RunConfig, TaskConfig
    >>> from toymodel.ensemble import Ensemble
    >>> task = TaskConfig(vocab=11, length=8, train=64, val=16, test=16)
    >>> made = Ensemble([RunConfig(task=task, model=ModelConfig(8, 2, 1), batch_size=4, eval_size=16)])
    >>> prompts, draws = torch.tensor([[3, 4]]), torch.Generator().manual_seed(0)
    >>> sample_continuations(made.transformer, made.params, prompts, 5, 3, draws).shape
    torch.Size([1, 5, 5])
    """
    n, m = prompts.shape
    tokens = prompts.long().repeat_interleave(samples, dim=0)
    for _ in range(length):
        state = network.hidden(params, tokens[None], last=True)[:, :, -1:]
        chances = network.logits(params, state)[0, :, 0].double().softmax(dim=-1)
        drawn = torch.multinomial(chances, 1, generator=generator)
        tokens = torch.cat([tokens, drawn], dim=1)
    return tokens.view(n, samples, m + length)


def token_log_probs(network: Network, params: Params, sequences: Tensor) -> Tensor:
    """Return log-probabilities (n, T, V) in nats of every next token of sequences (n, T+1), with gradients."""
    hidden = network.hidden(params, sequences[None, :, :-1].long())
    return network.logits(params, hidden)[0].log_softmax(dim=-1)


def picked_log_probs(network: Network, params: Params, sequences: Tensor) -> Tensor:
    """Return log-probabilities (n, T) in nats of the tokens that follow in sequences (n, T+1), with gradients."""
    found = token_log_probs(network, params, sequences)
    return found.gather(-1, sequences[:, 1:, None].long()).squeeze(-1)
