"""Losses of post-training as functions of log-probabilities and rewards.

Sources: Rafailov et al., "Direct Preference Optimization" (arXiv 2305.18290); Williams, "Simple statistical
gradient-following algorithms" (1992); Kool et al., "Buy 4 REINFORCE samples, get a baseline for free!" (2019).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from toymodel.errors import ConfigError


def dpo_losses(
    right: Tensor, wrong: Tensor, right_before: Tensor, wrong_before: Tensor, beta: float
) -> Tensor:
    """Return the preference losses −ln σ(β·[(ln π(y⁺) − ln π₀(y⁺)) − (ln π(y⁻) − ln π₀(y⁻))]) in nats.

    Args:
        right, wrong: (…,) log-probabilities ln π of the preferred and the rejected answers.
        right_before, wrong_before: (…,) the same ln π₀ of the frozen reference.
        beta: strength β > 0 of the tie to the reference.

    Raises:
        ConfigError: a beta that is not positive.

    >>> at_reference = torch.tensor([-1.0, -2.0])
    >>> dpo_losses(at_reference, at_reference, at_reference, at_reference, beta=0.1)
    tensor([0.6931, 0.6931])
    """
    check_beta(beta)
    return -F.logsigmoid(beta * ((right - right_before) - (wrong - wrong_before)))


def leave_one_out(rewards: Tensor) -> Tensor:
    """Return the rewards (…, S) of S samples, each less the mean of the others.

    It is S/(S−1) times the reward less the mean of all. A baseline from the other samples leaves the gradient of
    `reinforce_losses` unbiased; the mean of all, the sample among them, shrinks it by 1 − 1/S.

    Raises:
        ConfigError: fewer than two samples.

    >>> leave_one_out(torch.tensor([1.0, 0.0, 0.0]))
    tensor([ 1.0000, -0.5000, -0.5000])
    """
    samples = rewards.shape[-1]
    if samples < 2:
        raise ConfigError(
            f"there is {samples} sample for each prompt; a baseline needs 2 or more: raise samples"
        )
    return (rewards - rewards.mean(dim=-1, keepdim=True)) * (samples / (samples - 1))


def reinforce_losses(log_probs: Tensor, rewards: Tensor) -> Tensor:
    """Return losses (…,) whose gradient is an unbiased estimate of that of −E[reward].

    −(1/S) Σ_s A_s ln π(y_s) of S samples of one prompt, A_s the reward less the mean of the others; only the gradient
    has a meaning, the value has none.

    Args:
        log_probs: (…, S) of the whole samples, with gradients.
        rewards: (…, S).

    Raises:
        ConfigError: as `leave_one_out`.

    >>> reinforce_losses(torch.tensor([-1.0, -3.0]), torch.tensor([1.0, 0.0]))
    tensor(-1.)
    """
    return -(leave_one_out(rewards).detach() * log_probs).mean(dim=-1)


def check_beta(beta: float) -> None:
    """Refuse a strength that is not a positive number.

    Raises:
        ConfigError: naming it.

    >>> check_beta(0.1)
    """
    if not 0 < beta < float("inf"):
        raise ConfigError(f"beta is {beta}; it must be a positive number, such as 0.1")


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Return the mean of the values (…,) that a mask counts; 0 where it counts none.

    >>> masked_mean(torch.tensor([1.0, 5.0]), torch.tensor([True, False]))
    tensor(1.)
    """
    return torch.where(mask, values, 0.0).sum() / mask.sum().clamp(min=1)
