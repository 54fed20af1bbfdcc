"""AdamW for K members, each with a learning rate and a weight decay (Loshchilov & Hutter, arXiv 1711.05101)."""

from __future__ import annotations

import math

import torch
from torch import Tensor


class AdamW:
    """Apply the update of torch.optim.AdamW to one vector, with a learning rate for each entry.

    θ ← θ·(1 − lr·wd);  m ← β₁m + (1−β₁)g;  v ← β₂v + (1−β₂)g²;
    θ ← θ − lr · (m/(1−β₁ᵗ)) / (√(v/(1−β₂ᵗ)) + ε).

    The only numbers that differ from update to update are the two of `corrections`. On the host they are plain
    numbers; an update that a CUDA graph repeats reads them from the device.

    Args:
        theta: (N,) vector that is updated in place.
        lr, weight_decay: one for each entry (N,), or () for all entries; a weight_decay of None is none at all.
        betas, eps: as above.

    >>> theta = torch.tensor([1.0, 1.0])
    >>> AdamW(theta, torch.tensor([0.25, 0.5]), None, (0.9, 0.999), 0.0).step(torch.tensor([3.0, -7.0]), 1)
    >>> theta.round(decimals=4)
    tensor([0.7500, 1.5000])
    """

    def __init__(
        self, theta: Tensor, lr: Tensor, weight_decay: Tensor | None, betas: tuple[float, float], eps: float
    ) -> None:
        self.theta = theta
        self.lr = lr.clone()
        self.weight_decay = weight_decay
        self.decay = None if weight_decay is None else lr * weight_decay
        self.betas = betas
        self.eps = eps
        self.first = torch.zeros_like(theta)
        self.second = torch.zeros_like(theta)

    def set_lr(self, lr: Tensor) -> None:
        """Change the learning rates of the following updates, in place; they have the shape of the first ones."""
        self.lr.copy_(lr)
        if self.decay is not None and self.weight_decay is not None:
            self.decay.copy_(lr * self.weight_decay)

    def set_weight_decay(self, weight_decay: Tensor) -> None:
        """Change the weight decays of the following updates, in place; an optimiser without decay keeps none.

        They have the shape of the first ones.
        """
        if self.decay is not None:
            self.weight_decay = weight_decay
            self.decay.copy_(self.lr * weight_decay)

    def corrections(self, t: int, scale: float = 1.0) -> tuple[float, float]:
        """Return √(1−β₂ᵗ) and −scale/(1−β₁ᵗ) of the t-th update, counted from 1."""
        beta1, beta2 = self.betas
        return math.sqrt(1 - beta2**t), -scale / (1 - beta1**t)

    def step(self, grad: Tensor, t: int, scale: float = 1.0) -> None:
        """Apply one update.

        Args:
            grad: (N,).
            t: counts updates from 1.
            scale: factor of the learning rates in this update, from a schedule.
        """
        self.update(grad, *self.corrections(t, scale), scale)

    @torch.no_grad()
    def update(self, grad: Tensor, root: float | Tensor, factor: float | Tensor, scale: float = 1.0) -> None:
        """Apply one update, given its `corrections` as numbers or as tensors () of the same values."""
        beta1, beta2 = self.betas
        if self.decay is not None:
            self.theta.mul_(torch.rsub(self.decay, 1, alpha=scale))
        self.first.lerp_(grad, 1 - beta1)
        self.second.mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
        # All (N,).
        denominator = self.second.sqrt().div_(root).add_(self.eps)
        self.theta.addcdiv_((self.first * self.lr).mul_(factor), denominator)
