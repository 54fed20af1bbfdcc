"""Which runs train together, and in what order."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from toymodel.config import RunConfig, ensemble_key
from toymodel.stages import stage
from toymodel.transformer import Transformer

# On a GPU a launch costs more than the work of one small member; past about 64 k tokens a step more members gain
# nothing. On a CPU the arithmetic is the bound, except for tiny models.
GPU_TOKENS_A_STEP = 65_536
GPU_MEMBERS = 15
TINY_PARAMETERS = 20_000
TINY_MEMBERS = 16


def plan(configs: Sequence[RunConfig], device: str) -> list[list[RunConfig]]:
    """Groups that train as one ensemble each, the most expensive first so that none is left for the end."""
    shapes: dict[RunConfig, list[RunConfig]] = defaultdict(list)
    for config in dict.fromkeys(configs):
        shapes[ensemble_key(config)].append(config)
    groups = []
    for shape, members in shapes.items():
        size = group_size(shape, device)
        groups += [members[i : i + size] for i in range(0, len(members), size)]
    return sorted(groups, key=lambda g: -sum(cost(c) for c in g))


def group_size(shape: RunConfig, device: str) -> int:
    """Members of one ensemble that pay on this device."""
    if device.startswith("cuda"):
        return max(1, min(GPU_MEMBERS, GPU_TOKENS_A_STEP // shape.tokens_per_step))
    parameters = Transformer(stage(shape.stage), shape.sizes).parameter_count()
    return TINY_MEMBERS if parameters <= TINY_PARAMETERS else 1


def cost(config: RunConfig) -> float:
    """Work of a run in arbitrary units: tokens times parameters."""
    parameters = Transformer(stage(config.stage), config.sizes).parameter_count()
    return float(config.steps) * config.tokens_per_step * parameters
