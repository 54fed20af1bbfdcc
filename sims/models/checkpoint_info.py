"""Options for reading a checkpoint, and what is known of one before it is loaded."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from toymodel.errors import CheckpointError, ConfigError

Activation = Literal["gelu", "gelu_tanh", "relu2"]
# A letter behind it makes another number of it (10k, 1e5).
_STEP = re.compile(r"(?:step|checkpoint)[_-]?(\d{1,18})(?![\dA-Za-z])")


@dataclass(frozen=True)
class CheckpointOptions:
    """Values used when the checkpoint does not record them; one that contradicts a recorded value is refused.

    Args:
        heads: number of attention heads, which no shape shows.
        activation: of the MLP, for states of the GPT-2 shape: exact GELU, GELU by tanh, or squared ReLU.
        tokens_per_step: tokens of one optimiser step.
        step: number of optimiser steps so far.

    Raises:
        ConfigError: a number below its minimum.
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
    """A checkpoint that was recognised and is not loaded yet.

    Args:
        path: file or folder.
        kind: name of the format.
        step, tokens: optimiser steps and training tokens so far; None if not recorded.
    """

    path: Path
    kind: str
    step: int | None
    tokens: int | None


def check_recorded(options: CheckpointOptions, recorded: Mapping[str, Any], path: Path) -> None:
    """Refuse an option that contradicts what the checkpoint records.

    Args:
        options: as given.
        recorded: name of an option → value, None where it is not recorded.
        path: of the checkpoint.

    Raises:
        CheckpointError: naming both values.
    """
    for name, own in recorded.items():
        given = getattr(options, name)
        if given is not None and own is not None and given != own:
            option = f"--{name.replace('_', '-')}"
            raise CheckpointError(
                f"{path} records {name.replace('_', ' ')} {own}, and {option} is {given}; leave {option} out, or "
                "correct it"
            )


def counted_tokens(step: int | None, tokens_per_step: int | None) -> int | None:
    """Return step · tokens_per_step, or None if one is unknown."""
    return None if step is None or tokens_per_step is None else step * tokens_per_step


def check_heads(heads: int, width: int, path: Path, rotary: bool) -> int:
    """Return the number of heads if it divides the width.

    Raises:
        CheckpointError: it does not, or rotary positions would need pairs in an odd head width.
    """
    if heads < 1 or width % heads or (rotary and width // heads % 2):
        even = "an even number of " if rotary else ""
        raise CheckpointError(
            f"{path}: {heads} heads do not cut a width of {width} into {even}columns each; give the right number"
        )
    return heads


def step_in(name: str) -> int | None:
    """Return the step in the name of a file, folder or revision, or None.

    >>> step_in("state_step000250.pt"), step_in("last.pt"), step_in("step10k")
    (250, None, None)
    """
    found = _STEP.search(name)
    return int(found[1]) if found else None
