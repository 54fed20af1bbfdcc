"""K members' parameters in one buffer, so that an optimiser step is a handful of operations."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from toymodel.parameter_spec import ParameterSpec

# Elementwise kernels treat whole vectors and the remainder of a buffer by different instructions that may round
# differently. A buffer without a remainder makes a member's numbers independent of where in the buffer it lies.
PADDING = 64


def initial_value(spec: ParameterSpec, seed: int) -> Tensor:
    """Draw a parameter (*shape) on the CPU from a stream that belongs to this seed and this name only.

    Stages that share a parameter therefore start from the same values: stage comparisons are paired by seed.

    >>> from toymodel.parameter_spec import scalars
    >>> initial_value(scalars("skips", 1.0, 0.5), seed=0)
    tensor([1.0000, 0.5000])
    """
    if spec.init == "zeros":
        return torch.zeros(spec.shape)
    if spec.init == "constant":
        return torch.tensor(spec.values).view(spec.shape)
    digest = hashlib.sha256(f"{seed}/{spec.name}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
    if spec.init == "normal":
        return torch.empty(spec.shape).normal_(0.0, spec.std, generator=generator)
    bound = 1.0 / math.sqrt(spec.fan or spec.shape[-1])
    return torch.empty(spec.shape).uniform_(-bound, bound, generator=generator)


class ParameterBank:
    """Hold parameters of K members; each parameter is one contiguous (K, *shape) block of a single vector.

    The blocks are in the order of `specs`; `vector` is the whole buffer, zero-padded to a multiple of 64.
    Any vector of the same layout (gradients, moments) can be read with `block`.

    >>> bank = ParameterBank([ParameterSpec("head", (5, 4), "head", "zeros")], members=3)
    >>> bank.params["head"].shape, bank.vector.shape
    (torch.Size([3, 5, 4]), torch.Size([64]))
    """

    def __init__(
        self, specs: Sequence[ParameterSpec], members: int, device: torch.device | str = "cpu"
    ) -> None:
        self.specs = tuple(specs)
        self.members = members
        self.offsets: dict[str, int] = {}
        offset = 0
        for spec in self.specs:
            self.offsets[spec.name] = offset
            offset += members * spec.size
        self.vector = torch.zeros(-(-offset // PADDING) * PADDING, device=device)
        self.padding = torch.zeros_like(self.vector[offset:])
        self.params = {s.name: self.block(self.vector, s.name).requires_grad_() for s in self.specs}

    def block(self, vector: Tensor, name: str) -> Tensor:
        """Return the (K, *shape) view of one parameter in a vector of this layout."""
        spec = next(s for s in self.specs if s.name == name)
        start = self.offsets[name]
        return vector[start : start + self.members * spec.size].view(self.members, *spec.shape)

    def flatten(self, tensors: Iterable[Tensor]) -> Tensor:
        """Return one vector of this layout from (K, *shape) tensors in the order of `specs`."""
        return torch.cat([*(t.reshape(-1) for t in tensors), self.padding])

    def per_member(self, values: Tensor) -> Tensor:
        """Return a vector of this layout that holds values[k] at every entry of member k; values is (K,).

        A single member needs no vector: its value comes as (), which multiplies every entry alike.
        """
        if self.members == 1:
            return values.to(self.vector.dtype).view(())
        return self.per_matrix({s.name: values.view(-1, 1) for s in self.specs})

    def per_matrix(self, values: Mapping[str, Tensor]) -> Tensor:
        """Return a vector of this layout with one value at all entries of a matrix.

        Args:
            values: for each parameter (K, M) values of its M stacked matrices, or (K, 1) of all its entries.
        """
        return self.flatten(
            values[s.name]
            .to(self.vector.dtype)
            .view(self.members, -1, *[1] * (len(s.shape) - 1))
            .expand(self.members, *s.shape)
            for s in self.specs
        )

    @torch.no_grad()
    def load(self, members: Sequence[Mapping[str, Tensor]], vector: Tensor | None = None) -> None:
        """Write the tensors (*shape) of all members into this bank, or into a vector of its layout, in one copy."""
        whole = torch.zeros_like(self.vector, device="cpu")
        for k, tensors in enumerate(members):
            for spec in self.specs:
                self.block(whole, spec.name)[k].copy_(tensors[spec.name])
        (self.vector if vector is None else vector).copy_(whole)

    def members_of(self, members: Sequence[int], vector: Tensor | None = None) -> list[dict[str, Tensor]]:
        """Return copies on the CPU of members' tensors (*shape), from this bank or from a vector of its layout.

        The vector leaves its device in one copy.
        """
        whole = (self.vector.detach() if vector is None else vector).cpu()
        return [{s.name: self.block(whole, s.name)[k].clone() for s in self.specs} for k in members]
