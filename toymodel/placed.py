"""Sequences of splits on a device, with what counts of their targets."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from toymodel.task import Split


@dataclass(frozen=True, eq=False)
class Batch:
    """Hold (…, T+1) sequences, the (…, T) mask of the targets that count (None counts all), and their (…, T) labels."""

    sequences: Tensor
    mask: Tensor | None
    labels: Tensor | None

    @property
    def targets(self) -> Tensor:
        """Return what is predicted at each position: the labels, or the next tokens."""
        return self.sequences[..., 1:] if self.labels is None else self.labels


@dataclass(frozen=True, eq=False)
class Placed:
    """Hold sequences (…, T+1) of several splits, their masks (…, T) and labels (…, T); None where the splits have none.

    >>> split = Split(np.array([[1, 2, 3], [4, 5, 6]]), None)
    >>> placed = Placed.of([split, split], torch.cat, torch.device("cpu"))
    >>> placed[torch.tensor([0, 3])].targets
    tensor([[2, 3],
            [5, 6]])
    """

    sequences: Tensor
    masks: Tensor | None
    labels: Tensor | None

    @classmethod
    def of(
        cls,
        splits: Sequence[Split],
        join: Callable[[list[Tensor]], Tensor],
        device: torch.device,
        size: int | None = None,
    ) -> Placed:
        """Place splits of one shape.

        Args:
            splits: of the data sets.
            join: torch.cat for one axis of sequences, torch.stack for one of data sets before it.
            device: of the tensors.
            size: sequences of each split, the first ones; None takes all.
        """

        def joined(arrays: Sequence[np.ndarray | None]) -> Tensor | None:
            present = [torch.tensor(a[:size], device=device) for a in arrays if a is not None]
            return join(present) if present else None

        sequences = join([torch.tensor(s.tokens[:size], device=device) for s in splits])
        return cls(sequences, joined([s.mask for s in splits]), joined([s.labels for s in splits]))

    def __getitem__(self, index: Any) -> Batch:
        """Return the sequences at an index of the leading axes, as 64-bit integers."""
        return Batch(
            self.sequences[index].long(),
            None if self.masks is None else self.masks[index],
            None if self.labels is None else self.labels[index].long(),
        )

    def chunks(self, sets: Tensor, size: int, chunk: int) -> Iterator[Batch]:
        """Yield the first `size` sequences of data sets (K,), in (K, chunk, …) parts."""
        for first in range(0, size, chunk):
            yield self[sets, slice(first, min(first + chunk, size))]

    def by_set(self, size: int) -> Placed:
        """Return a view with an axis of data sets before that of their sequences, `size` of each."""
        masks, labels = (None if t is None else t.unflatten(0, (-1, size)) for t in (self.masks, self.labels))
        return Placed(self.sequences.unflatten(0, (-1, size)), masks, labels)
