"""Scores of weight matrices by their singular values, by which zeros (`prune`) and learning rates are shared.

| score | of a matrix |
|---|---|
| alpha | Hill exponent of its squared singular values |
| farms | the same of square tiles of one size for all matrices |
| alpha-z, farms-z | how many standard deviations above the mean of Gaussian matrices of its shape (its tiles) |
| depth | number of its block |

Values alone are computed: no intervals, and no tests of a misfit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from sims.measure.weight_tails import farms_of, tile_of
from spectra import Estimate, Spectrum, hill, hill_z, weight_spectra
from spectra.arrays import stored_precision
from spectra.nulls import noise_energies
from toymodel.rates import block_of

Matrices = Mapping[str, Tensor]
# Pools of Gaussian tiles that a FARMS exponent is compared with.
NOISE_DRAWS = 100


def estimates(name: str, matrices: Matrices) -> dict[str, Estimate]:
    """Return the score of every matrix.

    Args:
        name: one of `toymodel.rates.SCORES`.
        matrices: (rows, columns) of one model, in its blocks.

    Returns:
        By matrix; "not fitted", with the reason, where there is no exponent.

    >>> import torch
    >>> found = estimates("alpha", {"blocks.0.attn.o": torch.zeros(8, 8)})
    >>> found["blocks.0.attn.o"].status, found["blocks.0.attn.o"].reason
    ('not fitted', 'it is all zero')
    """
    return _SCORES[name](matrices)


def _alpha(matrices: Matrices) -> dict[str, Estimate]:
    return _of_spectra(matrices, lambda spectrum, own: hill(spectrum, tests=False, precision=own))


def _alpha_z(matrices: Matrices) -> dict[str, Estimate]:
    return _of_spectra(matrices, lambda spectrum, own: hill_z(spectrum, precision=own))


def _of_spectra(matrices: Matrices, of: Callable[[Spectrum, float], Estimate]) -> dict[str, Estimate]:
    """Return an estimate of the spectrum of each matrix; those of one shape are decomposed together."""
    zero = _zero(matrices)
    shapes: dict[object, list[str]] = {}
    for name, matrix in matrices.items():
        if name not in zero:
            shapes.setdefault(tuple(matrix.shape), []).append(name)
    found = dict(zero)
    for names in shapes.values():
        own = [stored_precision(matrices[name]) for name in names]
        spectra = weight_spectra(torch.stack([matrices[name] for name in names]), precision=own)
        found.update(zip(names, map(of, spectra, own), strict=True))
    return {name: found[name] for name in matrices}


def _farms(matrices: Matrices) -> dict[str, Estimate]:
    # Of the shapes of all, also of those of zeros: the tile stays the same while a model trains.
    tile, zero = tile_of(matrices), _zero(matrices)
    return {
        name: zero[name] if name in zero else farms_of(matrix, tile, stored_precision(matrix), tests=False)
        for name, matrix in matrices.items()
    }


def _farms_z(matrices: Matrices) -> dict[str, Estimate]:
    found = _farms(matrices)
    for name, own in found.items():
        if own.status != "not fitted":
            mean, deviation = noise_level(int(own.details["tile_short"]), int(own.details["tiles"]))
            found[name] = Estimate((own.value - mean) / deviation)
    return found


def _depth(matrices: Matrices) -> dict[str, Estimate]:
    return {
        name: Estimate(float((block_of(name) or "blocks.0").removeprefix("blocks."))) for name in matrices
    }


def _zero(matrices: Matrices) -> dict[str, Estimate]:
    """Return the matrices that are all zero, as an output projection is at the start, with that reason."""
    # One question to the device, not one for each matrix.
    moved = torch.stack([matrix.any() for matrix in matrices.values()]).tolist() if matrices else []
    return {
        name: Estimate.not_fitted("it is all zero")
        for name, any_ in zip(matrices, moved, strict=True)
        if not any_
    }


@lru_cache(maxsize=64)
def noise_level(size: int, tiles: int) -> tuple[float, float]:
    """Return mean and standard deviation of the Hill exponent of pools of independent square Gaussian tiles."""
    energies = noise_energies(size, size, np.random.default_rng([size, tiles]), NOISE_DRAWS * tiles)
    values = [hill(pool, tests=False).value for pool in energies.reshape(NOISE_DRAWS, -1)]
    return float(np.mean(values)), float(np.std(values, ddof=1))


_SCORES: Mapping[str, Callable[[Matrices], dict[str, Estimate]]] = {
    "alpha": _alpha,
    "alpha-z": _alpha_z,
    "farms": _farms,
    "farms-z": _farms_z,
    "depth": _depth,
}
