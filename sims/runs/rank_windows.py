"""Windows of ranks over which exponents of spectra are fitted."""

from __future__ import annotations

from collections.abc import Iterable

from sims.system.errors import MeasureError

Window = tuple[int, int]


def window_name(window: Window) -> str:
    """Return a rank window as rows name it: "10-40"."""
    return f"{window[0]}-{window[1]}"


HEAD_WINDOW: Window = (1, 10)
# Ranks of the exponents that the paper reports (arXiv 2605.05683), and their name in rows and in sentences.
PUBLISHED_WINDOW: Window = (10, 40)
PUBLISHED_RANKS = window_name(PUBLISHED_WINDOW)
PUBLISHED_RANKS_TEXT = PUBLISHED_RANKS.replace("-", "–")
# Rank windows of the exponents by depth: twelve blocks, and thirty-six or more (arXiv 2605.05683).
DEPTH_WINDOWS: dict[str, tuple[Window, ...]] = {
    "any": (HEAD_WINDOW,),
    "d12": (PUBLISHED_WINDOW, (40, 90), (90, 200)),
    "d36": ((100, 200), (200, 400), (400, 800)),
}


def fitting_windows(rank: int) -> tuple[Window, ...]:
    """Return the usual windows that fit in a rank.

    >>> fitting_windows(64), fitting_windows(12)
    (((1, 10), (10, 40), (50, 64)), ((1, 10),))
    """
    candidates = (HEAD_WINDOW, PUBLISHED_WINDOW, (50, min(200, rank)))
    return tuple((lo, hi) for lo, hi in candidates if hi <= rank and hi - lo >= 8)


def check_windows(windows: Iterable[Window]) -> None:
    """Refuse windows that no spectrum has.

    Raises:
        MeasureError: naming the first of them.
    """
    for lo, hi in windows:
        if not 1 <= lo <= hi - 2:
            raise MeasureError(
                f"window {lo}–{hi}: ranks count from 1 and a line needs three, so 1 ≤ first ≤ last − 2"
            )
