"""The gate through which every array enters: numpy or torch, any device, any float dtype, out as float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from spectra.errors import InputError


def to_float64(x: Any, *, name: str, ndim: int | None = None) -> np.ndarray:
    """A fresh or shared float64 numpy array with the same numbers; the input is never written to.

    Args:
        x: numpy array, torch tensor (any device, any real dtype, bfloat16 included) or nested sequence.
        name: how error messages call it.
        ndim: required number of axes, or None for any.

    Raises:
        InputError: complex, non-numeric, NaN or Inf entries, or the wrong number of axes.
    """
    if isinstance(x, torch.Tensor):
        if x.is_complex():
            raise InputError(f"{name} is complex; pass real numbers")
        array = x.detach().to("cpu", torch.float64).numpy()
    else:
        raw = np.asarray(x)
        if raw.dtype.kind not in "fiub":
            raise InputError(f"{name} has dtype {raw.dtype}; pass real numbers")
        array = raw.astype(np.float64, copy=False)
    if ndim is not None and array.ndim != ndim:
        raise InputError(f"{name} has shape {array.shape}; it must have {ndim} axes")
    require_finite(array, name)
    return array


def to_tensor(x: Any, *, name: str) -> torch.Tensor:
    """A detached tensor with the numbers of x, in their own dtype and on their own device.

    A numpy array that no tensor can wrap (reversed, write-protected, byte-swapped, wider than 64 bits) is copied; any
    other is shared, and must not be written to.

    Raises:
        InputError: non-numeric entries.
    """
    if isinstance(x, torch.Tensor):
        return x.detach()
    raw = np.asarray(x)
    if raw.dtype.kind not in "fiubc":
        raise InputError(f"{name} has dtype {raw.dtype}; pass real numbers")
    native = np.float64 if raw.dtype.kind == "f" and raw.itemsize > 8 else raw.dtype.newbyteorder("=")
    return torch.from_numpy(np.require(raw, native, requirements=("C", "W")))


def require_finite(array: np.ndarray, name: str) -> None:
    """Raise InputError, with count and first position, when an entry is NaN or Inf."""
    # One pass over the data in the common case: a sum is finite only if every entry is (or it overflows).
    with np.errstate(over="ignore", invalid="ignore"):
        clean = array.size == 0 or bool(np.isfinite(array.sum()))
    if clean:
        return
    bad = ~np.isfinite(array)
    if not bad.any():
        return
    first = tuple(int(i) for i in np.argwhere(bad)[0])
    raise InputError(
        f"{name} has {int(bad.sum())} NaN or Inf among {array.size} entries (first at {first}); "
        "a spectrum of such data is meaningless: drop or repair these samples first"
    )
