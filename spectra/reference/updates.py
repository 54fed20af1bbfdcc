"""Find the spectral edge by a full singular value decomposition."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def window_singular_values(updates: Sequence[np.ndarray]) -> np.ndarray:
    """Decompose the matrix with one update per row."""
    return np.linalg.svd(
        np.stack([np.asarray(u, dtype=np.float64).ravel() for u in updates]), compute_uv=False
    )


def edge(values: Sequence[float]) -> tuple[int, float]:
    """Find k* and its gap, the first largest ratio."""
    best, gap = 0, -1.0
    for j in range(len(values) - 1):
        ratio = values[j] / values[j + 1]
        if ratio > gap:
            best, gap = j + 1, ratio
    return best, gap


def moving_average(noise: np.ndarray, momentum: float, warm_up: int) -> np.ndarray:
    """Compute an exponential moving average of noise step by step.

    m_t = β m_{t−1} + (1−β) g_t of the rows of noise, without the first rows.
    """
    state, rows = np.zeros(noise.shape[1]), []
    for t, g in enumerate(noise):
        state = momentum * state + (1 - momentum) * g
        if t >= warm_up:
            rows.append(state)
    return np.stack(rows)
