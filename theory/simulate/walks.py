"""Simulate walks on a cyclic band: bigram matrices, with the step known or unknown."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from theory.values import Array


def bigram_matrix(c: int, steps: ArrayLike) -> Array:
    """Build P(y|x) of a walk with given steps.

    (c, c), y = x + d mod c, d uniform on ``steps``.

    >>> bigram_matrix(3, [1, 2])[0]
    array([0. , 0.5, 0.5])
    """
    p = np.zeros((c, c))
    allowed = np.atleast_1d(steps)
    for d in allowed:
        p[np.arange(c), (np.arange(c) + d) % c] += 1 / len(allowed)
    return p


def counted_bigrams(rng: np.random.Generator, c: int, q: int, walks: int) -> Array:
    """Count P(y|x) over simulated walks.

    (c, c), from the first two tokens of ``walks`` walks with d ~ U{q..c−1}, x uniform.

    Raises:
        ValueError: a state that no walk started from.

    >>> counted_bigrams(np.random.default_rng(0), c=4, q=1, walks=100).sum(axis=1).round(6)
    array([1., 1., 1., 1.])
    """
    x = rng.integers(c, size=walks)
    y = (x + rng.integers(q, c, size=walks)) % c
    counts = np.bincount(x * c + y, minlength=c * c).reshape(c, c).astype(float)
    totals = counts.sum(1, keepdims=True)
    if totals.min() == 0:
        raise ValueError(f"{walks} walks leave a state of modulus {c} unvisited; draw more")
    return counts / totals


def fourier_moduli(p: Array) -> Array:
    """Return the moduli of a matrix's diagonal in the Fourier basis.

    (c,) |χ_r^* P χ_r|/c of a (c, c) matrix; moduli of the eigenvalues if it is circulant.

    >>> fourier_moduli(bigram_matrix(5, [1, 2, 3, 4])).round(6)
    array([1.  , 0.25, 0.25, 0.25, 0.25])
    """
    c = len(p)
    basis = np.exp(2j * np.pi * np.outer(np.arange(c), np.arange(c)) / c)
    return np.abs(np.einsum("mr,mn,nr->r", basis.conj(), p, basis)) / c


def eigenvalue_moduli(p: Array) -> Array:
    """Return the moduli of a matrix's eigenvalues, descending.

    (c,) of a (c, c) matrix; no Fourier basis is assumed.

    >>> eigenvalue_moduli(np.diag([1.0, -2.0]))
    array([2., 1.])
    """
    return np.sort(np.abs(np.linalg.eigvals(p)))[::-1]
