"""Convert numpy arrays and torch tensors to checked float64 arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from spectra.errors import InputError


def to_float64(x: Any, *, name: str, ndim: int | None = None) -> np.ndarray:
    """Convert real numbers to a finite float64 numpy array.

    The result may share memory with the input, which is never written to.

    Args:
        x: numpy array, torch tensor (any device, any real dtype, bfloat16 included) or nested sequence.
        name: name of x in error messages.
        ndim: required number of axes, or None for any.

    Raises:
        InputError: complex, non-numeric, NaN or Inf entries, or the wrong number of axes.

    >>> to_float64([1, 2], name="x")
    array([1., 2.])
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
    """Convert an array to a tensor without gradient history.

    Dtype and device are those of x.

    A numpy array that no tensor can wrap (reversed, write-protected, byte-swapped, wider than 64 bits) is copied; any
    other is shared, and must not be written to.

    Raises:
        InputError: non-numeric entries.

    >>> to_tensor(np.ones(2, np.float32), name="x")
    tensor([1., 1.])
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
