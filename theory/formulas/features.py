"""Give closed forms for free features θ (n, d) under a head W (d, V): what gradient flow keeps, how modes grow.

Row i occurs with frequency w_i and has the law Y_i of its token; its logits are θ_i W, the loss is the mean
cross-entropy Σ w_i CE(Y_i, softmax(θ_i W)), and G (n, V) is the gradient of the loss in the logits.
"""

from __future__ import annotations

import numpy as np
from scipy.special import softmax

from theory.values import Array


def logit_gradient(weights: Array, targets: Array, features: Array, head: Array) -> Array:
    """Return the gradient of the mean cross-entropy in the logits: G_ij = w_i (softmax(θ_i W)_j − Y_ij).

    Args:
        weights: (n,) frequencies; targets: (n, V) laws; features: (n, d); head: (d, V).

    >>> logit_gradient(np.ones(1), np.array([[1.0, 0.0]]), np.zeros((1, 1)), np.zeros((1, 2)))
    array([[-0.5,  0.5]])
    """
    return weights[:, None] * (softmax(features @ head, axis=1) - targets)


def balance(features: Array, head: Array) -> Array:
    """Return θᵀθ − WWᵀ (d, d), which gradient flow keeps.

    >>> balance(np.array([[2.0]]), np.array([[1.0]]))
    array([[3.]])
    """
    return features.T @ features - head @ head.T


def balance_drift(gradient: Array, features: Array, head: Array) -> Array:
    """Return the drift of θᵀθ − WWᵀ under gradient descent, per unit of time and of the learning rate.

    W GᵀG Wᵀ − θᵀG Gᵀθ (d, d): one step of rate η changes the balance by η² times this matrix.

    >>> balance_drift(np.array([[1.0]]), np.array([[2.0]]), np.array([[1.0]]))
    array([[-3.]])
    """
    back, forth = gradient @ head.T, features.T @ gradient
    return back.T @ back - forth @ forth.T


def mode_growth(gradient: Array, left: Array, right: Array) -> Array:
    """Return the relative growth g_i = −u_iᵀ G q_i of the modes of balanced features.

    With θ = U Σ Rᵀ and W = R Σ Qᵀ, dσ_i/dt = g_i σ_i.

    Args:
        gradient: (n, V); left: (n, d) columns u_i; right: (V, d) columns q_i.

    >>> mode_growth(np.array([[-0.5, 0.5]]), np.ones((1, 1)), np.array([[1.0], [0.0]]))
    array([0.5])
    """
    return -np.einsum("ni,nv,vi->i", left, gradient, right)
