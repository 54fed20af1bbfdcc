"""Give closed forms for language models as compositions of Markov kernels (arXiv 2507.19247).

A context x has the true law p_x of the next token; a model has a state h (d,) of it and answers
q = softmax(G h), G (V, d) its head.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import entr, xlog1py, xlogy

from theory.values import Array

# Nodes of the Gauss–Legendre rule of `path_length`.
_NODES = 200


def shannon_entropy(p: ArrayLike) -> Array:
    """Return the entropy in nats of laws (…, V).

    >>> float(shannon_entropy([0.5, 0.5]).round(6))
    0.693147
    """
    return entr(np.asarray(p, float)).sum(axis=-1)


def renyi_entropy(p: ArrayLike, order: float) -> float:
    """Return the Rényi entropy in nats of a law (V,): ln Σ p^order/(1 − order); Shannon's at order 1.

    Tokens without a chance do not count, so that order 0 is the logarithm of the size of the support.

    Raises:
        ValueError: an infinite order.

    >>> renyi_entropy([0.5, 0.5, 0.0], 0.0) == math.log(2)
    True
    """
    if not math.isfinite(order):
        raise ValueError(f"the order is {order}; pass a finite number")
    p = np.asarray(p, float)
    if order == 1:
        return float(shannon_entropy(p))
    p = p[p > 0]
    logs = np.log(p)
    with np.errstate(over="ignore"):
        change = (p * np.expm1((order - 1) * logs)).sum()
    if abs(change) < 0.5:
        # Σ p^order less Σ p = 1: the logarithm of a number near 1 keeps no digits of it.
        return float(np.log1p(change) / (1 - order)) + 0.0
    # In units of the largest term nothing leaves float64.
    top = logs.max() if order > 0 else logs.min()
    with np.errstate(over="ignore"):
        terms = np.exp(order * (logs - top))
    return float(order / (1 - order) * top + np.log(terms.sum()) / (1 - order))


def copy_entropies(p: ArrayLike, order: float) -> Array:
    """Return how far the joint law of a token and its copy is from that of two independent tokens, (4,).

    D(Σ_w p_w δ_(w,w) ‖ p⊗p) for the divergence of Kullback and Leibler (Shannon's entropy), total variation (1 − Σp²),
    χ² (size of the support − 1) and Rényi's of an order (the Rényi entropy of order 2 − order).

    >>> copy_entropies([0.5, 0.5], order=2.0).round(6).tolist()
    [0.693147, 0.5, 1.0, 0.693147]
    """
    p = np.asarray(p, float)
    return np.array(
        [shannon_entropy(p), (p * (1 - p)).sum(), np.count_nonzero(p) - 1, renyi_entropy(p, 2 - order)]
    )


def total_variation(p: ArrayLike, q: ArrayLike) -> Array:
    """Return ½Σ|p − q| of laws (…, V).

    >>> float(total_variation([1.0, 0.0], [0.5, 0.5]))
    0.5
    """
    return np.abs(np.asarray(p, float) - np.asarray(q, float)).sum(axis=-1) / 2


def entropy_gap_bound(variation: ArrayLike, vocabulary: int) -> Array:
    """Return the largest difference of entropies of two laws over V tokens at a total variation T.

    T ln(V − 1) + h₂(T), h₂ the entropy of a coin; the bound is sharp for T ≤ 1 − 1/V.

    >>> float(entropy_gap_bound(0.5, 2).round(6))
    0.693147
    """
    t = np.asarray(variation, float)
    return t * math.log(max(vocabulary - 1, 1)) - xlogy(t, t) - xlog1py(1 - t, -t)


def fisher_metric(head: ArrayLike, state: ArrayLike) -> Array:
    """Return the Fisher metric (d, d) of the next token at a state: Gᵀ(diag q − qqᵀ)G, q = softmax(G h).

    >>> fisher_metric([[1.0], [0.0]], [0.0])
    array([[0.25]])
    """
    g, h = np.asarray(head, float), np.asarray(state, float)
    # In this unit of the state no logit overflows.
    unit = max(np.abs(h).max(), 1.0)
    z = g @ (h / unit)
    with np.errstate(over="ignore"):
        q = _softmax((z - z.max()) * unit)
    # Seen from the likeliest token, the mean of a confident law is a sum of small parts, which keep their digits.
    rows = g - g[z.argmax()]
    rows = (rows - q @ rows) * np.sqrt(q)[:, None]
    return rows.T @ rows


def fisher_rao_distance(p: ArrayLike, q: ArrayLike) -> float:
    """Return the Fisher–Rao distance of two laws (V,): 2 arccos Σ√(pq).

    >>> round(fisher_rao_distance([1.0, 0.0], [0.0, 1.0]), 9)
    3.141592654
    """
    # |√p − √q| = 2 sin(distance/4), which keeps the digits of small distances.
    chord = np.linalg.norm(np.sqrt(np.asarray(p, float)) - np.sqrt(np.asarray(q, float)))
    return float(4 * np.arcsin(min(chord / 2, 1.0)))


def path_length(head: ArrayLike, start: ArrayLike, end: ArrayLike) -> float:
    """Return the Fisher length of the straight path between two states: ∫₀¹ √(Δᵀ g(h_s) Δ) ds.

    It bounds the Fisher–Rao distance of the two next-token laws from above; with two tokens they are equal.

    >>> round(path_length([[1.0], [0.0]], [0.0], [1e-3]), 9)
    0.0005
    """
    h, change = np.asarray(start, float), np.asarray(end, float) - np.asarray(start, float)
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    squared = [change @ fisher_metric(head, h + (1 + s) / 2 * change) @ change for s in nodes]
    # Rounding may leave a square below 0.
    return float(weights @ np.sqrt(np.maximum(squared, 0.0)) / 2)


def explained_variance(states: ArrayLike, targets: ArrayLike) -> float:
    """Return the variance of targets (n, k) that states (n, d) explain linearly: tr Σ times R².

    >>> round(explained_variance([[1.0], [-1.0]], [[2.0], [-2.0]]), 9)
    4.0
    """
    h, y = (x - x.mean(axis=0) for x in (np.asarray(states, float), np.asarray(targets, float)))
    fitted = h @ np.linalg.lstsq(h, y, rcond=None)[0]
    return float((fitted**2).sum() / len(y))


def _softmax(z: Array) -> Array:
    e = np.exp(z - z.max())
    return e / e.sum()
