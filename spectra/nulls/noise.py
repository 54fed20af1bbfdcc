"""Draw the whole spectrum of Gaussian noise, rank by rank."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import scipy
from numpy.typing import ArrayLike

from spectra.arrays import flag, require_generator, whole
from spectra.errors import InputError
from spectra.nulls.arguments import levels

DRAWS = 1000
LEAST_DRAWS = 10
# Work of all draws, in squared ranks: about half a second. Spectra of more ranks vary less, and get fewer draws.
WORK = 4e7


def noise_quantiles(
    n: int, d: int, q: ArrayLike = (0.025, 0.975), *, centred: bool = False, ranks: int | None = None
) -> np.ndarray:
    """Return quantiles of each share λ_j/Σλ of Gaussian noise.

    The noise is an (n, d) matrix of independent entries of one variance. Its eigenvalues are drawn through the
    bidiagonal form of the matrix, which has the same law, at a cost that does not depend on the longer side.

    Args:
        n, d: rows and columns of the matrix.
        q: levels of the quantiles, in [0, 1].
        centred: whether the mean of the rows was removed, which takes one row.
        ranks: keep this many of the largest, and take shares of their sum; all by default.

    Returns:
        (quantiles, ranks) shares, descending in each row, from 1000 draws with a fixed seed; fewer above 200 ranks,
        whose shares vary less (38 at 1024, at least 10).

    Raises:
        InputError: n or d below 1, one centred row, levels outside [0, 1], or ranks outside 1..min(n, d).

    Source: Dumitriu and Edelman, J. Math. Phys. 43 (2002).

    >>> low, high = noise_quantiles(1000, 50)
    >>> bool(low[0] < 1.5 / 50 < high[0]), len(low)
    (True, 50)
    """
    n, d = whole(n, "n", least=1), whole(d, "d", least=1)
    freedom = n - 1 if flag(centred, "centred") else n
    if freedom < 1:
        raise InputError("one centred row has no variation; noise needs at least two rows")
    least = min(freedom, d)
    kept = least if ranks is None else whole(ranks, "ranks", least=1, most=least)
    energies = drawn_energies(max(freedom, d), least)[:, :kept]
    return np.quantile(energies / energies.sum(axis=1, keepdims=True), levels(q), axis=0)


def noise_energies(n: int, d: int, rng: np.random.Generator, repeats: int = 1) -> np.ndarray:
    """Draw the squared singular values of (n, d) matrices of independent entries N(0, 1).

    (repeats, min(n, d)), descending in each row. Reflections make such a matrix bidiagonal, with independent squared
    entries χ²: the law is exact, and a draw costs min(n, d)² operations.

    Args:
        n, d: rows and columns.
        rng: generator.
        repeats: number of draws.

    Raises:
        InputError: n, d or repeats below 1 or not whole, or no generator.

    Source: Silverstein, Ann. Probab. 13 (1985); Dumitriu and Edelman, J. Math. Phys. 43 (2002).

    >>> noise_energies(40, 3, np.random.default_rng(0), repeats=2).shape
    (2, 3)
    """
    n, d, repeats = whole(n, "n", least=1), whole(d, "d", least=1), whole(repeats, "repeats", least=1)
    require_generator(rng)
    longer, shorter = max(n, d), min(n, d)
    energies = np.empty((repeats, shorter))
    for row in energies:
        # B Bᵀ is tridiagonal.
        diagonal, below = squared_bidiagonal(longer, shorter, rng)
        off = np.sqrt(diagonal[:-1] * below)
        diagonal[1:] += below
        row[:] = scipy.linalg.eigvalsh_tridiagonal(diagonal, off)[::-1]
    # Rounding can put the least eigenvalue of a square matrix below 0.
    return np.maximum(energies, 0.0)


def squared_bidiagonal(longer: int, shorter: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw the squared diagonal and subdiagonal of a lower bidiagonal B with the singular values of Gaussian noise."""
    return rng.chisquare(longer - np.arange(shorter)), rng.chisquare(np.arange(shorter - 1, 0, -1))


@lru_cache(maxsize=16)
def drawn_energies(longer: int, shorter: int) -> np.ndarray:
    """Return (draws, shorter) eigenvalues of A Aᵀ, descending, for Gaussian A of this shape."""
    draws = int(min(max(WORK / shorter**2, LEAST_DRAWS), DRAWS))
    energies = noise_energies(longer, shorter, np.random.default_rng([longer, shorter]), draws)
    energies.setflags(write=False)
    return energies
