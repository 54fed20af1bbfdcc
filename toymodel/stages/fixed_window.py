"""Stage 7: attention sees the last 8 positions only.

A query at position t sees the keys at t − 7 … t. The published toy uses 8 of 64 positions (the language model
1,024 of 65,536, and no further than its document). Through two blocks of such windows a position depends on 15,
itself included.
"""

from __future__ import annotations

from dataclasses import dataclass

from toymodel.stages.unet import UNET


@dataclass(frozen=True)
class FixedWindow:
    """Show the same number of positions in every block at every step."""

    positions: int = 8

    def size(self, layer: int, progress: float) -> int:
        """Return that number."""
        return self.positions


FIXED_WINDOW = UNET.then(
    "fixed_window",
    "attention sees the last 8 positions",
    window=FixedWindow(),
)
