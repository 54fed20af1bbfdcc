"""Stage 11: rotary embeddings on half of the pairs only, down to a lower base.

Of the w/2 pairs of a head of width w the first ⌊w/4⌋ turn by t·1024^(−i/(⌊w/4⌋−1)) at position t, i = 0 …: from
one radian a position to 1/1024. The others do not turn and compare content only. Source: the language model's
code; the published toy does not have this stage.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from toymodel.stages.rope import Rotary
from toymodel.stages.sparse_embed import SPARSE_EMBED

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True)
class TruncatedRotary(Rotary):
    """Rotate the first half of the pairs only, at least one."""

    base: float = 1_024.0

    def frequencies(self, pairs: int, device: torch.device) -> Tensor:
        """Return the (pairs,) angles of one position: base^0 … base^−1, then zeros."""
        import torch

        turning = max(1, pairs // 2)
        angles = torch.zeros(pairs, device=device)
        angles[:turning] = (1 / self.base) ** torch.linspace(0, 1, turning, device=device)
        return angles


TRUNCATED_ROPE = SPARSE_EMBED.then(
    "truncated_rope",
    "rotary embeddings on half of the pairs, base 1024",
    positions=TruncatedRotary(),
)
