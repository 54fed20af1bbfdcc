"""Read one update of a model's parameters, whatever holds it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from spectra.arrays import Numbers, brief, largest, machine_epsilon, require_squares, to_tensor
from spectra.errors import InputError, NotFiniteError

Update: TypeAlias = Tensor | np.ndarray | Sequence[Numbers]


def parts_of(update: Update) -> tuple[list[Tensor], list[float]]:
    """Return an update as detached tensors, and the machine epsilon of each as it was handed in.

    Raises:
        InputError: no tensors, no coordinates, complex numbers, NaN or Inf, or entries whose squares float64 cannot
            hold.

    >>> parts, _ = parts_of([np.array([1.0, 2.0]), torch.zeros(3)])
    >>> [part.numel() for part in parts]
    [2, 3]
    """
    single = isinstance(update, Tensor | np.ndarray)
    if not single and not isinstance(update, list | tuple):
        remedy = (
            "list(updates.values())"
            if isinstance(update, Mapping)
            else "an array, a tensor or a list of them"
        )
        raise InputError(f"the update is {brief(update)}; pass {remedy}")
    single = single or (len(update) > 0 and np.isscalar(update[0]))
    given = [update] if single else update
    parts = [to_tensor(part, name="the update") for part in given]
    parts = [part if part.is_floating_point() or part.is_complex() else part.double() for part in parts]
    if sum(part.numel() for part in parts) == 0:
        raise InputError("the update has no coordinates")
    for index, part in enumerate(parts):
        if part.is_complex():
            raise InputError(f"part {index} of the update is complex; pass real numbers")
        # One pass: the extremes are finite only if every entry is.
        size = largest(part)
        if not math.isfinite(size):
            bad = int((~torch.isfinite(part)).sum())
            raise NotFiniteError(
                f"part {index} of the update has {bad} NaN or Inf; the run has diverged here, skip it"
            )
        require_squares(size, f"the largest entry of part {index} of the update")
    return parts, [machine_epsilon(part) for part in given]
