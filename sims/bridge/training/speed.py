"""Floating-point operations of a model, and the rate at which a device can do them."""

from __future__ import annotations

import time

import torch

from toymodel.transformer import Transformer


def flops_per_token(transformer: Transformer) -> float:
    """Operations of matrix products for one training token: three times those of the forward pass.

    Forward, a token takes 2 operations for each entry of every block matrix and of the head (a tied one too), and
    4·d for each earlier position that it sees in a block, itself included: half of T + 1 on average where nothing
    hides any. Looking up embeddings, Muon's orthogonalisation and blocks that are run a second time do not count.
    """
    s, window = transformer.sizes, transformer.stage.window
    entries = sum(spec.size for spec in transformer.specs() if spec.role == "hidden") + s.vocab * s.d
    reach = [s.length if window is None else window.size(layer, 1.0) for layer in range(s.layers)]
    attention = sum(4 * s.d * _visible(s.length, r) for r in reach)
    return 3 * (2 * entries + attention)


def _visible(length: int, window: int) -> float:
    """Mean number of positions that a query sees."""
    w = min(window, length)
    return (w * (w + 1) / 2 + (length - w) * w) / length


def measured_rate(device: torch.device, dtype: torch.dtype, repeats: int = 5) -> float:
    """Operations a second of square matrix products on this device, the best of a few."""
    n = 8_192 if device.type == "cuda" else 768
    a, b = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
    best = float("inf")
    for _ in range(repeats + 1):
        began = _now(device)
        torch.mm(a, b)
        best = min(best, _now(device) - began)
    return 2 * n**3 / best


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
