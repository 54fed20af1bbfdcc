"""Second moments of the inputs of matrices on a calibration text, block after block.

The blocks before a block have been pruned when its inputs are asked for. Transformers of this package carry the
residual stream from block to block, so that each block is run twice in all; other models are run anew up to the block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor

from sims.models.block_list import numbered
from sims.models.subject import EMBED, Subject
from sims.models.transformer import TransformerSubject
from sims.system.errors import MeasureError

# From the model as it is pruned so far, the number of a block and sites in it to XᵀX/n (width, width) of each.
Moments = Callable[[Subject, int, Sequence[str]], dict[str, Tensor]]


def block_moments(subject: Subject, sequences: Tensor) -> Moments:
    """Return a function that gives the second moments of a block's inputs; it must be called for blocks in their order.

    Args:
        subject: the model before it is pruned.
        sequences: (n, T+1) tokens.
    """
    sequences = sequences.to(subject.head.device)
    if isinstance(subject, TransformerSubject) and _is_chain(subject):
        return _Stream(subject, sequences)
    return lambda pruned, block, sites: input_moments(_up_to(pruned, block), sequences, sites)


@torch.no_grad()
def input_moments(subject: Subject, sequences: Tensor, sites: Sequence[str]) -> dict[str, Tensor]:
    """Return XᵀX/n (width, width) in float64 of the activations at sites, over all n positions.

    Args:
        subject: the model.
        sequences: (n, T+1) tokens.
        sites: inputs of matrices.

    Raises:
        MeasureError: activations that are not finite.
    """
    return _moments(subject.activations(sequences.to(subject.head.device), sites), sites)


class _Stream:
    """The residual stream of a calibration text between the blocks of a transformer of this package.

    Args:
        subject: the transformer.
        sequences: (n, T+1) tokens on its device.
    """

    def __init__(self, subject: TransformerSubject, sequences: Tensor) -> None:
        self._blocks = numbered(subject.sites)
        self._tokens = [batch[None, :, :-1].long() for batch in subject.stack.batches(sequences)]
        self._streams: list[Tensor | None] = [None] * len(self._tokens)
        self._passed = 0

    @torch.no_grad()
    def __call__(self, pruned: Subject, block: int, sites: Sequence[str]) -> dict[str, Tensor]:
        assert isinstance(pruned, TransformerSubject)
        for before in self._blocks[self._passed : self._blocks.index(block)]:
            out = f"blocks.{before}"
            for i, seen in enumerate(self._run(pruned, before, (out,))):
                self._streams[i] = seen[out][None]
            self._passed += 1
        return _moments(self._run(pruned, block, sites), sites)

    def _run(
        self, pruned: TransformerSubject, block: int, sites: Sequence[str]
    ) -> Iterable[dict[str, Tensor]]:
        """Yield the activations (b, T, width) at sites of one block, which reads the stream so far."""
        alone = pruned.without_blocks([b for b in self._blocks if b != block])
        for tokens, start in zip(self._tokens, tuple(self._streams), strict=True):
            seen: dict[str, Tensor] = {}

            def tap(
                site: str, x: Tensor, start: Tensor | None = start, seen: dict[str, Tensor] = seen
            ) -> Tensor:
                x = start if site == EMBED and start is not None else x
                if site in sites:
                    seen[site] = x[0]
                return x

            alone.transformer.hidden(alone.params, tokens, tap)
            yield seen


def _is_chain(subject: Subject) -> bool:
    """Return whether each block reads the stream after the one before, and nothing else of it."""
    try:
        subject.without_blocks(numbered(subject.sites))
    except MeasureError:
        return False
    return True


def _up_to(subject: Subject, block: int) -> Subject:
    """Return the model without the blocks behind one, which need not run; with them where they cannot be removed."""
    try:
        return subject.without_blocks([b for b in numbered(subject.sites) if b > block])
    except MeasureError:
        return subject


def _moments(batches: Iterable[Mapping[str, Tensor]], sites: Sequence[str]) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    seen = 0
    for batch in batches:
        for site in sites:
            x = batch[site].flatten(0, 1)
            own = (x.mT @ x).to(torch.float64)
            found[site] = found[site] + own if site in found else own
        seen += batch[sites[0]].shape[:2].numel()
    if wrong := [site for site, gram in found.items() if not bool(torch.isfinite(gram).all())]:
        raise MeasureError(
            f"the activations at {', '.join(wrong)} have NaN or Inf; prune less, or another checkpoint"
        )
    return {site: gram / seen for site, gram in found.items()}
