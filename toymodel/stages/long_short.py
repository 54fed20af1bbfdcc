"""Stage 13: most blocks see half the window.

Block l has the opening window w(p) if l is a multiple of 4, else max(2, ⌊w(p)/2⌋): long, short, short, short,
long, … The language model runs the pattern down the first half of its blocks and back up the second. Two layers
would then be both long, which is the stage before; so here the pattern runs down all blocks, and two layers
have one of each kind: 14 and 7 positions in the end.

After Gemma 2's local and global layers (arXiv 2408.00118); source: the language model's code.
"""

from __future__ import annotations

from dataclasses import dataclass

from toymodel.stages.flex_window import OpeningWindow
from toymodel.stages.softcap import SOFTCAP


@dataclass(frozen=True)
class LongShortWindow(OpeningWindow):
    """Use the opening window in every `period`-th block, half of it in the others."""

    period: int = 4

    def size(self, layer: int, progress: float) -> int:
        """Return the long or the short window."""
        long = super().size(layer, progress)
        return long if layer % self.period == 0 else max(self.first, long // 2)


LONG_SHORT = SOFTCAP.then(
    "long_short",
    "the second block sees half the window",
    window=LongShortWindow(),
)
