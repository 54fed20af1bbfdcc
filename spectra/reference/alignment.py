"""Compute alignments of states with predictive operators from their definitions."""

from __future__ import annotations

import numpy as np


def explained_share(states: np.ndarray, embedding: np.ndarray, ridge: float = 1e-6) -> float:
    """Return 1 − residual/variance over the odd places, fitted to the even ones by normal equations.

    >>> states = np.array([[0.0], [1.0], [2.0], [5.0]])
    >>> round(float(explained_share(states, states + 1)), 3)
    1.0
    """
    fit, score = np.arange(0, len(states), 2), np.arange(1, len(states), 2)
    mean = states[fit].mean(axis=0)
    h = states[fit] - mean
    gram = h.T @ h
    # A ridge on whitened states multiplies the gram matrix by 1 + ridge.
    left = total = 0.0
    for j in range(embedding.shape[1]):
        y = embedding[fit, j]
        slope = np.linalg.pinv(gram * (1 + ridge)) @ h.T @ (y - y.mean())
        for i in score:
            left += (embedding[i, j] - y.mean() - (states[i] - mean) @ slope) ** 2
            total += (embedding[i, j] - embedding[score, j].mean()) ** 2
    return 1 - left / total


def subspace_overlap(states: np.ndarray, embedding: np.ndarray, k: int) -> float:
    """Return tr(P_h P_Φ)/k, P the projections on the k leading eigenvectors of the centred (N, N) Gram matrices.

    >>> round(subspace_overlap(np.array([[0.0], [1.0], [5.0]]), np.array([[1.0], [3.0], [11.0]]), k=1), 12)
    1.0
    """
    projections = []
    for x in (states, embedding):
        centred = x - x.mean(axis=0)
        vectors = np.linalg.eigh(centred @ centred.T)[1][:, -k:]
        projections.append(vectors @ vectors.T)
    return float(np.trace(projections[0] @ projections[1]) / k)


def linear_cka(states: np.ndarray, embedding: np.ndarray) -> float:
    """Return HSIC(h, Φ)/√(HSIC(h, h) HSIC(Φ, Φ)) with linear kernels, by the centring matrix.

    >>> round(linear_cka(np.array([[0.0], [1.0], [5.0]]), np.array([[1.0], [3.0], [11.0]])), 12)
    1.0
    """
    n = len(states)
    centre = np.eye(n) - 1 / n
    k, m = (centre @ x @ x.T @ centre for x in (states, embedding))
    return float(np.trace(k @ m) / np.sqrt(np.trace(k @ k) * np.trace(m @ m)))


def head_metric(head: np.ndarray, states: np.ndarray) -> np.ndarray:
    """Return the mean over states of Σ_{v<w} q_v q_w (g_v − g_w)(g_v − g_w)ᵀ, which is Gᵀ(diag q − qqᵀ)G.

    >>> head_metric(np.array([[1.0], [0.0]]), np.array([[0.0]]))
    array([[0.25]])
    """
    total = np.zeros((head.shape[1], head.shape[1]))
    for h in states:
        # In this unit of the state no logit overflows.
        unit = max(np.abs(h).max(), 1.0)
        z = head @ (h / unit)
        with np.errstate(over="ignore"):
            e = np.exp((z - z.max()) * unit)
        q = e / e.sum()
        for v in range(len(head)):
            for w in range(v):
                apart = head[v] - head[w]
                total += q[v] * q[w] * np.outer(apart, apart)
    return total / len(states)
