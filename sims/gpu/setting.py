"""Where and at which size the lines are measured."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from toymodel.config import ModelConfig, RunConfig
from toymodel.tasks import ModularWalks

SMALL_TASK = ModularWalks(vocab=64, length=16, train=600, val=256, test=8)
SMALL_MODEL = ModelConfig(d_model=32, heads=2)


@dataclass(frozen=True)
class Setting:
    """Hold what all lines share.

    Args:
        device: "cuda", or "cpu" to try the script itself.
        small: tiny sizes, whose numbers mean nothing.
        deadline: of this call, by `time.perf_counter`.
    """

    device: str
    small: bool
    deadline: float

    def run(self, **given: Any) -> RunConfig:
        """Return a run of the published toy, or of a tiny one."""
        if self.small:
            tiny = {"task": SMALL_TASK, "model": SMALL_MODEL, "batch_size": 8, "eval_size": 128}
            # The sizes of a small setting win over those of a line.
            given = {**given, **tiny}
        return RunConfig(**given)

    @property
    def cuda(self) -> bool:
        """Return whether the device is a GPU."""
        return self.device.startswith("cuda")

    def left(self) -> float:
        """Return the seconds until the deadline."""
        return self.deadline - time.perf_counter()

    def needed(self, seconds: float) -> float:
        """Return the seconds to reserve for what takes so long at full size."""
        return 0.0 if self.small else seconds

    def now(self) -> float:
        """Return the time when all that was launched is done."""
        if self.cuda:
            torch.cuda.synchronize()
        return time.perf_counter()

    def milliseconds(self, function: Callable[[], Any], least: float = 0.1, repeat: int = 3) -> float:
        """Return the median time of a call, over repetitions of at least `least` seconds, after one untimed call."""
        function()
        began = self.now()
        function()
        once = max(self.now() - began, 1e-6)
        least = least if not self.small else 0.0
        count = max(1, min(200, int(least / once)))
        times = []
        for _ in range(repeat):
            began = self.now()
            for _ in range(count):
                function()
            times.append((self.now() - began) / count)
        return 1e3 * statistics.median(times)

    def peak_gib(self, function: Callable[[], Any]) -> float | None:
        """Return the most memory that was allocated during a call; None on a CPU, where nobody counts."""
        if not self.cuda:
            function()
            return None
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        function()
        return torch.cuda.max_memory_allocated() / 2**30
