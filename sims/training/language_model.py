"""Prepare the transformer for training on several devices."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn

from sims.system.process_group import ProcessGroup
from toymodel.optim import Orthogonalise, Share, alone
from toymodel.stages.base import Params
from toymodel.trainable import Trainable
from toymodel.transformer import Transformer


class LanguageModel(nn.Module):
    """Wrap a transformer as a module that holds its parameters.

    DistributedDataParallel and torch.compile need a module; `Transformer` takes its parameters as an argument.

    Args:
        transformer: the architecture; replaced during training where the stage has a moving attention window.
        params: (1, *shape) tensors by name; the module shares their memory.
    """

    def __init__(self, transformer: Transformer, params: Params) -> None:
        super().__init__()
        self.transformer = transformer
        self.names = tuple(params)
        self.values = nn.ParameterList(nn.Parameter(p.detach()) for p in params.values())

    def forward(self, sequences: Tensor) -> Tensor:
        """Return the mean cross-entropy () in nats of sequences (b, T+1)."""
        params = dict(zip(self.names, self.values, strict=True))
        # One ensemble member: (1, b, T+1) → (1,) losses.
        return self.transformer.losses(params, sequences[None])[0]


def gradient_vectors(trainable: Trainable, model: LanguageModel) -> tuple[Tensor, Tensor]:
    """Allocate flat gradient vectors, and make every `.grad` a view of them.

    Returns:
        The gradients of AdamW's parameters and of Muon's, one vector (parameters,) each, all zero.
    """
    adamw, muon = (torch.zeros_like(bank.vector) for bank in trainable.banks)
    place = {
        spec.name: bank.block(vector, spec.name)
        for bank, vector in zip(trainable.banks, (adamw, muon), strict=True)
        for spec in bank.specs
    }
    for name, value in zip(model.names, model.values, strict=True):
        value.grad = place[name]
    return adamw, muon


def shared_by(group: ProcessGroup) -> Share:
    """Return a function that divides orthogonalisation among the processes.

    Each process orthogonalises some of the (n, rows, columns) matrices of one shape, and receives all of them.
    """
    if group.size == 1:
        return alone

    def share(orthogonalise: Orthogonalise, matrices: Tensor) -> Tensor:
        each = -(-len(matrices) // group.size)
        local = matrices[group.rank * each : (group.rank + 1) * each]
        # all_gather takes equal shapes, so the last part is padded with zeros.
        done = torch.zeros(each, *matrices.shape[1:], dtype=matrices.dtype, device=matrices.device)
        if len(local):
            done[: len(local)] = orthogonalise(local)
        parts = [torch.empty_like(done) for _ in range(group.size)]
        dist.all_gather(parts, done)
        return torch.cat(parts)[: len(matrices)]

    return share
