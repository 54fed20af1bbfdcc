"""Give closed forms for the entropy of a spectrum: its rate of change, and what each rank adds to a change.

A spectrum λ (k,) has the shares p_i = λ_i/Σλ, the entropy S = −Σ p ln p in nats and RankMe = exp(S) on energies.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import entr, xlogy

from theory.values import Array


def shares(values: ArrayLike) -> Array:
    """Divide spectra (…, k) by their sums.

    Raises:
        ValueError: a value that is negative or not finite, or a spectrum of zeros only.

    >>> shares([3.0, 1.0])
    array([0.75, 0.25])
    """
    found = np.asarray(values, float)
    if found.ndim == 0 or not np.isfinite(found).all() or (found < 0).any():
        raise ValueError("a spectrum has a value that is negative or not finite; pass eigenvalues ≥ 0")
    total = found.sum(axis=-1, keepdims=True)
    if not (total > 0).all():
        raise ValueError("a spectrum is zero everywhere and has no shares; pass one with a positive value")
    return found / total


def spectral_entropy(values: ArrayLike) -> Array:
    """Return the entropy S in nats of spectra (…, k).

    >>> float(spectral_entropy([2.0, 2.0]).round(6))
    0.693147
    """
    return entr(shares(values)).sum(axis=-1)


def effective_rank(values: ArrayLike) -> Array:
    """Return RankMe on energies, exp(S), of spectra (…, k).

    >>> float(effective_rank([2.0, 2.0, 0.0]).round(6))
    2.0
    """
    return np.exp(spectral_entropy(values))


def entropy_rate(values: ArrayLike, growth: ArrayLike) -> float:
    """Return dS/dt = −Cov_p(g, ln p) of one spectrum, nats per unit of time.

    The covariance weighs rank i by its share p_i.

    Args:
        values: (k,) positive eigenvalues.
        growth: (k,) relative rates g_i = d ln λ_i/dt.

    Raises:
        ValueError: a value that is not positive, or a rate for each of another number of values.

    >>> round(entropy_rate([3.0, 1.0], [1.0, 0.0]), 6), entropy_rate([3.0, 1.0], [1.0, 1.0])
    (-0.20599, 0.0)
    """
    p, g = shares(values), np.asarray(growth, float)
    if p.ndim != 1 or g.shape != p.shape or not (p > 0).all():
        raise ValueError("pass one spectrum of positive values and one rate for each of them")
    return float(-(p * (g - p @ g) * np.log(p)).sum()) + 0.0


def entropy_contributions(before: ArrayLike, after: ArrayLike) -> Array:
    """Split the change of S between two spectra over the ranks, in nats.

    c_i = −∫(ln p_i + S) dp_i along the straight line between the two sets of shares. For a small change c_i is the term
    of rank i in −Cov_p(g, ln p). A rank adds entropy if its share grows from below the typical share exp(−S), or falls
    from above it. Shares of 0 are allowed.

    Args:
        before, after: (k,) eigenvalues ≥ 0, both sorted in the same way, or matched by their directions.

    Returns:
        (k,) contributions, whose sum is the change of S.

    Raises:
        ValueError: spectra of different sizes, and see `shares`.

    >>> change = entropy_contributions([3.0, 1.0], [2.0, 2.0])
    >>> change.round(4), bool(np.isclose(change.sum(), spectral_entropy([1, 1]) - spectral_entropy([3, 1])))
    (array([0.0434, 0.0874]), True)
    """
    p, q = shares(before), shares(after)
    if p.ndim != 1 or p.shape != q.shape:
        raise ValueError(f"spectra of shapes {p.shape} and {q.shape}; pass two with the same number of ranks")
    own = (entr(q) + q) - (entr(p) + p)
    typical = -_mean_xlogx(p, q).sum()
    return own - (q - p) * typical


def _mean_xlogx(a: Array, b: Array) -> Array:
    """Return the mean of x ln x over the interval between a and b, for each component."""
    middle, width = (a + b) / 2, b - a
    ratio = np.divide(width, middle, out=np.zeros_like(width), where=middle > 0)
    small = np.abs(ratio) < 0.01
    # The closed form loses the digits of a narrow interval: there its series, to the sixth power of the ratio.
    series = xlogy(middle, middle) + middle * (ratio**2 / 24 + ratio**4 / 960)
    wide = np.where(small, 1.0, width)
    closed = (b * xlogy(b, b) - a * xlogy(a, a)) / (2 * wide) - middle / 2
    return np.where(small, series, closed)
