"""What the steps of an ensemble need from the host, laid out on the device a block of steps in advance."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from toymodel.config import RunConfig

BATCH_STREAM = 1
INDEX_BLOCK = 256


def batch_indices(config: RunConfig, block: int) -> np.ndarray:
    """Draw (INDEX_BLOCK, batch_size) training indices, with replacement, of the steps from block·INDEX_BLOCK.

    A block depends on seed and block number only, so a resumed run needs no generator state to continue exactly.
    """
    stream = np.random.SeedSequence(config.seed, spawn_key=(BATCH_STREAM, block))
    size = (INDEX_BLOCK, config.batch_size)
    return np.random.default_rng(stream).integers(0, config.task.train, size=size)


class Feed:
    """Give every step its batch and the corrections of its update, by a counter on the device.

    Between two blocks nothing comes from the host, and no step launches anything that the one before did not, on the
    same memory: a CUDA graph of one step is one of every step.

    Args:
        configs: the members.
        first_row: for each member the row of its first training sequence.
        corrections: returns the numbers of the t-th update (see `AdamW.corrections`).
        like: a tensor of the device and dtype of the parameters.

    >>> config = RunConfig(batch_size=2)
    >>> feed = Feed([config], [0], lambda t: (1.0, -1.0 / t), torch.zeros(()))
    >>> feed.prepare(300)
    >>> rows, root, factor = feed.next()
    >>> rows.tolist() == batch_indices(config, 1)[[300 - 256]].tolist(), round(-1 / float(factor))
    (True, 301)
    """

    def __init__(
        self,
        configs: Sequence[RunConfig],
        first_row: Sequence[int],
        corrections: Callable[[int], tuple[float, float]],
        like: Tensor,
    ) -> None:
        self.configs, self.corrections = configs, corrections
        self._first_row = np.array(first_row).reshape(-1, 1)
        shape = (INDEX_BLOCK, len(configs), configs[0].batch_size)
        self._rows = torch.zeros(shape, dtype=torch.long, device=like.device)
        self._corrections = like.new_zeros(INDEX_BLOCK, 2)
        self._place = torch.zeros(1, dtype=torch.long, device=like.device)
        self._block: int | None = None
        # The step that the counter stands at.
        self._at: int | None = None

    def prepare(self, step: int) -> None:
        """Stand at this step, counted from 0, and have its block on the device; afterwards it counts as taken."""
        block, place = divmod(step, INDEX_BLOCK)
        if block != self._block:
            drawn = np.stack([batch_indices(c, block) for c in self.configs], axis=1) + self._first_row
            numbers = [self.corrections(t + 1) for t in range(block * INDEX_BLOCK, (block + 1) * INDEX_BLOCK)]
            self._rows.copy_(torch.from_numpy(drawn))
            self._corrections.copy_(torch.tensor(numbers, dtype=self._corrections.dtype))
            self._block, self._at = block, None
        if step != self._at:
            self._place.fill_(place)
        self._at = step + 1

    def next(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return the (K, B) rows of training sequences and the corrections () of this step; go on to the next."""
        rows = self._rows.index_select(0, self._place)[0]
        root, factor = self._corrections.index_select(0, self._place)[0].unbind()
        self._place.add_(1)
        return rows, root, factor
