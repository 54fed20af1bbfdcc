"""What a parameter of a transformer is, without its values (and without torch)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Role = Literal["embedding", "position", "hidden", "head", "scalar"]
Init = Literal["normal", "fan_in", "zeros", "constant"]


@dataclass(frozen=True)
class ParameterSpec:
    """Describe one parameter of a transformer.

    Args:
        name: dotted path.
        shape: without the member axis; matrices are (out, in), stacked matrices (count, out, in).
        role: decides the optimiser.
        init: "normal" (std), "fan_in" (uniform ±1/√in, torch's default for linear layers), "zeros" or
            "constant" (values).
        fan: inputs of the layer for "fan_in"; None takes the last axis of the shape, which a bias does not have.
        std: standard deviation for "normal".
        values: every entry for "constant".
        decays: whether AdamW's weight decay acts on it.
    """

    name: str
    shape: tuple[int, ...]
    role: Role
    init: Init
    std: float = 1.0
    values: tuple[float, ...] = ()
    fan: int | None = None
    decays: bool = True

    @property
    def size(self) -> int:
        """Return the number of entries of one member."""
        return math.prod(self.shape)


def scalars(name: str, *values: float) -> ParameterSpec:
    """Describe a learned vector of weights that starts at the given values."""
    return ParameterSpec(name, (len(values),), "scalar", "constant", values=values)
