"""Whether a run is still worth going on with."""

from __future__ import annotations

import math

import torch
from torch import Tensor

# A single step may be high; what is high on average over these is no accident.
WINDOW = 16
# Nats above the lowest such average: more than noise and schedules do, less than a fall back to token frequencies.
SPIKE = 1.5


class DivergenceMonitor:
    """The recent training losses of a run, against the best that it has had.

    Attributes:
        recent: the last losses, at most `WINDOW`.
        best: the lowest mean over so many steps.
    """

    def __init__(self) -> None:
        self.recent: list[float] = []
        self.best = math.inf

    def see(self, loss: float) -> str | None:
        """Take in the loss of one step; returns what is wrong with the run, or None."""
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
        """All of it as one vector."""
        return torch.tensor([self.best, *self.recent], dtype=torch.float64)

    def restore(self, state: Tensor) -> None:
        """Go on from what `state` once gave."""
        self.best, *self.recent = state.tolist()
