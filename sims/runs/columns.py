"""Name the columns that tell rows of a run apart. Loads nothing, so that a bare machine can measure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Columns that distinguish rows of one quantity, object and site, with the values where they do not apply.
WHICH: Mapping[str, Any] = {"band": "", "regime": "", "seen": None, "set": "", "window": "", "detail": ""}

_SEEN: Mapping[Any, str] = {True: "seen", False: "unseen"}


def band_name(band: str, regime: str, seen: bool | None) -> str:
    """Return the full name of a probe band: "31:20 clean unseen"."""
    return " ".join(part for part in (band, regime, _SEEN.get(seen, "")) if part)


def modulus(band: str) -> int:
    """Return the modulus c of a band "c:o"."""
    return int(band.partition(":")[0])


def first_rank(window: str) -> int:
    """Return the first rank of a window "10-40"."""
    return int(window.partition("-")[0])


def which(row: Mapping[Any, Any]) -> str:
    """Return the `WHICH` columns of a row as one text: "31:20 clean unseen task", "10-40", "digits peak"."""
    band = band_name(row["band"], row["regime"], row["seen"])
    return " ".join(part for part in (band, row["detail"], row["set"], row["window"]) if part)
