"""Estimate pass@k, the chance that at least one of k samples is right, from N samples without bias."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from sims.system.errors import MeasureError


def pass_at_k(right: ArrayLike, samples: int, ks: Sequence[int]) -> np.ndarray:
    """Return the unbiased estimates 1 − C(N−c, k)/C(N, k) of pass@k of each prompt.

    It is the share of all sets of k of the N samples that hold a right one. It is computed as a product of k factors,
    which holds for any N.

    Args:
        right: (n,) numbers c of right samples.
        samples: N.
        ks: numbers k, from 1 to N.

    Returns:
        (n, len(ks)).

    Raises:
        MeasureError: a c, a k or N that is no whole number, or a k or a c out of its range.

    Source: Chen et al., arXiv 2107.03374.

    >>> pass_at_k([0, 1, 2], 4, [1, 2, 3]).round(3).tolist()
    [[0.0, 0.0, 0.0], [0.25, 0.5, 0.75], [0.5, 0.833, 1.0]]
    """
    _whole("right", right, "right samples, not shares of them: multiply shares by the number of samples")
    _whole("k", ks, f"samples, from 1 to {samples}")
    _whole("samples", samples, "samples of each prompt")
    counts = np.asarray(right, dtype=float).astype(np.int64)
    if wrong := [k for k in ks if not 1 <= k <= samples]:
        raise MeasureError(f"k is {wrong[0]}; of {samples} samples it is 1 to {samples}")
    if counts.size and not (counts.min() >= 0 and counts.max() <= samples):
        raise MeasureError(
            f"right has {counts.min()} to {counts.max()}; of {samples} samples it is 0 to {samples}"
        )
    # C(N−c, k)/C(N, k) = Π_{j<k} (N−c−j)/(N−j); a factor of 0 or below means that every set holds a right one.
    j = np.arange(max(ks, default=0))
    factors = np.clip(samples - counts[:, None] - j, 0, None) / (samples - j)
    misses = np.cumprod(factors, axis=1)
    return 1.0 - misses[:, np.array(ks, dtype=int) - 1]


def _whole(name: str, values: ArrayLike, what: str) -> None:
    """Refuse numbers that are not whole, NaN and infinite ones among them."""
    found = np.asarray(values, dtype=float).ravel()
    if len(wrong := found[~np.isfinite(found) | (found != np.round(found))]):
        raise MeasureError(f"{name} has {wrong[0]:g}; give a whole number of {what}")
