"""Count the operations of a model, and measure the rate of a device."""

from __future__ import annotations

import time
from collections import deque
from functools import cache

import torch

from toymodel.transformer import Transformer

# Steps over which the throughput is averaged.
RECENT = 20
MEASURED_SECONDS = 0.5


def flops_per_token(transformer: Transformer) -> float:
    """Return the matrix-product operations of one training token.

    They are three times those of the forward pass, in which a token takes 2 operations for each entry of every block
    matrix and of the head (also a tied one), and 4·d for each position that it attends to in a block: (T + 1)/2
    positions on average without an attention window. Embedding lookups, Muon's orthogonalisation and recomputed blocks
    do not count.
    """
    s, window = transformer.sizes, transformer.stage.window
    entries = sum(spec.size for spec in transformer.specs() if spec.role == "hidden") + s.vocab * s.d
    reach = [s.length if window is None else window.size(layer, 1.0) for layer in range(s.layers)]
    attention = sum(4 * s.d * _visible(s.length, r) for r in reach)
    return 3 * (2 * entries + attention)


def _visible(length: int, window: int) -> float:
    """Return the mean number of positions that a query attends to."""
    w = min(window, length)
    return (w * (w + 1) / 2 + (length - w) * w) / length


class Throughput:
    """Average the speed of a run over its last steps.

    Args:
        tokens_per_step: target tokens per step.
        flops_per_token: operations per token (see the function of this name).
        peak: operations per second of all devices together.
    """

    def __init__(self, tokens_per_step: int, flops_per_token: float, peak: float) -> None:
        self.tokens_per_step, self.flops_per_token, self.peak = tokens_per_step, flops_per_token, peak
        self._recent: deque[float] = deque(maxlen=RECENT)

    def see(self, seconds: float) -> None:
        """Add the duration of a step."""
        self._recent.append(seconds)

    @property
    def seconds(self) -> float:
        """Return the seconds per step; NaN before the first step."""
        return sum(self._recent) / len(self._recent) if self._recent else float("nan")

    @property
    def tokens(self) -> float:
        """Return the target tokens per second."""
        return self.tokens_per_step / self.seconds

    @property
    def mfu(self) -> float:
        """Return the model FLOP utilisation, a share of the peak."""
        return self.tokens * self.flops_per_token / self.peak

    def numbers(self) -> dict[str, float]:
        """Return tokens_per_second and mfu; nothing before the first step."""
        return {"tokens_per_second": self.tokens, "mfu": self.mfu} if self._recent else {}


@cache
def measured_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Measure the matrix-product operations per second of this device.

    Other processes slow single products down, so the best of many products within `MEASURED_SECONDS` counts.
    """
    n = 8_192 if device.type == "cuda" else 768
    a, b = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
    best, until = float("inf"), time.perf_counter() + MEASURED_SECONDS
    while time.perf_counter() < until or best == float("inf"):
        began = _now(device)
        torch.mm(a, b)
        best = min(best, _now(device) - began)
    return 2 * n**3 / best


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
