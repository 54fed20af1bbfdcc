"""Plan which runs train together, and in what order."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from functools import lru_cache

from toymodel.config import RunConfig, ensemble_key
from toymodel.network import network_of
from toymodel.sizes import Sizes
from toymodel.stages import stage

# On a GPU a kernel launch costs more than the work of one small member; above about 64 k tokens per step more members
# gain nothing. On a CPU the arithmetic is the limit, except for tiny models.
GPU_TOKENS_A_STEP = 65_536
GPU_MEMBERS = 15
TINY_PARAMETERS = 20_000
TINY_MEMBERS = 16


def plan(configs: Sequence[RunConfig], device: str, workers: int = 1) -> list[list[RunConfig]]:
    """Return groups that train as one ensemble each.

    The most expensive group comes first, so that all workers finish at about the same time.

    Args:
        configs: the runs; repeated ones count once.
        device: "cpu" or "cuda…".
        workers: processes that share the work; groups are small enough that each process gets one.
    """
    shapes: dict[RunConfig, list[RunConfig]] = defaultdict(list)
    for config in dict.fromkeys(configs):
        shapes[ensemble_key(config)].append(config)
    groups = []
    for shape, members in shapes.items():
        size = min(group_size(shape, device), -(-len(members) // workers))
        groups += [members[i : i + size] for i in range(0, len(members), size)]
    return sorted(groups, key=lambda g: -sum(cost(c) for c in g))


def group_size(shape: RunConfig, device: str) -> int:
    """Return the useful number of ensemble members on this device."""
    if device.startswith("cuda"):
        return max(1, min(GPU_MEMBERS, GPU_TOKENS_A_STEP // shape.tokens_per_step))
    return TINY_MEMBERS if _parameters(shape.stage, shape.sizes) <= TINY_PARAMETERS else 1


def cost(config: RunConfig) -> float:
    """Return the work of a run: training tokens times parameters."""
    return float(config.steps) * config.tokens_per_step * _parameters(config.stage, config.sizes)


@lru_cache(maxsize=1024)
def _parameters(stage_name: str, sizes: Sizes) -> int:
    return network_of(stage(stage_name), sizes).parameter_count()
