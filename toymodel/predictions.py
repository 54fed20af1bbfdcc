"""What networks predict of sequences, and how well."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from toymodel.cross_entropy import position_losses
from toymodel.network import Network
from toymodel.placed import Batch
from toymodel.precision import full_precision


@dataclass(frozen=True)
class Scores:
    """Hold how well a member predicts the sequences of a split.

    Attributes:
        loss: mean cross-entropy in nats of the targets that count.
        accuracy: as its task defines it (`Task.accuracy`).
        exact: share of sequences with all counted targets predicted (`Task.exact`).
    """

    loss: float
    accuracy: float
    exact: float


@dataclass(frozen=True, eq=False)
class Predictions:
    """Hold what K networks predict of n sequences each; its items are (tokens, targets, mask) of one network.

    Attributes:
        tokens: the most probable ones (K, n, T); −1, which is no token, where logits are not finite.
        targets: (K, n, T).
        mask: of the targets that count (K, n, T); None counts all.
        losses: (K,) means in nats over the targets that count, NaN where one of these has none.
    """

    tokens: Tensor
    targets: Tensor
    mask: Tensor | None
    losses: Tensor

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
        masks = [None] * len(self.tokens) if self.mask is None else self.mask
        return zip(self.tokens, self.targets, masks, strict=True)


@torch.no_grad()
@full_precision()
def predictions(
    network: Network, params: Mapping[str, Tensor], parts: Iterable[Batch], losses: bool = False
) -> Predictions:
    """Return what networks predict of sequences.

    Args:
        network, params: of K networks.
        parts: the sequences (K, chunk, …), part by part.
        losses: whether losses are computed; they are NaN otherwise.
    """
    tokens, targets, masks, totals, counts = [], [], [], [], []
    for batch in parts:
        logits = network.logits(params, network.hidden(params, batch.sequences[..., :-1]))
        truth = batch.targets  # (K, chunk, T)
        if losses:
            # A network with one prediction makes that of the last target, which alone counts.
            places = logits.shape[2]
            each = position_losses(logits, truth[..., -places:]).double()
            all_ = torch.ones_like(each, dtype=torch.bool)
            own = all_ if batch.mask is None else batch.mask[..., -places:]
            totals.append(each.where(own, 0.0).sum(dim=(1, 2)))
            counts.append(own.sum(dim=(1, 2)))
        targets.append(truth)
        # The largest of logits that are no numbers is no prediction.
        largest, chosen = logits.max(dim=-1)
        tokens.append(chosen.where(largest.isfinite(), -1).expand_as(truth))
        masks.append(batch.mask)
    found = torch.cat(tokens, dim=1)
    means = torch.stack(totals).sum(dim=0) / torch.stack(counts).sum(dim=0) if losses else None
    return Predictions(
        found,
        torch.cat(targets, dim=1),
        None if masks[0] is None else torch.cat(masks, dim=1),
        found.new_full((len(found),), torch.nan, dtype=torch.float64) if means is None else means,
    )
