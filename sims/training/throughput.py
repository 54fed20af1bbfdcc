"""Floating-point operations of a model, and the rate at which a device can do them."""

from __future__ import annotations

import time
from collections import deque
from functools import cache

import torch

from toymodel.transformer import Transformer

# Steps over which a pace is a mean.
RECENT = 20
MEASURED_SECONDS = 0.5


def flops_per_token(transformer: Transformer) -> float:
    """Operations of matrix products for one training token: three times those of the forward pass.

    Forward, a token takes 2 operations for each entry of every block matrix and of the head (a tied one too), and
    4·d for each earlier position that it sees in a block, itself included: half of T + 1 on average where nothing
    hides any. Looking up embeddings, Muon's orthogonalisation and blocks that are run a second time do not count.
    """
    s, window = transformer.sizes, transformer.stage.window
    entries = sum(spec.size for spec in transformer.specs() if spec.role == "hidden") + s.vocab * s.d
    reach = [s.length if window is None else window.size(layer, 1.0) for layer in range(s.layers)]
    attention = sum(4 * s.d * _visible(s.length, r) for r in reach)
    return 3 * (2 * entries + attention)


def _visible(length: int, window: int) -> float:
    """Mean number of positions that a query sees."""
    w = min(window, length)
    return (w * (w + 1) / 2 + (length - w) * w) / length


class Throughput:
    """How fast a run goes, as a mean over its last steps.

    Args:
        tokens_per_step: target tokens a step.
        flops_per_token: of `flops_per_token`.
        peak: operations a second of all devices together.
    """

    def __init__(self, tokens_per_step: int, flops_per_token: float, peak: float) -> None:
        self.tokens_per_step, self.flops_per_token, self.peak = tokens_per_step, flops_per_token, peak
        self._recent: deque[float] = deque(maxlen=RECENT)

    def see(self, seconds: float) -> None:
        """Note what a step took."""
        self._recent.append(seconds)

    @property
    def seconds(self) -> float:
        """A step; NaN before the first."""
        return sum(self._recent) / len(self._recent) if self._recent else float("nan")

    @property
    def tokens(self) -> float:
        """A second."""
        return self.tokens_per_step / self.seconds

    @property
    def mfu(self) -> float:
        """Model FLOP utilisation: a share of the peak."""
        return self.tokens * self.flops_per_token / self.peak

    def numbers(self) -> dict[str, float]:
        """Return what the progress of a run shows of it; nothing before the first step."""
        return {"tokens_per_second": self.tokens, "mfu": self.mfu} if self._recent else {}


@cache
def measured_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Operations a second of square matrix products on this device, the best that a process sees within a while.

    Somebody else's work on a processor slows single products down: the best of many is the device's own.
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
