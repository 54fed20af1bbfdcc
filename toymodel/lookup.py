"""Token tables, member by member."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def look_up(table: Tensor, tokens: Tensor) -> Tensor:
    """Return the rows (K, B, T, width) of the members' tables (K, V, width) at their tokens (K, B, T).

    >>> look_up(torch.arange(6.0).view(2, 3, 1), torch.tensor([[[2]], [[0]]])).flatten()
    tensor([2., 3.])
    """
    members, vocab = table.shape[:2]
    # One gather for all members: member k's rows start at k·V in the stacked table.
    shift = vocab * torch.arange(members, device=tokens.device).view(-1, 1, 1)
    return F.embedding(tokens + shift, table.reshape(members * vocab, -1))
