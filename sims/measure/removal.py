"""Measure what the removal of blocks costs: losses without sets of blocks, on the same sequences.

    found = measure_removal(model, sequences, counts=[1, 2])
    cost_table(*found), rank_table(*found)

`sims.analysis.removal` has the costs, `sims.analysis.removal_rules` the sets that rules choose, and
`sims.analysis.set_ranks` the ranks of these among all sets.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import pairwise

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sims.analysis.intervals import student
from sims.analysis.ranges import Range
from sims.analysis.removal import Blocks, RemovalCosts
from sims.analysis.removal_rules import choose, rule_scores, sets_of
from sims.analysis.set_ranks import Model
from sims.models.block_list import chosen_blocks, numbered, within
from sims.models.module import ModuleSubject
from sims.models.parts import layout_of
from sims.models.subject import EMBED, Subject
from sims.models.transformer import LOGITS, TransformerSubject
from sims.system.errors import MeasureError
from toymodel.cross_entropy import position_losses
from toymodel.precision import full_precision

# Positions at which the states of all blocks are held at once.
POSITIONS = 4_096


def measure_removal(
    model: Subject | nn.Module,
    sequences: Tensor,
    counts: Sequence[int],
    *,
    alpha: Sequence[float] | np.ndarray | None = None,
    elsewhere: Sequence[Sequence[float] | np.ndarray] = (),
    seed: int = 0,
) -> Model:
    """Measure what every rule's choice of N blocks costs, and all other sets where they can be counted.

    The rules are those of `choose`: the last N, the last N interior, random ones, and the lowest of block influence, of
    the norm of the block's matrices, of the cost of each block alone, and of what is given.

    Args:
        model: a subject, or a decoder in memory.
        sequences: (n, T+1) tokens, 48 or more.
        counts: the numbers N of removed blocks, each from 1 to L − 2.
        alpha: (L,) spectral exponents of the blocks, for "spectral low" and "spectral high".
        elsewhere: costs of single blocks of other models (`RemovalCosts.importance`), for "depth rule".
        seed: of the random sets.

    Returns:
        The costs, which contain those of single blocks, and the choices.

    Raises:
        MeasureError: what `removal_costs`, `block_influence`, `rule_scores` and `choose` refuse.
    """
    subject = _subject(model)
    blocks = numbered(subject.sites)
    # Counts and scores are refused before any work.
    rule_scores(alpha=alpha, importance=np.zeros(len(blocks)), elsewhere=elsewhere)
    choose(blocks, counts, {})
    alone = removal_costs(subject, sequences)
    influence = block_influence(subject, sequences)["influence"].to_numpy(float)
    scores = rule_scores(
        alpha=alpha,
        influence=influence,
        norm=block_norms(subject),
        importance=alone.importance,
        elsewhere=elsewhere,
    )
    choices = choose(blocks, counts, scores, seed)
    others = [own for own in sets_of(blocks, choices) if len(own) > 1]
    costs = alone.joined(removal_costs(subject, sequences, others)) if others else alone
    return Model(costs, choices)


def block_norms(subject: Subject) -> np.ndarray:
    """Return the Frobenius norm (L,) of the matrices of each block together."""
    matrices = subject.matrices
    return np.array(
        [
            math.sqrt(
                sum(float(w.double().square().sum()) for n, w in matrices.items() if within(n, {block}))
            )
            for block in numbered(subject.sites)
        ]
    )


@full_precision()
def removal_costs(
    model: Subject | nn.Module, sequences: Tensor, sets: Iterable[Collection[int]] | None = None
) -> RemovalCosts:
    """Measure the losses of a model without sets of its blocks.

    Transformers of this package share what sets have in common: two sets that first differ at a block use the same
    states up to it.

    Args:
        model: a subject, or a decoder in memory, of which `layout_of` finds the blocks.
        sequences: (n, T+1) tokens, at least two; the costs are compared over them, so take 48 or more.
        sets: of blocks to remove; by default each block alone. Repetitions are measured once.

    Returns:
        The mean loss of every sequence, with all blocks and without each set.

    Raises:
        MeasureError: before any work, numbers that are no blocks, a model in which the removal of a block has no
            meaning, or fewer than two sequences; a model whose losses with all blocks are not finite.
    """
    subject = _subject(model)
    blocks = numbered(subject.sites)
    given = [(block,) for block in blocks] if sets is None else sets
    wanted = tuple(dict.fromkeys(chosen_blocks(own, blocks) for own in given))
    if not wanted or not blocks:
        raise MeasureError(
            "no sets of blocks to remove; pass some, such as [[1], [1, 2]], and a model whose blocks are known"
        )
    if sequences.ndim != 2 or len(sequences) < 2:
        raise MeasureError(
            f"sequences have shape {tuple(sequences.shape)}; costs have an interval over (n, T+1) tokens of at least 2 "
            "sequences"
        )
    sequences = sequences.to(subject.head.device)
    # All of them at once: what is refused for one block is refused before any work.
    subject.without_blocks(blocks)
    if isinstance(subject, TransformerSubject):
        losses = _shared(subject, sequences, ((), *wanted))
    else:
        losses = torch.stack([_mean(subject.without_blocks(own).losses(sequences)) for own in ((), *wanted)])
    found = losses.cpu().numpy()
    return RemovalCosts(blocks, len(subject.head), found[0], wanted, found[1:])


@full_precision()
def block_influence(model: Subject | nn.Module, sequences: Tensor) -> pd.DataFrame:
    """Measure how much each block turns the residual stream: 1 − mean over tokens of cos(input, output).

    Args:
        model: a subject, or a decoder in memory; its site "embed" is what the first block reads.
        sequences: (n, T+1) tokens, at least two.

    Returns:
        One row a block: block, influence, error, low, high (95 % Student over sequences), n.

    Raises:
        MeasureError: a model without the sites "embed" and "blocks.0", …, fewer than two sequences, or states that are
            not finite.

    Source: Men et al., arXiv 2403.03853 (block influence of ShortGPT).
    """
    subject = _subject(model)
    blocks = numbered(subject.sites)
    if not blocks or EMBED not in subject.sites:
        raise MeasureError(
            f"block influence needs the sites {EMBED!r}, 'blocks.0', …; this model has {', '.join(subject.sites)}"
        )
    if sequences.ndim != 2 or len(sequences) < 2:
        raise MeasureError(
            f"sequences have shape {tuple(sequences.shape)}; pass (n, T+1) tokens, n at least 2"
        )
    sequences = sequences.to(subject.head.device)
    sites = (EMBED, *(f"blocks.{block}" for block in blocks))
    parts = []
    for some in sequences.split(max(1, POSITIONS // sequences.shape[1])):
        for seen in subject.activations(some, sites):
            states = [seen[site].double() for site in sites]
            cosines = [F.cosine_similarity(a, b, dim=-1) for a, b in pairwise(states)]
            parts.append(1 - torch.stack(cosines).mean(dim=2))  # (L, b)
    found = torch.cat(parts, dim=1).cpu().numpy()
    if not np.isfinite(found).all():
        raise MeasureError("the states have NaN or Inf; measure a checkpoint before the run diverged")
    n = found.shape[1]
    table = pd.DataFrame({"block": blocks, "influence": found.mean(axis=1)})
    table["error"] = found.std(axis=1, ddof=1) / math.sqrt(n)
    within, t = Range(0.0, 2.0, cut=True), student(n - 1)
    ends = [within.interval(*row) for row in zip(table["influence"], t * table["error"], strict=True)]
    table["low"], table["high"] = zip(*ends, strict=True)
    return table.assign(n=n)


def _subject(model: Subject | nn.Module) -> Subject:
    return ModuleSubject.of(model, layout_of(model), step=0) if isinstance(model, nn.Module) else model


def _mean(losses: Tensor) -> Tensor:
    """Return the mean loss (n,) of each sequence (n, T) in float64."""
    return losses.double().mean(dim=1)


@torch.no_grad()
def _shared(subject: TransformerSubject, sequences: Tensor, sets: Sequence[Blocks]) -> Tensor:
    """Return the mean losses (S, n) of a transformer of this package without each set, batch by batch."""
    most = LOGITS // ((sequences.shape[1] - 1) * subject.config.sizes.vocab)
    parts = []
    for batch in subject.stack.batches(sequences, most):
        found: dict[int, Tensor] = {}
        for i, states in _final_states(subject, batch[None, :, :-1].long(), sets):
            logits = subject.transformer.logits(subject.params, states)[0]
            found[i] = _mean(position_losses(logits, batch[:, 1:].long()))
        parts.append(torch.stack([found[i] for i in range(len(sets))]))
    return torch.cat(parts, dim=1)


def _final_states(
    subject: TransformerSubject, tokens: Tensor, sets: Sequence[Blocks]
) -> Iterator[tuple[int, Tensor]]:
    """Yield the index of each set with the final states (1, b, T, d) without it.

    Sets are a tree: at each block they part into those that remove it and those that do not. A state is computed once
    for all sets that agree so far, and one state for each block is held.
    """
    blocks = numbered(subject.sites)

    def run(kept: Collection[int], start: Tensor | None, site: str) -> Tensor:
        """Return what a site has after the kept blocks, which begin at the embedding or at a given stream."""
        own = subject.without_blocks([block for block in blocks if block not in kept])
        seen: list[Tensor] = []

        def tap(name: str, x: Tensor) -> Tensor:
            x = start if name == EMBED and start is not None else x
            if name == site:
                seen.append(x)
            return x

        final = own.transformer.hidden(own.params, tokens, tap)
        return final if not seen else seen[0]

    def walk(depth: int, stream: Tensor | None, chosen: list[int]) -> Iterator[tuple[int, Tensor]]:
        if len(chosen) == 1 or depth == len(blocks):
            rest = [block for block in blocks[depth:] if block not in sets[chosen[0]]]
            yield from ((i, states) for states in [run(rest, stream, "final")] for i in chosen)
            return
        block = blocks[depth]
        gone = [i for i in chosen if block in sets[i]]
        if gone:
            yield from walk(depth + 1, stream, gone)
        if kept := [i for i in chosen if block not in sets[i]]:
            yield from walk(depth + 1, run((block,), stream, f"blocks.{block}"), kept)

    yield from walk(0, None, list(range(len(sets))))
