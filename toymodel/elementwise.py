"""Elementwise operations with their derivatives written out.

Training at this size is bound by passes over activations. Autograd's own derivatives of these compositions make about
twice as many passes as the formulas need.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class _RmsNorm(torch.autograd.Function):
    """y = x·r with r = (mean x² + ε)^(−1/2);  dx = r·(g − y·mean(g·y))."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:  # type: ignore[override]
        scale = (x * x).mean(dim=-1, keepdim=True).add_(torch.finfo(x.dtype).eps).rsqrt_()
        y = x * scale
        ctx.save_for_backward(y, scale)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        y, scale = ctx.saved_tensors
        (g,) = grads
        along = (g * y).mean(dim=-1, keepdim=True).neg_()
        return torch.addcmul(g, y, along).mul_(scale)


class _SquaredRelu(torch.autograd.Function):
    """y = max(x, 0)²;  dx = 2·g·max(x, 0)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:  # type: ignore[override]
        positive = x.clamp_min(0)
        ctx.save_for_backward(positive)
        return positive * positive

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (positive,) = ctx.saved_tensors
        return (grads[0] * positive).mul_(2)


class _Rotate(torch.autograd.Function):
    """(x₁, x₂) → (x₁ cos − x₂ sin, x₁ sin + x₂ cos); the derivative is the rotation back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(cos, sin)
        return _turn(x, cos, sin)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        return _turn(grads[0], cos, -sin), None, None


def _turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    turned = torch.empty_like(x)
    half = x.shape[-1] // 2
    torch.mul(first, cos, out=turned[..., :half]).addcmul_(second, sin, value=-1)
    torch.mul(first, sin, out=turned[..., half:]).addcmul_(second, cos)
    return turned


def rms_norm(x: Tensor) -> Tensor:
    """x / √(mean x² + ε) over the last axis, without gain; ε is the dtype's machine epsilon."""
    return _RmsNorm.apply(x)  # type: ignore[no-any-return]


def squared_relu(x: Tensor) -> Tensor:
    """max(x, 0)²."""
    return _SquaredRelu.apply(x)  # type: ignore[no-any-return]


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Pairs (i, i + width/2) of the last axis turned by the angles of which cos and sin are given (…, width/2)."""
    return _Rotate.apply(x, cos, sin)  # type: ignore[no-any-return]
