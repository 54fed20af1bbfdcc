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

# Of `path_length`: nodes of a Gauss–Legendre rule, how far differences of logits may change along them, and in all.
_NODES, _RESOLVED, _LARGEST = 200, 40.0, 1e6


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

    T ln(V − 1) + h₂(T), h₂ the entropy of a coin; the bound is sharp for T ≤ 1 − 1/V, and falls beyond.

    Raises:
        ValueError: T outside [0, 1] by more than rounding.

    >>> float(entropy_gap_bound(0.5, 2).round(6))
    0.693147
    """
    t = np.asarray(variation, float)
    if ((t < 0) | (t > 1 + 1e-6)).any():
        raise ValueError(f"total variations are {t.min():.6g} to {t.max():.6g}; pass numbers from 0 to 1")
    # Chances that add up to 1 up to rounding may differ by a little more than 1.
    t = np.minimum(t, 1.0)
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

    Raises:
        ValueError: logits that are not finite, or differences of two of them that change by more than 1e6 on the way.

    >>> round(path_length([[1.0], [0.0]], [0.0], [1e-3]), 9)
    0.0005
    """
    g, h, end = np.asarray(head, float), np.asarray(start, float), np.asarray(end, float)
    # (V,) each: logits at the start, and their change, whose variance under q is Δᵀ g(h_s) Δ.
    logits, change = g @ h, g @ (end - h)
    turn = float(np.ptp(change))
    if not (np.isfinite(logits).all() and turn <= _LARGEST):
        raise ValueError(
            f"differences of logits change by {turn:.3g} from state to state; pass finite states and heads with at "
            f"most {_LARGEST:.0e}"
        )
    # The speed is a peak wherever the likeliest token changes, as narrow as the logits change fast.
    parts = math.ceil(max(turn / _RESOLVED, 1.0))
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    inside = (1 + nodes) / (2 * parts)
    return sum(float(weights @ _speeds(logits, change, k / parts + inside)) for k in range(parts)) / (
        2 * parts
    )


def _speeds(logits: Array, change: Array, places: Array) -> Array:
    """Return the standard deviations (n,) of the change of logits (V,) under the laws at places (n,) of a path."""
    z = logits + places[:, None] * change
    top = z.argmax(axis=1)
    q = np.exp(z - z.max(axis=1, keepdims=True))
    q /= q.sum(axis=1, keepdims=True)
    # Seen from the likeliest token, the mean of a confident law is a sum of small parts, which keep their digits.
    apart = change - change[top][:, None]
    apart = apart - (q * apart).sum(axis=1, keepdims=True)
    return np.sqrt((q * apart**2).sum(axis=1))


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
