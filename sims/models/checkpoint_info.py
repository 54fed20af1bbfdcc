"""What every adapter of a foreign format takes and gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from sims.models.gpt import Activation
from sims.models.module import Layout
from toymodel.errors import CheckpointError, ConfigError


@dataclass(frozen=True)
class CheckpointOptions:
    """What files leave open; where a file says it, the file is believed.

    Args:
        heads: attention heads, which no shape shows.
        activation: of the MLP, for states of the GPT-2 shape: exact GELU, GELU by tanh, or squared ReLU.
        tokens_per_step: tokens of one optimiser step.
        step: optimiser steps of a checkpoint that does not say.
    """

    heads: int | None = None
    activation: Activation | None = None
    tokens_per_step: int | None = None
    step: int | None = None

    def __post_init__(self) -> None:
        for name, least in (("heads", 1), ("tokens_per_step", 1), ("step", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ConfigError(f"{name} is {value}; it must be at least {least}")


@dataclass(frozen=True)
class CheckpointInfo:
    """A checkpoint that was recognised and not loaded yet.

    Args:
        path: file or folder.
        kind: the format.
        step, tokens: where in its training it was taken; None where nothing says.
    """

    path: Path
    kind: str
    step: int | None
    tokens: int | None


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A model out of a checkpoint.

    Args:
        model, layout: as `ModuleSubject` takes them.
        facts: what was recognised, in words.
    """

    model: nn.Module
    layout: Layout
    facts: Mapping[str, Any] = field(default_factory=dict)


def counted_tokens(step: int | None, tokens_per_step: int | None) -> int | None:
    """step · tokens_per_step where both are known."""
    return None if step is None or tokens_per_step is None else step * tokens_per_step


def check_heads(heads: int, width: int, path: Path, rotary: bool) -> int:
    """The number of heads, if the width can be cut so.

    Raises:
        CheckpointError: it cannot, or rotary positions would need pairs of an odd head width.
    """
    if heads < 1 or width % heads or (rotary and width // heads % 2):
        even = "an even number of " if rotary else ""
        raise CheckpointError(
            f"{path}: {heads} heads do not cut a width of {width} into {even}columns each; give the right number"
        )
    return heads
