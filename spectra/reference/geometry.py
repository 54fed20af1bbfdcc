"""Compute effective ranks and exponents of states as published code does, with each of its conventions as an option.

The conventions are those of the code to arXiv 2509.23024: principal components of float16 states, 2,048 of them at
most, an ε that is added to every share, and the slope on ranks 12–100 with weights 1/rank. They are no part of what
this package measures.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

COMPONENTS, EPSILON = 2_048, 1e-7
# Places from 0, as in the code: ranks 12 to 100.
PLACES = range(11, 100)


def last_states(states: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Take the state of each sequence at its last token that is no padding, on whichever side the padding is.

    Args:
        states: (b, T, d).
        mask: (b, T), true where there is a token; at least one in each row.

    Returns:
        (b, d).
    """
    places = [max(t for t in range(mask.shape[1]) if mask[b, t]) for b in range(len(mask))]
    return np.array([states[b, t] for b, t in enumerate(places)])


def explained_variance(
    x: np.ndarray, components: int | None = COMPONENTS, *, half: bool = False
) -> list[float]:
    """Compute the explained variance of each principal component, descending, as shares of the whole variance.

    Args:
        x: (n, d) rows.
        components: how many are kept; None for all. The shares of fewer add up to less than 1.
        half: round the rows to float16 first.
    """
    rows = (x.astype(np.float16) if half else x).astype(np.float64)
    energies = np.linalg.svd(rows - rows.mean(axis=0), compute_uv=False) ** 2
    return [float(value) for value in (energies / energies.sum())[:components]]


def published_rankme(
    shares: Sequence[float], epsilon: float = EPSILON, *, renormalise: bool = False
) -> float:
    """Compute exp(−Σ (p + ε) ln(p + ε)); with ε the p no longer add up to 1.

    Args:
        shares: p, of all components or of those that were kept.
        epsilon: ε; 0 skips zeros.
        renormalise: divide the shares by their sum before ε is added.
    """
    total = math.fsum(shares) if renormalise else 1.0
    raised = [share / total + epsilon for share in shares]
    return math.exp(-math.fsum(p * math.log(p) for p in raised if p > 0))


def published_alpha(shares: Sequence[float], places: Sequence[int] = PLACES) -> float:
    """Compute minus the slope of ln share on ln rank with weights 1/rank, by the normal equations of a line.

    Raises:
        IndexError: fewer shares than places.
    """
    root = [(place + 1) ** -0.5 for place in places]
    design = np.array([[w, w * math.log(place + 1)] for w, place in zip(root, places, strict=True)])
    target = np.array([w * math.log(shares[place]) for w, place in zip(root, places, strict=True)])
    return -float(np.linalg.lstsq(design, target, rcond=None)[0][1])
