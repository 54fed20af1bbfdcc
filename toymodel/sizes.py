"""The numbers that fix every shape of a transformer."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Sizes:
    """Hold vocabulary V, sequence length T, width d, heads, layers and MLP width of one transformer."""

    vocab: int
    length: int
    d: int
    heads: int
    layers: int
    mlp: int
