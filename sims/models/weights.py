"""What weights say about a checkpoint: numbers that are none, and tensors that are those of another step."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from itertools import combinations

import torch
from torch import Tensor

from sims.models.subject import FINAL, Subject
from sims.system.plain import some

# Hexadecimal digits of a tensor's digest.
_DIGITS = 16


def not_finite(subject: Subject, sequence: Tensor) -> str:
    """Say which weights of a model have NaN or Inf, or else which states of one sequence have; "" if none.

    Args:
        subject: the model.
        sequence: (1, T+1) tokens.
    """
    if found := faulty_weights(subject):
        return found
    for states in subject.activations(sequence, tuple(dict.fromkeys((*subject.sites, FINAL)))):
        found = [f"the states at {site} have {fault}" for site, x in states.items() if (fault := _faults(x))]
    return found[0] if found else ""


def faulty_weights(subject: Subject) -> str:
    """Say which weights of a model have NaN or Inf; "" if none."""
    return some(
        [f"{name} has {fault}" for name, tensor in subject.parameters.items() if (fault := _faults(tensor))]
    )


def _faults(tensor: Tensor) -> str:
    # Detached: those of a model made in inference mode take part in no graph.
    finite = torch.isfinite(tensor.detach())
    if bool(finite.all()):
        return ""
    nan = int(torch.isnan(tensor).sum())
    counts = (("NaN", nan), ("Inf", int((~finite).sum()) - nan))
    return " and ".join(f"{n} {what}" for what, n in counts if n) + f" of {tensor.numel()}"


def digests(subject: Subject) -> dict[str, str]:
    """Return name → digest of every weight matrix or vector that is not constant, as its bytes in float32."""
    return {
        name: hashlib.sha256(tensor.detach().cpu().contiguous().numpy().tobytes()).hexdigest()[:_DIGITS]
        for name, tensor in subject.parameters.items()
        if tensor.numel() > 1 and bool((tensor != tensor.flatten()[0]).any())
    }


def shared_weights(steps: Mapping[int, Mapping[str, str]]) -> list[str]:
    """Say which steps of one run have the same weights, or some of them; training would have changed all.

    Args:
        steps: step → `digests`, in the order of training.

    >>> shared_weights({0: {"a": "1", "b": "2"}, 8: {"a": "1", "b": "2"}, 9: {"a": "1", "b": "3"}})
    ['steps 0, 8 have the same weights', 'steps 0, 9 share 1 of 2 tensors: a']
    """
    groups: dict[tuple[tuple[str, str], ...], list[int]] = {}
    for step, own in steps.items():
        if own:
            groups.setdefault(tuple(own.items()), []).append(step)
    found = [
        f"steps {', '.join(map(str, equal))} have the same weights"
        for equal in groups.values()
        if len(equal) > 1
    ]
    partly: dict[tuple[str, ...], list[int]] = {}
    for a, b in combinations(groups, 2):
        common = tuple(name for name, digest in a if (name, digest) in set(b))
        if common:
            partly.setdefault(common, []).extend((groups[a][0], groups[b][0]))
    for common, owners in partly.items():
        of, named = len(steps[owners[0]]), ", ".join(map(str, sorted(set(owners))))
        found.append(f"steps {named} share {len(common)} of {of} tensors: {some(list(common))}")
    return found
