"""Token tables, member by member."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from toymodel.constants import constant


def look_up(table: Tensor, tokens: Tensor) -> Tensor:
    """Return the rows (K, B, T, width) of the members' tables (K, V, width) at their tokens (K, B, T).

    >>> look_up(torch.arange(6.0).view(2, 3, 1), torch.tensor([[[2]], [[0]]])).flatten()
    tensor([2., 3.])
    """
    members, vocab = table.shape[:2]
    # One gather for all members.
    rows = tokens + first_rows(members, vocab, tokens.device)
    return F.embedding(rows, table.reshape(members * vocab, -1))


@constant
def first_rows(members: int, vocab: int, device: torch.device) -> Tensor:
    """Return (K, 1, 1): member k's rows start at k·V in the stacked table."""
    return vocab * torch.arange(members, device=device).view(-1, 1, 1)
