"""Head and cross-entropy in one chunked function, so that the (N, V) logits never exist at once."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from toymodel.derivatives import plainly
from toymodel.elementwise import in_dtype

# Tokens of a member at once: on a CPU their logits stay in cache; a GPU wants few large launches and has memory for
# this many logits.
CHUNK = 1_024
LOGITS_AT_ONCE = 2**27
# A token whose logit is further below the largest counts for nothing: its share, under 1e-30, changes no float32 sum,
# and its gradient is 0. Tied heads start with logits near d, whose probabilities would underflow to denormal numbers;
# with those a CPU computes several times more slowly.
DEPTH = -69.0
NEGLIGIBLE = 2e-30


class _HeadCrossEntropy(torch.autograd.Function):
    """Form gradients in the forward pass, while a chunk of logits is still in cache."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        cap: float | None,
        share: Tensor | None,
    ) -> Tensor:
        # hidden (K, N, d), weight (K, V, d), bias (K, V), targets (K, N), share (K, N)
        k, n, _ = hidden.shape
        need_hidden, need_weight, need_bias = ctx.needs_input_grad[:3]
        # Under autocast only the products are in half precision; the softmax and all sums are not.
        wide, product = hidden.dtype, _product_dtype(hidden)
        table = in_dtype(weight, product)
        total = hidden.new_zeros(k)
        d_hidden = torch.empty_like(hidden) if need_hidden else None
        d_weight = torch.zeros_like(weight) if need_weight else None
        d_bias = None if bias is None or not need_bias else torch.zeros_like(bias)
        # Tied N(0,1) embeddings give logits near d at the start: shift by the maximum before exponentiating, and
        # take the target's log-probability from logits, never from a probability that has underflowed.
        chunk = tokens_at_once(k, weight.shape[1], hidden.device)
        for start in range(0, n, chunk):
            part = slice(start, min(start + chunk, n))
            h, y = in_dtype(hidden[:, part], product), targets[:, part].unsqueeze(-1)  # (K, chunk, d or 1)
            logits = in_dtype(torch.bmm(h, table.transpose(1, 2)), wide)  # (K, chunk, V)
            if bias is not None:
                logits.add_(bias.unsqueeze(1))
            slope = None
            if cap is not None:
                logits.div_(cap).tanh_()
                slope = logits.square().neg_().add_(1)
                logits.mul_(cap)
            picked = logits.gather(-1, y).squeeze(-1)
            top = logits.amax(dim=-1, keepdim=True)
            probabilities = logits.sub_(top).clamp_min_(DEPTH).exp_()
            mass = probabilities.sum(dim=-1, keepdim=True)
            # Where a network is sure, ln(mass) is small beside top, in whose rounding it would vanish.
            losses = mass.log().squeeze(-1).add_(top.squeeze(-1) - picked)  # (K, chunk)
            # A new tensor: an output changed in place loses its derivative in torch.compile of torch 2.11.
            total = total + (losses if share is None else losses * share[:, part]).sum(dim=1)
            if d_hidden is None and d_weight is None and d_bias is None:
                continue
            part_of = None if share is None else share[:, part]
            _to_gradient(probabilities.div_(mass), y, n, part_of, slope)
            if d_bias is not None:
                d_bias += probabilities.sum(dim=1)
            slopes = in_dtype(probabilities, product)
            if d_hidden is not None:
                d_hidden[:, part] = torch.bmm(slopes, table)
            if d_weight is None:
                continue
            if product == wide:
                d_weight.baddbmm_(slopes.transpose(1, 2), h)
            else:
                d_weight += torch.bmm(slopes.transpose(1, 2), h)
        ctx.save_for_backward(d_hidden, d_weight, d_bias)
        return total / n if share is None else total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        scale = grads[0].view(-1, 1, 1)
        d_hidden, d_weight, d_bias = ctx.saved_tensors
        return (
            None if d_hidden is None else d_hidden * scale,
            None if d_weight is None else d_weight * scale,
            None if d_bias is None else d_bias * scale[..., 0],
            None,
            None,
            None,
        )


def _to_gradient(
    probabilities: Tensor, y: Tensor, n: int, share: Tensor | None, slope: Tensor | None
) -> None:
    """Make of probabilities (K, chunk, V) the gradient of the loss with respect to the logits, in place."""
    torch.threshold_(probabilities, NEGLIGIBLE, 0.0)
    probabilities.scatter_add_(-1, y, probabilities.new_full((), -1.0).expand(y.shape))
    if share is None:
        probabilities.div_(n)
    else:
        probabilities.mul_(share.unsqueeze(-1))
    if slope is not None:
        probabilities.mul_(slope)


def tokens_at_once(members: int, vocab: int, device: torch.device) -> int:
    """Return how many tokens of each member have their logits at once.

    >>> tokens_at_once(15, 1_024, torch.device("cpu")), tokens_at_once(15, 1_024, torch.device("cuda"))
    (1024, 8738)
    """
    return CHUNK if device.type == "cpu" else max(CHUNK, LOGITS_AT_ONCE // (members * vocab))


def _product_dtype(x: Tensor) -> torch.dtype:
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype


def softcap(logits: Tensor, cap: float | None) -> Tensor:
    """Return cap · tanh(logits / cap), or the logits unchanged where cap is None.

    >>> softcap(torch.tensor([0.0, 1e6]), 15.0)
    tensor([ 0., 15.])
    """
    return logits if cap is None else cap * torch.tanh(logits / cap)


def head_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    cap: float | None = None,
    mask: Tensor | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    """Return the mean cross-entropy in nats of the softmax of hidden · weightᵀ + bias, member by member.

    Args:
        hidden: (K, N, d) in float32 or float64; under autocast the matrix products are in its dtype.
        weight: (K, V, d).
        targets: (K, N) integers in 0..V−1.
        cap: bound of the logits (see `softcap`), None for none.
        mask: (K, N) True at the positions that count, at least one for each member; None counts all.
        bias: (K, V), added before the bound; also under autocast in full precision. None for none.

    Returns:
        (K,) means over the positions that count; differentiable once in hidden, weight and bias, and more often within
        `toymodel.derivatives.twice_differentiable`.

    >>> hidden, weight = torch.zeros(1, 3, 2), torch.zeros(1, 4, 2)
    >>> loss = head_cross_entropy(hidden, weight, torch.tensor([[0, 1, 3]]))
    >>> bool(loss.isclose(torch.tensor(4.0).log()))
    True
    """
    share = None if mask is None else mask.to(hidden.dtype) / mask.sum(dim=1, keepdim=True)
    if plainly():
        products = torch.bmm(hidden, weight.transpose(1, 2))
        logits = softcap(products if bias is None else products + bias.unsqueeze(1), cap)
        losses = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none").view(
            targets.shape
        )
        return losses.mean(dim=1) if share is None else (losses * share).sum(dim=1)
    return _HeadCrossEntropy.apply(hidden, weight, bias, targets, cap, share)  # type: ignore[no-any-return]


def position_losses(logits: Tensor, targets: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return (…,) cross-entropies in nats, one for each position, of (…, V) logits and (…,) targets.

    Positions that the (…,) mask does not count are NaN, so that no mean can include them unnoticed.

    >>> position_losses(torch.zeros(2, 4), torch.tensor([1, 3]), torch.tensor([True, False])).isnan()
    tensor([False,  True])
    """
    losses = F.cross_entropy(logits.flatten(0, -2), targets.flatten().long(), reduction="none").view(
        targets.shape
    )
    return losses if mask is None else losses.masked_fill(~mask, torch.nan)
