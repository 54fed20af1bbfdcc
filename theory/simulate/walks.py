"""Walks on a cyclic band: the bigram matrix that a learner sees, with the step known or unknown."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from theory.values import Array


def bigram_matrix(c: int, steps: ArrayLike) -> Array:
    """(c, c) P(y|x) of y = x + d mod c, d uniform on ``steps``."""
    p = np.zeros((c, c))
    allowed = np.atleast_1d(steps)
    for d in allowed:
        p[np.arange(c), (np.arange(c) + d) % c] += 1 / len(allowed)
    return p


def counted_bigrams(rng: np.random.Generator, c: int, q: int, walks: int) -> Array:
    """(c, c) empirical P(y|x) from the first two tokens of ``walks`` walks with d ~ U{q..c−1}, x uniform.

    Raises:
        ValueError: a state that no walk started from.
    """
    x = rng.integers(c, size=walks)
    y = (x + rng.integers(q, c, size=walks)) % c
    counts = np.bincount(x * c + y, minlength=c * c).reshape(c, c).astype(float)
    totals = counts.sum(1, keepdims=True)
    if totals.min() == 0:
        raise ValueError(f"{walks} walks leave a state of modulus {c} unvisited; draw more")
    return counts / totals


def fourier_moduli(p: Array) -> Array:
    """(c,) |χ_r^* P χ_r|/c of a (c, c) matrix: its diagonal in the Fourier basis, eigenvalues if circulant."""
    c = len(p)
    basis = np.exp(2j * np.pi * np.outer(np.arange(c), np.arange(c)) / c)
    return np.abs(np.einsum("mr,mn,nr->r", basis.conj(), p, basis)) / c


def eigenvalue_moduli(p: Array) -> Array:
    """(c,) moduli of the eigenvalues of a (c, c) matrix, descending; no Fourier basis assumed."""
    return np.sort(np.abs(np.linalg.eigvals(p)))[::-1]
