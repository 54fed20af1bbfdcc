"""Stage 8: the window of attention opens during training.

    w(p) = 2·⌊(2 + 12·min(p/0.2, 1)) / 2⌋,     p = step / configured steps

so 2, 4, … 14 positions over the first fifth of the configured steps, then 14. Evaluations and measurements use
the window of their step. The language model's goes from 64 to 1,792 positions in multiples of 64 over a fifth
of its steps, where its fixed window had 1,024; 14 keeps that final ratio of 1.75 to the fixed window. The same
ratio of 1/16 at the start would be half a position: 2 is the least with which a query sees another token.
"""

from __future__ import annotations

from dataclasses import dataclass

from toymodel.stages.fixed_window import FIXED_WINDOW


@dataclass(frozen=True)
class OpeningWindow:
    """Open from `first` to `last` positions in multiples of `first`, over the share `opening` of the steps."""

    first: int = 2
    last: int = 14
    opening: float = 0.2

    def size(self, layer: int, progress: float) -> int:
        """Return the present multiple of `first`, the same in every block."""
        reached = self.first + min(progress / self.opening, 1.0) * (self.last - self.first)
        return self.first * int(reached // self.first)


FLEX_WINDOW = FIXED_WINDOW.then(
    "flex_window",
    "the window opens from 2 to 14 positions over the first fifth of the steps",
    window=OpeningWindow(),
)
