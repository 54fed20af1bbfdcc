"""Refuse toy runs that cannot fit in the memory of the device, before any of it is allocated."""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch

from toymodel.config import RunConfig
from toymodel.errors import ConfigError
from toymodel.tasks import ModularWalks

BYTES = 4
# Weights, gradients and the two moments of Adam.
COPIES = 4
# Values of a block that the backward pass needs, in units of the width: norms, queries, keys, values, heads, sums.
KEPT = 8


def check_memory(configs: Sequence[RunConfig], device: str) -> None:
    """Refuse the first run that needs more memory than the device has.

    Raises:
        ConfigError: naming what it needs, at least, and what there is.
    """
    if device.startswith("cuda") and not torch.cuda.is_available():
        # Another machine trains them.
        return
    available = device_memory(device)
    for config in dict.fromkeys(configs):
        needed = least_bytes(config)
        if needed > available:
            model, task = config.model, config.task
            window = config.intervention.window if config.intervention.scales_updates else 0
            changed = f", and an intervention on {window} updates," if window else ""
            names = ["model.d_model", "model.layers", "batch_size"] + ["intervention.window"] * (window > 0)
            names += [f"task.{name}" for name in ("vocab", "length", "train", "val")]
            names += ["task.components_max"] * (getattr(task, "components_max", 1) > 1)
            raise ConfigError(
                f"a run of d_model {model.d_model}, {model.layers} layers, vocabulary {task.vocab} and batches of "
                f"{config.batch_size} × {task.length} tokens{changed} needs at least {_shown(needed)} of memory, and "
                f"{device} has {_shown(available)}; lower {', '.join(names)} or task.test"
            )


def least_bytes(config: RunConfig) -> int:
    """Return a lower bound on the bytes that training takes: parameters, activations, an intervention and the data."""
    sizes = config.sizes
    parameters = sizes.vocab * sizes.d + sizes.layers * (4 * sizes.d**2 + 2 * sizes.d * sizes.mlp)
    tokens = config.batch_size * config.task.length
    activations = tokens * (sizes.layers * (KEPT * sizes.d + sizes.mlp) + 2 * sizes.vocab)
    # A task may have the same sequences for validation and test.
    data = 2 * (config.task.train + max(config.task.val, config.task.test)) * config.task.length
    if isinstance(config.task, ModularWalks):
        # Modulus, offset, step, phase and weight of every walk that a sequence may have.
        data += 24 * (config.task.train + config.task.val) * config.task.components_max
    kept, _ = config.intervention.memory(parameters)
    return BYTES * (COPIES * parameters + activations) + data + kept


def device_memory(device: str) -> int:
    """Return the bytes of memory of a device."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_properties(device).total_memory
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _shown(size: int) -> str:
    """Return a size in GB; sizes beyond any machine as a power of ten."""
    return f"{size / 1e9:,.1f} GB" if size < 1e18 else f"10^{len(str(size)) - 10} GB"
