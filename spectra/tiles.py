"""Estimate the density exponent of a matrix from tiles of one shape (FARMS), free of the bias of its own shape."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch

from spectra.arrays import (
    Numbers,
    choice,
    flag,
    largest,
    real,
    require_squares,
    require_strided,
    to_tensor,
    whole,
)
from spectra.covariance import precision_of, stacked_squares, to_rows
from spectra.errors import InputError
from spectra.powerlaw import fitted_tail, positive_energies
from spectra.results import Estimate

# Entries of the tiles of `farms` that are decomposed at once.
WORKING_SET = 2**22

Sampling = Literal["tiles", "grid"]


def farms(
    W: Numbers,
    aspect: float = 1.0,
    size: int | None = None,
    k: int | None = None,
    tiles: int | None = None,
    *,
    sampling: Sampling = "tiles",
    ops: int = 10,
    tests: bool = True,
    precision: float | None = None,
) -> Estimate:
    """Estimate a matrix's tail exponent without the bias of its shape.

    Hill exponent of pooled eigenvalues of submatrices that all have one shape.

    The eigenvalues of a random matrix spread by an amount that depends on rows/columns only, and the Hill
    estimate of the whole matrix reports this spread as a change of tail. Tiles of one fixed aspect ratio cover W evenly
    (overlapping where they must), σ² of every tile are pooled, and `hill` is applied to the pool.

    Args:
        W: (m, n) numpy array or torch tensor.
        aspect: long side over short side of a tile, ≥ 1, lying along the long side of W.
        size: short side of a tile, ≥ 3; None means the largest that fits, min(m, n, max(m, n)/aspect).
        k: as in `hill`, on the pooled values; None means half.
        tiles: how many tiles to take at most, evenly spread; None means all that cover W. Entries outside them are not
            read.
        sampling: "tiles" takes the fewest that cover W; "grid" is the published choice of up to ops · ops windows: one
            starts every max(1, ⌊(side − tile)/(ops − 1)⌋) entries along each side. Windows of a grid may overlap
            much, and may leave the last rows and columns out.
        ops: of a grid, windows along each side at most.
        tests: as in `hill`.
        precision: as in `weight_spectrum`.

    Returns:
        Estimate as from `hill` with further details ``tiles``, ``tile_short``, ``tile_long``. Interval and tests are
        those of as many values as there are without the overlaps of tiles: entries are no new data in a second tile.

    Raises:
        InputError: what `weight_spectrum` rejects, aspect < 1, a tile that does not fit in W, or another sampling.

    Source: Hu et al., "Eigenspectrum analysis of neural networks without aspect ratio bias", arXiv
        2506.06280. Their code fits the pool otherwise (`spectra.reference.farms`).

    >>> W = np.random.default_rng(0).standard_normal((20, 40))
    >>> found = farms(W)
    >>> found.details["tiles"], found.details["tile_short"], found.details["tile_long"]
    (2, 20, 20)
    """
    # A few tiles of a large tensor are taken to float64 alone.
    if isinstance(W, torch.Tensor):
        require_strided(W, "W")
    matrix = (
        to_rows(W, "W") if tiles is None or not isinstance(W, torch.Tensor) or W.ndim != 2 else W.detach()
    )
    if matrix.shape[0] > matrix.shape[1]:
        matrix = matrix.T
    short, long = (int(s) for s in matrix.shape)
    rows, cols = _tile_shape(short, long, real(aspect, "aspect"), size)
    ops = whole(ops, "ops", least=1)
    if choice(sampling, "sampling", ("tiles", "grid")) == "grid":
        starts = _grid_offsets(short, rows, ops), _grid_offsets(long, cols, ops)
    else:
        starts = _even_offsets(short, rows), _even_offsets(long, cols)
    corners = list(itertools.product(*starts))
    if tiles is not None and len(corners) > whole(tiles, "tiles", least=1):
        corners = [corners[i] for i in np.linspace(0, len(corners) - 1, tiles).round().astype(int)]
    cut = [matrix[i : i + rows, j : j + cols] for i, j in corners]
    own = precision_of(W, precision)
    tests = flag(tests, "tests")
    share = _distinct_share(corners, rows, cols) if tests else 1.0
    pooled = fitted_tail(*positive_energies(_pooled_squares(cut, own)), k, tests, own, share)
    details = {**pooled.details, "tiles": len(corners), "tile_short": rows, "tile_long": cols}
    return Estimate(pooled.value, pooled.low, pooled.high, pooled.status, pooled.reason, details)


def _tile_shape(short: int, long: int, aspect: float, size: int | None) -> tuple[int, int]:
    """Return the short and the long side of the tiles of a matrix."""
    if not (math.isfinite(aspect) and aspect >= 1):
        raise InputError(f"aspect is {aspect}; it is the long side of a tile over its short side, at least 1")
    rows = min(short, int(long / aspect)) if size is None else whole(size, "size")
    cols = round(min(rows * aspect, long + 1.0))
    if rows < 3 or rows > short or cols > long:
        raise InputError(
            f"tiles of {rows}×{cols} do not suit a {short}×{long} matrix; "
            f"pass a size from 3 to {min(short, int(long / aspect))}, or a smaller aspect"
        )
    return rows, cols


def _distinct_share(corners: Sequence[tuple[int, ...]], rows: int, cols: int) -> float:
    """Return how many entries the tiles cover, over the sum of their sizes: 1 where none overlap."""
    places = np.array(corners)
    edges = [np.unique([places[:, axis], places[:, axis] + side]) for axis, side in enumerate((rows, cols))]
    covered = np.zeros([len(own) - 1 for own in edges], dtype=bool)
    for corner in corners:
        (top, bottom), (left, right) = (
            np.searchsorted(own, (start, start + side))
            for own, start, side in zip(edges, corner, (rows, cols), strict=True)
        )
        covered[top:bottom, left:right] = True
    return float(np.diff(edges[0]) @ covered @ np.diff(edges[1])) / (len(corners) * rows * cols)


def _pooled_squares(tiles: Sequence[Any], precision: float) -> np.ndarray:
    """Return the squared singular values of tiles of one shape, as many tiles at once as `WORKING_SET` holds."""
    step = max(1, WORKING_SET // math.prod(tiles[0].shape))
    pooled = []
    for start in range(0, len(tiles), step):
        own = tiles[start : start + step]
        stack = torch.stack(list(own)) if isinstance(own[0], torch.Tensor) else np.stack(own)
        checked = to_rows(stack, "W", ndim=3)
        require_squares(largest(checked))
        pooled.append(stacked_squares(to_tensor(checked, name="W"), [precision] * len(own)).ravel())
    return np.concatenate(pooled)


def _even_offsets(length: int, tile: int) -> list[int]:
    """Return the starts of the fewest tiles that cover a length, evenly spaced."""
    count = math.ceil(length / tile)
    return [round(i * (length - tile) / (count - 1)) for i in range(count)] if count > 1 else [0]


def _grid_offsets(length: int, tile: int, ops: int) -> list[int]:
    """Return the starts of the published windows along one side: a step of whole entries, rounded down."""
    step = max(1, (length - tile) // max(ops - 1, 1))
    return [i * step for i in range(min(ops, (length - tile) // step + 1))]
