"""Compute per-sample gradients themselves, by torch.func."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from spectra.arrays import brief
from spectra.errors import InputError


def per_sample_gradients(
    model: nn.Module,
    parameter: str,
    loss: Callable[..., Tensor],
    *batch: Tensor,
    chunk_size: int | None = None,
) -> Tensor:
    """Compute each sample's gradient of a parameter by torch.func.

    (M, *shape of the parameter); works for any module that vmap can trace.

    Args:
        model: any module that vmap can trace; its parameters and their .grad do not change. Put it
            in eval mode if it draws random numbers.
        parameter: name as in ``model.named_parameters()``; a tied parameter collects all its uses.
        loss: ``loss(predict, *sample)`` → scalar, where predict calls the model and the sample is a
            batch of one.
        batch: tensors whose first axis is the sample.
        chunk_size: samples per vectorised chunk, all when None; memory grows with chunk_size × parameter.

    Raises:
        InputError: unknown parameter, no batch, or batch tensors of different length.

    >>> x = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    >>> model = nn.Linear(2, 1, bias=False)
    >>> per_sample_gradients(model, "weight", lambda predict, x: predict(x).sum(), x)
    tensor([[[1., 2.]],
    <BLANKLINE>
            [[3., 4.]]])
    """
    if not isinstance(model, nn.Module):
        raise InputError(f"the model is {brief(model)}; pass a torch.nn.Module")
    parameters = dict(model.named_parameters())
    if not isinstance(parameter, str) or parameter not in parameters:
        raise InputError(
            f"the model has no parameter {parameter!r}; it has {', '.join(list(parameters)[:12])}, …"
        )
    for x in batch:
        if not isinstance(x, torch.Tensor) or x.ndim == 0:
            raise InputError(f"the batch holds {brief(x)}; pass tensors whose first axis is the sample")
    if not batch or len({len(x) for x in batch}) != 1:
        raise InputError(
            f"batch tensors have lengths {[len(x) for x in batch]}; they need one common sample axis"
        )

    def sample_loss(weight: Tensor, *sample: Tensor) -> Tensor:
        def predict(*args: Any, **kwargs: Any) -> Any:
            return functional_call(model, {parameter: weight}, args, kwargs)

        return loss(predict, *(x.unsqueeze(0) for x in sample))

    per_sample = vmap(grad(sample_loss), in_dims=(None, *[0] * len(batch)), chunk_size=chunk_size)
    return per_sample(parameters[parameter].detach(), *batch).detach()
