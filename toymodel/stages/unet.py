"""Stage 6: skips from the first half of the blocks to the second, as in a U-Net.

With n = ⌊L/2⌋, block n + i (i < n) reads x + w_i·y_{n−1−i} before the embedding shortcut, y_l the output of
block l and w_i = 1 at the start (AdamW at the base learning rate).

Two layers leave one skip, from block 0 to the next block: y_0 + w·y_0 = (1 + w)·y_0. It carries nothing past
a block; it rescales the stream, and so halves at the start the weight of what block 1 adds. This is what the published
toy has under this name, and it is kept so that the transition can be compared; from four layers on the skips
are what they are called.

Ronneberger et al., arXiv 1505.04597; constants: toy code of the paper.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from toymodel.parameter_spec import ParameterSpec, scalars
from toymodel.sizes import Sizes
from toymodel.stages.base import Params
from toymodel.stages.value_mix import VALUE_MIX, EmbeddingShortcut

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Skips(EmbeddingShortcut):
    """Add w·y of the mirrored block, then the embedding shortcut."""

    def specs(self, sizes: Sizes) -> tuple[ParameterSpec, ...]:
        """Return those of the shortcut, and w of every block that receives a skip."""
        depth = sizes.layers // 2
        skips = (scalars("skips", *[1.0] * depth),) if depth else ()
        return super().specs(sizes) + skips

    def enter(self, sizes: Sizes, params: Params, trail: Sequence[Tensor]) -> Tensor:
        """Return the weighted sum of the last output, the mirrored one and the embedding."""
        import torch

        from toymodel.elementwise import blend

        depth = sizes.layers // 2
        i = len(trail) - 1 - depth
        if 0 <= i < depth:
            w = params["skips"][:, i : i + 1]
            joined = blend(torch.cat((torch.ones_like(w), w), dim=1), trail[-1], trail[depth - i])
            trail = [*trail[:-1], joined]
        return super().enter(sizes, params, trail)


UNET = VALUE_MIX.then(
    "unet",
    "skips from the first half of the blocks to the second",
    stream=Skips(),
)
