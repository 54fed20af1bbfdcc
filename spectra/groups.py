"""Number groups of rows: sequences, runs or seeds that were sampled independently."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import ArrayLike

from spectra.arrays import brief
from spectra.errors import InputError

# One label for each row: numbers, strings or dates.
Labels: TypeAlias = ArrayLike | torch.Tensor


def group_codes(groups: Labels | None, n: int, *, least: int) -> np.ndarray:
    """Number the groups of rows 0…g−1.

    (n,) whole numbers in sorted order of the labels; each row is a group when groups is None.

    Args:
        groups: (n,) labels (numbers or strings), or None.
        n: number of rows.
        least: smallest number of groups the caller needs.

    Raises:
        InputError: labels of the wrong shape, or fewer than ``least`` groups.

    >>> group_codes(["b", "a", "b"], 3, least=2)
    array([1, 0, 1])
    """
    if groups is None:
        codes = np.arange(n)
    else:
        try:
            labels = groups.detach().cpu().numpy() if isinstance(groups, torch.Tensor) else np.asarray(groups)
        except (ValueError, TypeError, RuntimeError, NotImplementedError):
            raise InputError(
                f"groups is {brief(groups)} that is no array of labels; pass one label a row"
            ) from None
        if labels.dtype.kind == "O" and not all(isinstance(label, str) for label in labels.ravel()):
            raise InputError(f"groups is {brief(groups)} of mixed labels; pass numbers or strings, one a row")
        if isinstance(groups, np.ma.MaskedArray) and bool(np.ma.getmaskarray(groups).any()):
            raise InputError(
                "groups has masked entries; each row needs a label, so drop the rows without one"
            )
        if labels.dtype.kind in "fcmM" and bool((labels != labels).any()):
            raise InputError("groups has NaN; each row needs a label, so drop the rows without one")
        if labels.shape != (n,):
            raise InputError(f"groups has shape {labels.shape}; it must hold one label for each of {n} rows")
        codes = np.unique(labels, return_inverse=True)[1]
    count = int(codes.max()) + 1 if n else 0
    if count < least:
        raise InputError(
            f"there are {count} independent groups; at least {least} are needed for a spread over them"
        )
    return codes
