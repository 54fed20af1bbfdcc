"""Simulate a next-token readout at initialisation, and solve for the best symmetric one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog
from scipy.special import logsumexp

from theory.values import Array


def rms_normalise(h: Array) -> Array:
    """Scale rows to mean square 1, without gain and ε.

    >>> rms_normalise(np.array([[3.0, 4.0]])).round(4)
    array([[0.8485, 1.1314]])
    """
    return h / np.sqrt((h**2).mean(-1, keepdims=True))


def cross_entropy(logits: Array, targets: NDArray[np.int64]) -> Array:
    """Return the cross-entropy of each row, in nats.

    (n,) −ln softmax(logits)[target] for logits (n, V).

    >>> cross_entropy(np.zeros((1, 4)), np.array([2])).round(4)
    array([1.3863])
    """
    return logsumexp(logits, axis=1) - logits[np.arange(len(targets)), targets]


def tied_losses(rng: np.random.Generator, vocabulary: int, d: int, tokens: int, draws: int) -> Array:
    """Simulate the initial loss of a tied embedding.

    (draws,) mean losses of an N(0,1) embedding whose trunk still outputs zero.

    Each draw takes a new embedding and ``tokens`` uniform pairs (current, next ≠ current).

    >>> tied_losses(np.random.default_rng(0), vocabulary=16, d=8, tokens=10, draws=3).shape
    (3,)
    """
    out = np.empty(draws)
    for i in range(draws):
        w = rng.standard_normal((vocabulary, d))
        x = rng.integers(vocabulary, size=tokens)
        y = (x + rng.integers(1, vocabulary, size=tokens)) % vocabulary
        out[i] = cross_entropy(rms_normalise(w[x]) @ w.T, y).mean()
    return out


def zero_head_derivatives(
    rng: np.random.Generator, vocabulary: int, d: int, tokens: int, step: float = 1e-5
) -> tuple[float, float, float, Array, NDArray[np.int64]]:
    """Measure loss and gradient norms of a readout with a zero head, by finite differences.

    The model is embedding → RMSNorm → x + C relu(A x)² → RMSNorm → head, with A, C random, head 0.

    Returns:
        loss (nats), ‖∂L/∂head‖_F, norm of the derivative along the embedding, A and C together, the states
        (tokens, d) before the head and the targets (tokens,).

    >>> loss, head, trunk, states, targets = zero_head_derivatives(np.random.default_rng(0), 3, 2, tokens=4)
    >>> round(loss, 4), head > 0, trunk
    (1.0986, True, 0.0)
    """
    parts = {
        "embedding": rng.standard_normal((vocabulary, d)),
        "a": rng.standard_normal((d, d)) / np.sqrt(d),
        "c": rng.standard_normal((d, d)) / np.sqrt(d),
        "head": np.zeros((vocabulary, d)),
    }
    x = rng.integers(vocabulary, size=tokens)
    y = (x + rng.integers(1, vocabulary, size=tokens)) % vocabulary

    def states() -> Array:
        h = rms_normalise(parts["embedding"][x])
        return rms_normalise(h + np.maximum(h @ parts["a"].T, 0) ** 2 @ parts["c"].T)

    def loss() -> float:
        return float(cross_entropy(states() @ parts["head"].T, y).mean())

    norms = {}
    for name, array in parts.items():
        total = 0.0
        for index in np.ndindex(array.shape):
            kept = array[index]
            array[index] = kept + step
            up = loss()
            array[index] = kept - step
            total += ((up - loss()) / (2 * step)) ** 2
            array[index] = kept
        norms[name] = total
    trunk = float(np.sqrt(norms["embedding"] + norms["a"] + norms["c"]))
    return loss(), float(np.sqrt(norms["head"])), trunk, states(), y


def best_margin(c: int, d: int, symmetric: bool = True) -> float:
    """Solve for the largest margin of a readout of a shift.

    max_L min_{x, y≠x+d} L[x, x+d] − L[x, y] over |L_xy| ≤ 1, L symmetric or free; a linear programme.

    >>> abs(round(best_margin(5, 1), 6)), round(best_margin(4, 2), 6)
    (0.0, 2.0)
    """
    index = np.empty((c, c), int)
    if symmetric:
        low = np.tril_indices(c)
        index[low] = np.arange(len(low[0]))
        index[low[1], low[0]] = index[low]
    else:
        index[:] = np.arange(c * c).reshape(c, c)
    size = int(index.max()) + 1
    rows = []
    for x in range(c):
        for y in range(c):
            if y != (x + d) % c:
                row = np.zeros(size + 1)
                row[index[x, y]] += 1
                row[index[x, (x + d) % c]] -= 1
                row[-1] = 1
                rows.append(row)
    objective = np.zeros(size + 1)
    objective[-1] = -1
    solution = linprog(objective, np.array(rows), np.zeros(len(rows)), bounds=[(-1, 1)] * size + [(0, 2)])
    if not solution.success:
        raise RuntimeError(f"linear programme for c={c}, d={d} failed: {solution.message}")
    return float(-solution.fun)
