"""Find the spectral edge by a full singular value decomposition, and noise step by step."""

from __future__ import annotations

import math
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


def block_sums(averages: np.ndarray, stride: int) -> np.ndarray:
    """Add up every s successive updates: the differences of weights s steps apart."""
    return np.stack(
        [averages[i : i + stride].sum(axis=0) for i in range(0, len(averages) - stride + 1, stride)]
    )


def momentum_correlation(lag: int, momentum: float, stride: int) -> float:
    """Add up the correlations β^|i−j| of all pairs of steps of two blocks that are l blocks apart."""

    def total(apart: int) -> float:
        return math.fsum(
            momentum ** abs(apart * stride + j - i) for i in range(stride) for j in range(stride)
        )

    return total(lag) / total(0)


def window_numbers(rows: np.ndarray, row_normalised: bool = False) -> dict[str, float]:
    """Compute the numbers of one window from its updates, without their Gram matrix."""
    norms = [float(np.linalg.norm(row)) for row in rows]
    units = np.stack([row / norm if norm else row for row, norm in zip(rows, norms, strict=True)])
    x = units if row_normalised else rows
    size = len(x)
    values = [float(v) for v in window_singular_values(list(x))] + [0.0] * max(0, size - x.shape[1])
    total = sum(v**2 for v in values)
    numbers = {f"r{j + 1}{j + 2}": values[j] / values[j + 1] for j in range(min(3, size - 1))}
    numbers["k"], numbers["gap"] = edge(values)
    numbers["k_half"], numbers["gap_half"] = edge(values[: max(1, size // 2) + 1])
    weighted = [values[j] ** 2 / values[j + 1] for j in range(size - 1)]
    numbers["k_weighted"] = 1 + weighted.index(max(weighted))
    numbers["gap_weighted"] = values[numbers["k_weighted"] - 1] / values[numbers["k_weighted"]]
    if size >= 3:
        numbers["g23"] = values[1] ** 2 - values[2] ** 2
    numbers["pc1"] = values[0] ** 2 / total
    numbers["k95"] = next(k for k in range(1, size + 1) if sum(v**2 for v in values[:k]) >= 0.95 * total)
    numbers["drift"] = float(np.linalg.norm(x.mean(axis=0)))
    numbers["mean_cosine"] = float(
        np.mean([units[i] @ units[j] for i in range(size) for j in range(size) if i < j])
    )
    numbers["lag1"] = float(np.mean([units[i] @ units[i + 1] for i in range(size - 1)]))
    return numbers


def direction_change(first: np.ndarray, second: np.ndarray) -> float:
    """Compute 1 − |⟨v, v'⟩| from the first right singular vectors of two windows."""
    directions = [np.linalg.svd(x, full_matrices=False)[2][0] for x in (first, second)]
    return 1.0 - abs(float(directions[0] @ directions[1]))


def sketched_ratios(
    values: np.ndarray, size: int, j: int, draws: int, rng: np.random.Generator
) -> np.ndarray:
    """Project a window with these singular values by Gaussian matrices, and take σ_j/σ_{j+1} of each sketch."""
    rotation = np.linalg.qr(rng.standard_normal((len(values), len(values))))[0]
    rows = rotation * values
    ratios = []
    for _ in range(draws):
        sketch = rows @ rng.normal(0.0, 1 / math.sqrt(size), (len(values), size))
        sketched = np.linalg.svd(sketch, compute_uv=False)
        ratios.append(sketched[j - 1] / sketched[j])
    return np.array(ratios)


def noise_gaps(
    norms: Sequence[float], correlations: np.ndarray, dimension: int, draws: int, rng: np.random.Generator
) -> np.ndarray:
    """Draw rows of Gaussian noise with these correlations, set their norms, and take the largest σ_j/σ_{j+1}."""
    root = np.linalg.cholesky(correlations)
    gaps = []
    for _ in range(draws):
        rows = root @ rng.standard_normal((len(norms), dimension))
        rows = np.stack([norm * row / np.linalg.norm(row) for norm, row in zip(norms, rows, strict=True)])
        gaps.append(edge([float(v) for v in window_singular_values(list(rows))])[1])
    return np.array(gaps)
