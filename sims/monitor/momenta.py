"""Find the momentum of optimisers: the null of the update spectra depends on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

UNKNOWN = "all"
# Optimisers whose steps are no moving average of gradients with their first β, as parts of their names: the newest
# gradient has a weight of its own, or weights are averages.
_OTHER_STEPS = ("nadam", "lion", "ademamix", "schedulefree")


def momenta_of(
    trained: Mapping[str, nn.Parameter], optimizers: Sequence[torch.optim.Optimizer]
) -> tuple[dict[str, float | None], dict[str, str]]:
    """Return momentum by group of parameters, and the group of each parameter.

    A group has the name of its optimiser ("adamw"; "adam 1" and "adam 2" of two), and its momentum where one optimiser
    has several ("sgd 0.9"). Steps of Nesterov's form are no moving average of gradients: their momentum counts as not
    known.

    Args:
        trained: parameters by name.
        optimizers: none where they are not known; then all parameters are one group of unknown momentum.

    >>> layer = nn.Linear(2, 2)
    >>> momenta_of(dict(layer.named_parameters()), [torch.optim.AdamW(layer.parameters())])
    ({'adamw': 0.9}, {'weight': 'adamw', 'bias': 'adamw'})
    """
    if not optimizers:
        return {UNKNOWN: None}, dict.fromkeys(trained, UNKNOWN)
    names = {id(parameter): name for name, parameter in trained.items()}
    found: dict[str, tuple[str, float | None]] = {}
    inner = [getattr(given, "optimizer", given) for given in optimizers]  # of accelerate's wrapper
    kinds = [type(optimizer).__name__.lower() for optimizer in inner]
    for k, optimizer in enumerate(inner):
        own = kinds[k] if kinds.count(kinds[k]) == 1 else f"{kinds[k]} {kinds[: k + 1].count(kinds[k])}"
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                if id(parameter) in names:
                    found[names[id(parameter)]] = (own, _momentum(kinds[k], group))
    several = {kind for kind, _ in found.values() if len({m for k, m in found.values() if k == kind}) > 1}
    momenta: dict[str, float | None] = {}
    group_of = {}
    for name in trained:
        if name in found:
            kind, momentum = found[name]
            label = (
                f"{kind} {'unknown' if momentum is None else f'{momentum:g}'}" if kind in several else kind
            )
            momenta[label], group_of[name] = momentum, label
    return momenta, group_of


def present_momentum(
    names: Sequence[str], trained: Mapping[str, nn.Parameter], optimizers: Sequence[torch.optim.Optimizer]
) -> float | None:
    """Return the momentum of some parameters as it is now: schedules change it. None where it is not one number."""
    momenta, group_of = momenta_of(trained, optimizers)
    found = {momenta[group_of[name]] for name in names if name in group_of}
    return found.pop() if len(found) == 1 else None


def _momentum(kind: str, group: Mapping[str, Any]) -> float | None:
    """Return β of the moving average of gradients; None where it is not named, or steps are no such average."""
    if group.get("nesterov") or any(name in kind for name in _OTHER_STEPS):
        return None
    if "betas" in group:
        return float(group["betas"][0])
    momentum = group.get("momentum", group.get("beta1"))
    return None if momentum is None else float(momentum)
