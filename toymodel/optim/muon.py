"""Muon for K members at once (Jordan et al. 2024; torch.optim.Muon updates one 2-D parameter at a time).

Momentum, then the orthogonal polar factor of the update by a quintic Newton–Schulz iteration whose singular
values settle in about [0.68, 1.15] instead of at 1; that is Muon as published, not an approximation error.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from toymodel.config import NewtonSchulz

COEFFICIENTS = (3.4445, -4.7750, 2.0315)

Orthogonalise = Callable[[Tensor], Tensor]
# Orthogonalises a batch of matrices (N, rows, cols), in this process or in several.
Share = Callable[[Orthogonalise, Tensor], Tensor]


def alone(orthogonalise: Orthogonalise, matrices: Tensor) -> Tensor:
    """Orthogonalise all matrices in this process."""
    return orthogonalise(matrices)


def orthogonalise(matrices: Tensor, steps: int = 5, arithmetic: NewtonSchulz = "bfloat16") -> Tensor:
    """Return the (approximate) polar factor U Vᵀ of every matrix of a batch.

    Args:
        matrices: (N, rows, cols).
        steps: Newton–Schulz iterations X ← aX + (bA + cA²)X with A = XXᵀ, after division by the Frobenius norm.
        arithmetic: dtype of the iteration; "exact" takes the SVD instead, ignores `steps`, maps the null space of a
            rank-deficient matrix to 0, and a matrix that is not finite to NaN, as the iterations do.

    Returns:
        (N, rows, cols) in the dtype of the input.

    >>> orthogonalise(torch.diag(torch.tensor([3.0, 0.5]))[None], arithmetic="exact").round(decimals=4)
    tensor([[[1., 0.],
             [0., 1.]]])
    """
    if arithmetic == "exact":
        # LAPACK raises an error for the whole batch if one matrix is not finite: a member that diverges would end all.
        finite = matrices.isfinite().flatten(1).all(dim=1).view(-1, 1, 1)
        u, s, vh = torch.linalg.svd(matrices.where(finite, 0.0).double(), full_matrices=False)
        cut = s[:, :1] * max(matrices.shape[1:]) * torch.finfo(matrices.dtype).eps
        return ((u * (s > cut).unsqueeze(1)) @ vh).where(finite, torch.nan).to(matrices.dtype)
    a, b, c = COEFFICIENTS
    round_ = _rounding(matrices, arithmetic)
    x = round_(matrices)  # (N, rows, cols)
    tall = x.shape[1] > x.shape[2]
    if tall:
        x = x.transpose(1, 2)
    x = round_(x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7))
    for _ in range(steps):
        gram = round_(torch.bmm(x, x.transpose(1, 2)))  # (N, s, s) with s = min(rows, cols)
        polynomial = round_(torch.baddbmm(gram, gram, gram, beta=b, alpha=c))
        x = round_(torch.baddbmm(x, polynomial, x, beta=a))
    return (x.transpose(1, 2) if tall else x).to(matrices.dtype)


def _rounding(matrices: Tensor, arithmetic: NewtonSchulz) -> Callable[[Tensor], Tensor]:
    """Return the rounding of intermediate results to the asked precision."""
    if arithmetic == "float32":
        return Tensor.float
    if matrices.device.type != "cpu":
        return Tensor.bfloat16
    # Native bfloat16 products of a CPU round differently with the number of matrices in the batch, which would make a
    # member depend on its company. Products in float32, rounded to bfloat16 once, are what the hardware promises.
    return lambda x: x.bfloat16().float()


class Muon:
    """Update many matrices of several shapes by orthogonalised momentum, for K members.

    buffer ← μ·buffer + (1−μ)g;  u = (1−μ)g + μ·buffer (Nesterov);
    θ ← θ − lr · √max(1, rows/cols) · orthogonalise(u).

    Args:
        theta: (N,) vector that is updated in place.
        blocks: for each parameter its slice of the vector and its shape (K, …, rows, cols); leading axes between
            the member and the matrix count independent matrices (q, k and v are orthogonalised separately).
        lr: (K,) learning rates, or for each block (K, M) one for each of its M matrices.
        momentum, steps, arithmetic: as above.
        share: orthogonalises a batch, perhaps in several processes; any split of a batch gives the same numbers.
    """

    def __init__(
        self,
        theta: Tensor,
        blocks: Sequence[tuple[slice, tuple[int, ...]]],
        lr: Tensor | Sequence[Tensor],
        momentum: float,
        steps: int,
        arithmetic: NewtonSchulz,
        share: Share = alone,
    ) -> None:
        self.theta = theta
        each = [lr] * len(blocks) if isinstance(lr, Tensor) else lr
        # (K, 1), or (K, M, 1).
        self.lr = [rates.unsqueeze(-1).clone() for rates in each]
        self.momentum = momentum
        self.orthogonalise = partial(orthogonalise, steps=steps, arithmetic=arithmetic)
        self.share = share
        self.buffer = torch.zeros_like(theta)
        # One batched iteration per shape, not per parameter: that is what makes a step cheap to launch.
        self.groups: dict[tuple[int, int], list[tuple[int, slice, tuple[int, ...]]]] = {}
        for i, (where, shape) in enumerate(blocks):
            self.groups.setdefault((shape[-2], shape[-1]), []).append((i, where, shape))

    def set_lr(self, lr: Sequence[Tensor]) -> None:
        """Change the learning rates of each block in the following updates, in place; their shapes stay."""
        for present, rates in zip(self.lr, lr, strict=True):
            present.copy_(rates.unsqueeze(-1))

    @torch.no_grad()
    def step(self, grad: Tensor, scale: float = 1.0) -> None:
        """Apply one update; grad is (N,), scale a factor of the learning rates in this update."""
        self.buffer.lerp_(grad, 1 - self.momentum)
        direction = grad.lerp(self.buffer, self.momentum)
        for (rows, cols), blocks in self.groups.items():
            # (matrices of all members and blocks, rows, cols)
            stacked = torch.cat([direction[where].view(-1, rows, cols) for _, where, _ in blocks])
            stacked = self.share(self.orthogonalise, stacked)
            factor = scale * math.sqrt(max(1.0, rows / cols))
            offset = 0
            for i, where, shape in blocks:
                count = math.prod(shape[:-2])
                # (K, entries) with rates (K, 1), or (K, M, rows · cols) with rates (K, M, 1).
                rates = self.lr[i]
                update = stacked[offset : offset + count].reshape(*rates.shape[:-1], -1)
                self.theta[where].view(*rates.shape[:-1], -1).addcmul_(update, rates, value=-factor)
                offset += count
