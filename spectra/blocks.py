"""Squared singular values of large matrices on the host: a block of rows in float64 at a time, by numpy's BLAS."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, TypeGuard

import numpy as np
import torch

from spectra.arrays import EPS, require_squares
from spectra.covariance import GRAM_CONDITION_LIMIT, least_length, resolved, rounding_margin, to_rows


def on_host(W: object) -> TypeGuard[np.ndarray | torch.Tensor]:
    """Return whether W is a plain numpy array or torch tensor with real entries in two axes, in the host's memory."""
    if isinstance(W, torch.Tensor):
        plain = (
            type(W) in (torch.Tensor, torch.nn.Parameter) and W.layout == torch.strided and not W.is_nested
        )
        real = W.is_floating_point() and not W.is_neg()
        return plain and real and W.device.type == "cpu" and W.ndim == 2 and 0 not in W.shape
    return type(W) is np.ndarray and W.dtype.kind in "fiu" and W.ndim == 2 and 0 not in W.shape


def blocked_squares(W: Any, precision: float, block: int) -> np.ndarray:
    """Return the min(n, d) squared singular values of a matrix, descending; all are 0 where all entries are.

    As `covariance.squared_singular_values`: from the Gram matrix in float64, beyond a condition of 1e12 from W itself
    (through R of W = QR, block by block), and exactly 0 where rounding of the entries explains them. numpy's product of
    a matrix with its own transpose computes one triangle: half of the work.

    Args:
        W: (n, d), for which `on_host` holds.
        precision: machine epsilon of its entries.
        block: entries in float64 at a time, at least a square of the shorter side.

    Raises:
        InputError: NaN or Inf, or entries beyond 1e±144.

    >>> blocked_squares(np.diag([3.0, 4.0]), 2.0**-52, block=2).round(6)
    array([16.,  9.])
    """
    n, d = (int(size) for size in W.shape)
    gram, magnitude = None, 0.0
    for part in _blocks(W, block):
        own = max(float(part.max()), -float(part.min()))
        if not math.isfinite(own):
            # It raises, and says how many entries are none.
            to_rows(W, "W")
        magnitude = max(magnitude, own)
        require_squares(magnitude)
        product = part.T @ part
        gram = product if gram is None else np.add(gram, product, out=gram)
    assert gram is not None  # no axis of W is empty
    squares = np.maximum(np.linalg.eigvalsh(gram)[::-1], 0.0)
    if squares[-1] * GRAM_CONDITION_LIMIT <= squares[0]:
        sigma = np.linalg.svd(_triangle(W, block), compute_uv=False)
        sigma[sigma <= EPS * max(n, d) * sigma[0]] = 0.0
        squares = sigma**2
    columns = np.hypot(np.sqrt(np.diag(gram)), least_length(max(n, d), precision))
    floor = rounding_margin(precision) * np.sort(columns)[::-1]
    squares[resolved(np.sqrt(squares), floor) :] = 0.0
    return squares


def _triangle(W: Any, block: int) -> np.ndarray:
    """Return R of W = QR (of its transpose, where that is the taller one), whose singular values are those of W."""
    triangle = np.zeros((0, min(W.shape)))
    for part in _blocks(W, block):
        triangle = np.asarray(np.linalg.qr(np.concatenate([triangle, part]), mode="r"))
    return triangle


def _blocks(W: Any, block: int) -> Iterator[np.ndarray]:
    """Yield W, or its transpose where that is the taller one, as float64 rows (b, short side)."""
    tall = W if W.shape[0] >= W.shape[1] else W.T
    short = int(tall.shape[1])
    size = max(block // short, short)
    for start in range(0, len(tall), size):
        part = tall[start : start + size]
        yield part.detach().double().numpy() if isinstance(part, torch.Tensor) else part.astype(np.float64)
