"""Stage 2: rotary position embeddings on RMS-normalised queries and keys (Su et al., arXiv 2104.09864)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from toymodel.constants import constant
from toymodel.parameter_spec import ParameterSpec
from toymodel.sizes import Sizes
from toymodel.stages.base import Params
from toymodel.stages.baseline import BASELINE

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True)
class Rotary:
    """Rotate pairs (i, i + head width/2) of q and k at position t by the angle t·base^(−2i/head width)."""

    base: float = 10_000.0

    def specs(self, sizes: Sizes) -> tuple[ParameterSpec, ...]:
        """Return no parameters."""
        return ()

    def embed(self, params: Params, x: Tensor) -> Tensor:
        """Return the residual stream unchanged: positions enter in attention only."""
        return x

    def rotate(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        """Normalise by RMS, then rotate; scores depend on relative position only."""
        from toymodel.elementwise import rms_norm, rotate

        cos, sin = angles(self, q.shape[-2], q.shape[-1] // 2, q.device, q.dtype)
        return rotate(rms_norm(q), cos, sin), rotate(rms_norm(k), cos, sin)

    def frequencies(self, pairs: int, device: torch.device) -> Tensor:
        """Return the (pairs,) angles by which one position turns each pair, float32."""
        import torch

        return self.base ** (-torch.arange(pairs, device=device, dtype=torch.float32) / pairs)


@constant
def angles(
    positions: Rotary, length: int, pairs: int, device: torch.device, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Return cos and sin (length, pairs) of the angles by which each pair turns at each position."""
    import torch

    frequency = positions.frequencies(pairs, device)
    angle = torch.outer(torch.arange(length, device=device, dtype=torch.float32), frequency)
    return angle.cos().to(dtype), angle.sin().to(dtype)


ROPE = BASELINE.then(
    "rope",
    "positions dropped; rotary embeddings on RMS-normalised queries and keys",
    positions=Rotary(),
)
