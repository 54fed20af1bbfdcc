"""Stage 5: attention averages values mixed with those of the first block, and every block sees the embedding.

    v_l ← (1 − λ_l)·v_l + λ_l·v_0      λ_l = 1/2 at the start, one a block after the first
    x   ← μ_l·x + ν_l·x_0              (μ_l, ν_l) = (1, 0) at the start, at the entry of every block

x_0 is the normalised embedding, v_l the output of block l's value matrix. The scalars are updated by AdamW at
the base learning rate. The published code bounds its logits by 30·tanh(z/30) from this stage on, and so does
this one.

Value residuals: Zhou et al., arXiv 2410.17897. Constants: toy code of the paper.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from toymodel.parameter_spec import ParameterSpec, scalars
from toymodel.sizes import Sizes
from toymodel.stages.base import Params
from toymodel.stages.untied import UNTIED

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class EmbeddingShortcut:
    """Take μx + νx₀ at the entry of a block."""

    def specs(self, sizes: Sizes) -> tuple[ParameterSpec, ...]:
        """Return (μ, ν) of every block."""
        return tuple(scalars(f"blocks.{layer}.shortcut", 1.0, 0.0) for layer in range(sizes.layers))

    def enter(self, sizes: Sizes, params: Params, trail: Sequence[Tensor]) -> Tensor:
        """Return the weighted sum of the last output and the embedding."""
        from toymodel.elementwise import blend

        return blend(params[f"blocks.{len(trail) - 1}.shortcut"], trail[-1], trail[0])


@dataclass(frozen=True)
class FirstValues:
    """Take (1 − λ)v + λv₀; the first block, where the two are the same, has no λ."""

    def specs(self, sizes: Sizes) -> tuple[ParameterSpec, ...]:
        """Return λ of every block but the first."""
        return tuple(scalars(f"blocks.{layer}.attn.value_mix", 0.5) for layer in range(1, sizes.layers))

    def mix(self, sizes: Sizes, params: Params, tokens: Tensor, values: Sequence[Tensor]) -> Tensor:
        """Return the values of the block, mixed with those of the first block."""
        from toymodel.elementwise import blend

        layer = len(values) - 1
        if layer == 0:
            return values[0]
        return blend(convex(params[f"blocks.{layer}.attn.value_mix"]), values[-1], values[0])


def convex(share: Tensor) -> Tensor:
    """Return the weights (1 − λ, λ), (K, 2), of λ (K, 1)."""
    import torch

    return torch.cat((1 - share, share), dim=1)


VALUE_MIX = UNTIED.then(
    "value_mix",
    "values mixed with the first block's; a shortcut from the embedding into every block; logits within ±30",
    stream=EmbeddingShortcut(),
    values=FirstValues(),
    softcap=30.0,
)
