"""Form per-sample gradients one at a time, and decompose them in full."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn


def per_sample_gradients(
    model: nn.Module, parameter: str, loss: Callable[..., Tensor], *batch: Tensor
) -> Tensor:
    """Compute each sample's gradient by its own backward pass.

    (M, *shape).
    """
    weight = dict(model.named_parameters())[parameter]
    gradients = []
    for m in range(len(batch[0])):
        (gradient,) = torch.autograd.grad(loss(model, *(x[m : m + 1] for x in batch)), weight)
        gradients.append(gradient)
    return torch.stack(gradients)


def formed(a: np.ndarray, d: np.ndarray) -> np.ndarray:
    """Form each gradient, one outer product at a time.

    (M, out, in) G_m = Σ_t d_t a_tᵀ.
    """
    samples, positions, inner = a.shape
    gradients = np.zeros((samples, d.shape[2], inner))
    for m in range(samples):
        for t in range(positions):
            gradients[m] += np.outer(d[m, t], a[m, t])
    return gradients


def one_hot(index: np.ndarray, size: int) -> np.ndarray:
    """Return (M, T, size) rows of the identity matrix."""
    return np.eye(size)[index]


def stacked_singular_values(gradients: np.ndarray) -> np.ndarray:
    """Decompose the matrix with one flattened gradient per row."""
    return np.linalg.svd(gradients.reshape(len(gradients), -1).astype(np.float64), compute_uv=False)


def own_singular_values(gradients: Sequence[np.ndarray] | np.ndarray) -> np.ndarray:
    """Decompose each gradient; (M, min(out, in)) singular values."""
    return np.stack([np.linalg.svd(np.asarray(g, dtype=np.float64), compute_uv=False) for g in gradients])
