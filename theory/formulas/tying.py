"""Give closed forms of the cost of tying the head to the embedding."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import gammaln


def symmetric_margin(c: int, d: int) -> float:
    """Return the largest margin of a symmetric readout of a shift.

    L with |L_xy| ≤ 1 that realises argmax_y L[x,y] = x+d mod c for all x.

    2 (L = ±1 works) when 2d ≡ 0 mod c, 0 (impossible) otherwise: L[x,x+d] > L[x,x−d] = L[x−d,x] for all x
    would increase without end around the cycle.

    >>> symmetric_margin(8, 4), symmetric_margin(7, 3)
    (2.0, 0.0)
    """
    return 2.0 if (2 * d) % c == 0 else 0.0


def tied_initial_loss(d: int) -> float:
    """Return the initial cross-entropy of a tied N(0,1) head, nats.

    √(2d)·Γ((d+1)/2)/Γ(d/2) = d − 1/4 + O(1/d).

    The state is the RMS-normalised embedding of the current token, so that its logit is √d‖w‖ while every other
    logit is N(0, d). Holds while √(2d ln V) ≪ d and the target is never the current token.

    >>> round(tied_initial_loss(128), 2)
    127.75
    """
    return float(np.sqrt(2 * d) * np.exp(gammaln((d + 1) / 2) - gammaln(d / 2)))


def zero_head_loss(vocabulary: int) -> float:
    """Return ln V nats, the cross-entropy of a zero head.

    >>> zero_head_loss(1)
    0.0
    """
    return float(np.log(vocabulary))


def zero_head_gradient_norm(states: ArrayLike, targets: ArrayLike, vocabulary: int) -> float:
    """Return the gradient norm of a zero head.

    ‖∂L/∂W‖_F at W = 0 for states (n, d), targets (n,): n^{−1}√Σ_ij (δ_{y_i y_j} − 1/V) h_i·h_j.

    >>> round(zero_head_gradient_norm([[1.0, 0.0]], [0], 2), 6)
    0.707107
    """
    h, y = np.asarray(states, float), np.asarray(targets)
    # (classes, d) sums of the states of each target. As a sum over classes no term is negative, so that states that
    # cancel leave rounding and no root of a negative number.
    found, place = np.unique(y, return_inverse=True)
    sums = np.zeros((len(found), h.shape[1]))
    np.add.at(sums, place, h)
    mean = h.sum(axis=0) / vocabulary
    squared = ((sums - mean) ** 2).sum() + (vocabulary - len(found)) * (mean**2).sum()
    return float(np.sqrt(squared) / len(h))
