"""Sequences of tokens by number, in memory or anywhere else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from torch import Tensor


class Sequences(Protocol):
    """Hold sequences of tokens by number."""

    def __len__(self) -> int: ...

    def take(self, which: Sequence[int] | np.ndarray) -> Tensor:
        """Return the tokens (n, T+1) of sequences by index, int64."""
        ...


@dataclass(frozen=True, eq=False)
class Rows:
    """Hold sequences (N, T+1) of tokens in memory."""

    rows: Tensor

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, which: Sequence[int] | np.ndarray) -> Tensor:
        """Return the tokens (n, T+1) of sequences by index."""
        return self.rows[np.asarray(which, np.int64)]
