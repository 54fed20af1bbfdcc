"""Stage 2: rotary position embeddings on RMS-normalised queries and keys (Su et al., arXiv 2104.09864)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from toymodel.parameters import ParameterSpec
from toymodel.sizes import Sizes
from toymodel.stages.base import Params
from toymodel.stages.baseline import BASELINE


@dataclass(frozen=True)
class Rotary:
    """Rotates pairs (i, i + head width/2) of q and k at position t by the angle t·base^(−2i/head width)."""

    base: float = 10_000.0

    def specs(self, sizes: Sizes) -> tuple[ParameterSpec, ...]:
        """None."""
        return ()

    def embed(self, params: Params, x: Tensor) -> Tensor:
        """The residual stream as it is: positions enter in attention alone."""
        return x

    def rotate(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        """RMS-normalised, then rotated; scores depend on relative position only."""
        cos, sin = self._angles(q)
        width = (q.shape[-1],)
        return self._turn(F.rms_norm(q, width), cos, sin), self._turn(F.rms_norm(k, width), cos, sin)

    def _angles(self, q: Tensor) -> tuple[Tensor, Tensor]:
        half = q.shape[-1] // 2
        frequency = self.base ** (-torch.arange(half, device=q.device, dtype=torch.float32) / half)
        angle = torch.outer(torch.arange(q.shape[-2], device=q.device, dtype=torch.float32), frequency)
        return angle.cos().to(q.dtype), angle.sin().to(q.dtype)

    @staticmethod
    def _turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        first, second = x.chunk(2, dim=-1)
        return torch.cat([first * cos - second * sin, first * sin + second * cos], dim=-1)


ROPE = BASELINE.then(
    "rope",
    "positions dropped; rotary embeddings on RMS-normalised queries and keys",
    positions=Rotary(),
)
