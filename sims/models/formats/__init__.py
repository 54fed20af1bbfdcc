"""Formats of checkpoints. A new one is a file here with a `FORMAT`, and its name in `FORMATS`."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sims.models.formats.format import Format

# In the order in which they are asked: the more specific one first.
FORMATS: tuple[str, ...] = ("own", "huggingface", "nanogpt", "modded")


def formats() -> tuple[Format, ...]:
    """Import and return every format, in the order of `FORMATS`."""
    return tuple(import_module(f"{__name__}.{name}").FORMAT for name in FORMATS)
