"""Elementwise operations with their derivatives written out.

Training at this size is bound by passes over activations. Autograd's own derivatives of these compositions make about
twice as many passes as the formulas need.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from toymodel.derivatives import plainly


def in_dtype(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Return x in that dtype, x itself where it has it already.

    For functions with a derivative of their own: torch.compile of torch 2.11 silently loses that derivative where the
    output of the function was made by an operation that changed nothing (as `Tensor.to`) or that worked in place.

    >>> x = torch.ones(2)
    >>> in_dtype(x, torch.float32) is x, in_dtype(x, torch.float64).dtype
    (True, torch.float64)
    """
    return x if x.dtype == dtype else x.to(dtype)


def _wide(x: Tensor) -> Tensor:
    """Return x in float32 at least, which sums over the width of a half-precision tensor need."""
    return in_dtype(x, torch.promote_types(x.dtype, torch.float32))


class _RmsNorm(torch.autograd.Function):
    """Compute y = x·r with r = (mean x² + ε)^(−1/2);  dx = r·(g − y·mean(g·y))."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:  # type: ignore[override]
        wide = _wide(x)
        scale = (wide * wide).mean(dim=-1, keepdim=True).add_(torch.finfo(wide.dtype).eps).rsqrt_()
        y = in_dtype(wide * scale, x.dtype)
        ctx.save_for_backward(y, scale)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        y, scale = ctx.saved_tensors
        g, wide = _wide(grads[0]), _wide(y)
        along = (g * wide).mean(dim=-1, keepdim=True).neg_()
        return in_dtype(torch.addcmul(g, wide, along).mul_(scale), y.dtype)


class _SquaredRelu(torch.autograd.Function):
    """Compute y = max(x, 0)²;  dx = 2·g·max(x, 0)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(x)
        y = x.clamp_min(0)
        # torch.compile of torch 2.11 loses the derivative of an output that was changed in place (see `in_dtype`).
        return y * y if torch.compiler.is_compiling() else y.mul_(y)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return x.clamp_min(0).mul_(grads[0]).mul_(2)


class _Rotate(torch.autograd.Function):
    """Map (x₁, x₂) to (x₁ cos − x₂ sin, x₁ sin + x₂ cos); the derivative is the rotation back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(cos, sin)
        return _turn(x, cos, sin)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        return _turn(grads[0], cos, -sin), None, None


class _Blend(torch.autograd.Function):
    """Compute y = w₀x + w₁z;  dx = w₀g, dz = w₁g, dw = (⟨g, x⟩, ⟨g, z⟩) for each member."""

    @staticmethod
    def forward(ctx: Any, weights: Tensor, x: Tensor, z: Tensor) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(weights, x, z)
        a, b = _columns(weights, x)
        return (x * a).addcmul_(z, b)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor, Tensor]:
        weights, x, z = ctx.saved_tensors
        (g,) = grads
        a, b = _columns(weights, x)
        d_weights = None
        if ctx.needs_input_grad[0]:
            d_weights = torch.stack([(g * part).flatten(1).sum(dim=1) for part in (x, z)], dim=1)
        return d_weights, g * a, g * b


def _columns(weights: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    first, second = weights.view(len(x), 2, *[1] * (x.ndim - 1)).unbind(1)
    return first, second


def _turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    if torch.compiler.is_compiling():
        # A compiler fuses this itself, and cannot write into parts of a tensor.
        return _turned(x, cos, sin)
    first, second = x.chunk(2, dim=-1)
    turned = torch.empty_like(x)
    half = x.shape[-1] // 2
    torch.mul(first, cos, out=turned[..., :half]).addcmul_(second, sin, value=-1)
    torch.mul(first, sin, out=turned[..., half:]).addcmul_(second, cos)
    return turned


def _turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, first * sin + second * cos), dim=-1)


def rms_norm(x: Tensor) -> Tensor:
    """Return x / √(mean x² + ε) over the last axis, without gain.

    ε is the machine epsilon of the dtype, in half precision that of float32.

    >>> rms_norm(torch.tensor([[2.0, -2.0]])).round(decimals=3)
    tensor([[ 1., -1.]])
    """
    if plainly():
        wide = _wide(x)
        eps = torch.finfo(wide.dtype).eps
        return in_dtype(wide * ((wide * wide).mean(dim=-1, keepdim=True) + eps).rsqrt(), x.dtype)
    return _RmsNorm.apply(x)  # type: ignore[no-any-return]


def squared_relu(x: Tensor) -> Tensor:
    """Return max(x, 0)².

    >>> squared_relu(torch.tensor([-1.0, 3.0]))
    tensor([0., 9.])
    """
    if plainly():
        return x.clamp_min(0).square()
    return _SquaredRelu.apply(x)  # type: ignore[no-any-return]


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate the pairs (i, i + width/2) of the last axis by angles given as cos and sin (…, width/2).

    >>> rotate(torch.tensor([[1.0, 2.0]]), torch.tensor([[0.0]]), torch.tensor([[1.0]]))
    tensor([[-2.,  1.]])
    """
    if plainly():
        return _turned(x, cos, sin)
    return _Rotate.apply(x, cos, sin)  # type: ignore[no-any-return]


def blend(weights: Tensor, x: Tensor, z: Tensor) -> Tensor:
    """Return w₀x + w₁z member by member, for weights (K, 2) and two tensors (K, …) of one shape.

    >>> blend(torch.tensor([[1.0, 0.5]]), torch.ones(1, 2), torch.full((1, 2), 4.0))
    tensor([[3., 3.]])
    """
    if torch.compiler.is_compiling() or plainly():
        # A compiler finds the derivative itself, and cannot give one tensor to a function of our own twice.
        a, b = _columns(weights, x)
        return x * a + z * b
    return _Blend.apply(weights, x, z)  # type: ignore[no-any-return]
