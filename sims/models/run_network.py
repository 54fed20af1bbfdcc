"""The network of a run of this package, from its configuration."""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

from sims.system.errors import MeasureError
from toymodel.errors import ConfigError
from toymodel.network import Network, network_of
from toymodel.sizes import Sizes
from toymodel.stages import stage
from toymodel.transformer import Transformer

# Field of a configuration, where its logits can have one.
BIAS = "logit_bias"


class Described(Protocol):
    """The fields of a run's configuration that a subject needs."""

    @property
    def stage(self) -> str:
        """Name of a stage."""
        ...

    @property
    def sizes(self) -> Sizes:
        """Sizes that fix every shape."""
        ...

    @property
    def steps(self) -> int:
        """Planned optimiser steps; schedules of a stage (attention windows) depend on their share."""
        ...

    @property
    def tokens_per_step(self) -> int:
        """Target tokens of one step."""
        ...


def network_of_run(config: Described) -> Network:
    """Return the network of a run, with a bias of the logits if its configuration asks for one."""
    return network_of(stage(config.stage), config.sizes, getattr(config, BIAS, False))


def without_blocks(network: Network, removed: frozenset[int]) -> Network:
    """Return a network without some blocks.

    Raises:
        MeasureError: it has no blocks, or later ones read more of them than the residual stream.
    """
    if not isinstance(network, Transformer):
        raise MeasureError(f"stage {network.stage.name} has no blocks to remove; take a transformer")
    try:
        return replace(network, removed=removed)
    except ConfigError as error:
        raise MeasureError(str(error)) from error
