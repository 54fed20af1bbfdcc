"""The network of a run of this package, from its configuration."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeAlias

from sims.runs.lm_config import LmConfig
from sims.system.errors import MeasureError
from toymodel.config import RunConfig
from toymodel.errors import ConfigError
from toymodel.network import Network, network_of
from toymodel.stages import stage
from toymodel.transformer import Transformer

# Field of a configuration, where its logits can have one.
BIAS = "logit_bias"

OwnRun: TypeAlias = RunConfig | LmConfig


def network_of_run(config: OwnRun) -> Network:
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
