"""Detect that a run has diverged."""

from __future__ import annotations

import math

import torch
from torch import Tensor

# Steps of the mean loss: a single step may be high by chance.
WINDOW = 16
# Nats above the lowest such mean: more than noise and schedules cause, less than a return to token frequencies.
SPIKE = 1.5


class DivergenceMonitor:
    """Compare the recent training losses of a run with its best ones.

    Attributes:
        recent: the last losses in nats, at most `WINDOW`.
        best: the lowest mean over `WINDOW` steps.
    """

    def __init__(self) -> None:
        self.recent: list[float] = []
        self.best = math.inf

    def see(self, loss: float) -> str | None:
        """Add a step's loss; return why the run diverged, or None."""
        if not math.isfinite(loss):
            return f"the training loss is {loss}"
        self.recent = [*self.recent[-WINDOW + 1 :], loss]
        if len(self.recent) < WINDOW:
            return None
        mean = sum(self.recent) / WINDOW
        if mean > self.best + SPIKE:
            return f"the training loss rose to {mean:.2f} nats over {WINDOW} steps, from {self.best:.2f} at its best"
        self.best = min(self.best, mean)
        return None

    def state(self) -> Tensor:
        """Return best and recent losses as one vector (1 + steps,)."""
        return torch.tensor([self.best, *self.recent], dtype=torch.float64)

    def restore(self, state: Tensor) -> None:
        """Continue from a vector that `state` returned."""
        self.best, *self.recent = state.tolist()
