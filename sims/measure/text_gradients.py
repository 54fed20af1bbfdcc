"""Per-sample gradient spectra of a language model within a budget of memory.

The M×M Gram matrix of each weight's gradients is put together from blocks of sequences. Of two blocks at a time the
captured factors are held; where they do not all fit, the second one is captured again when its turn comes:

    block rows      every block I, with the blocks J that follow it round the circle, so that each pair comes once and
                    every row has about as many;
    memory          2·b·F + c·A + Grams + working set, F the bytes of one sequence's factors, A those that autograd
                    keeps of one sequence, both seen on a first sequence; b sequences a block, c a backward pass;
    time            (K + 1)/2 backward passes over all M sequences, K = M/b.

b is as large as the budget allows; with one block nothing is captured twice. Ranks take block rows in turn, and their
Gram matrices are added up, each entry of which one rank alone has computed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sims.errors import MeasureError
from sims.ranks import Ranks
from sims.subject import Subject
from spectra import Factors, Inputs, gradient_inner_products
from spectra.gradients import WORKING_SET
from toymodel.cross_entropy import CHUNK

GB = 1e9
DOUBLE, SINGLE = 8, 4


@dataclass(frozen=True)
class Blocks:
    """How the sequences are divided.

    Args:
        samples: M sequences.
        held: sequences a block.
        captured: sequences a backward pass.
        bytes: what the plan expects to need at most.
    """

    samples: int
    held: int
    captured: int
    bytes: int

    @property
    def count(self) -> int:
        """K, the number of blocks."""
        return math.ceil(self.samples / self.held)

    @property
    def passes(self) -> float:
        """Backward passes over all sequences."""
        return (self.count + 1) / 2

    def span(self, block: int) -> slice:
        """The sequences of a block."""
        return slice(block * self.held, min((block + 1) * self.held, self.samples))

    def pairs(self, ranks: Ranks) -> list[tuple[int, int]]:
        """The pairs (I, J) of this rank, row by row; over all ranks each unordered pair comes once."""
        k = self.count
        return [
            (i, (i + offset) % k)
            for i in ranks.share(k)
            for offset in range(k // 2 + 1)
            # Half way round an even circle every pair would come twice.
            if 2 * offset < k or i < k // 2
        ]


def plan_blocks(subject: Subject, sequences: Tensor, matrices: Sequence[str], memory: float) -> Blocks:
    """Blocks as large as the budget allows, from what a first sequence takes.

    Args:
        subject: the model.
        sequences: (M, T+1) tokens.
        matrices: names.
        memory: the budget in GB.

    Raises:
        MeasureError: not even blocks of one sequence fit.
    """
    samples, positions = len(sequences), sequences.shape[1] - 1
    factors, graph = _footprint(subject, sequences[:1], matrices)
    shapes = [subject.matrices[name].shape for name in matrices]
    largest = max(rows * columns for rows, columns in shapes)
    # Slices of both sides' gradients and what they are formed from; one chunk of logits and its gradient.
    working = 3 * DOUBLE * min(WORKING_SET, 2 * samples * largest)
    logits = 3 * SINGLE * min(CHUNK, positions) * len(subject.head)
    fixed = len(matrices) * samples**2 * DOUBLE + working + logits
    budget = int(memory * GB)

    def needed(held: int, captured: int) -> int:
        sides = 1 if held == samples else 2
        return fixed + sides * held * factors + captured * graph

    if needed(samples, 1) <= budget:
        held = samples
    else:
        held = min((budget - fixed - graph) // (2 * factors), samples - 1)
    if held < 1:
        raise MeasureError(
            f"per-sample gradients of {len(matrices)} matrices for {samples} sequences of {positions} tokens need "
            f"{needed(1, 1) / GB:.2g} GB even one sequence at a time, and memory is {memory:g}; raise it, measure "
            "fewer matrices (gradient_matrices) or sequences (gradient_sequences), or shorten them (length)"
        )
    held = math.ceil(samples / math.ceil(samples / held))
    spare = budget - needed(held, 0)
    captured = max(1, min(held, spare // max(graph, 1)))
    return Blocks(samples, held, captured, needed(held, captured))


def gradient_grams(
    subject: Subject,
    sequences: Tensor,
    matrices: Sequence[str],
    blocks: Blocks,
    ranks: Ranks,
    grams: dict[str, Tensor],
    done: int,
) -> Iterator[tuple[int, int]]:
    """Fill in this rank's part of the Gram matrices, pair of blocks by pair.

    Args:
        subject, sequences, matrices, blocks, ranks: as above.
        grams: matrix → (M, M) float64, zero where nothing is known; filled in place.
        done: pairs of this rank that are in them already.

    Yields:
        pairs done and pairs in all, after each.
    """
    pairs = blocks.pairs(ranks)
    row: tuple[int, Mapping[str, Factors]] | None = None
    for k in range(done, len(pairs)):
        i, j = pairs[k]
        if row is None or row[0] != i:
            # The old row is let go before the new one is captured.
            row = None
            row = (i, _capture(subject, sequences[blocks.span(i)], matrices, blocks.captured))
        own = row[1]
        other = own if i == j else _capture(subject, sequences[blocks.span(j)], matrices, blocks.captured)
        for name in matrices:
            products = gradient_inner_products(own[name], other[name]).cpu()
            grams[name][blocks.span(i), blocks.span(j)] = products
            grams[name][blocks.span(j), blocks.span(i)] = products.T
        del other
        yield k + 1, len(pairs)


def _capture(
    subject: Subject, sequences: Tensor, matrices: Sequence[str], captured: int
) -> Mapping[str, Factors]:
    """Factors of a block, so many sequences a backward pass."""
    parts = [dict(subject.gradient_factors(piece, matrices)) for piece in sequences.split(captured)]
    if len(parts) == 1:
        return parts[0]
    shared: dict[int, Inputs] = {}
    factors = {}
    for name in matrices:
        # Let go one matrix after the other: the pieces and what they make up need not both be held. q, k and v share
        # their inputs; all of those existed at once, so that no two have one identity.
        pieces = [part.pop(name) for part in parts]
        source = id(pieces[0].inputs)
        if source not in shared:
            shared[source] = Inputs(torch.cat([piece.a for piece in pieces]))
        sides = [piece.d for piece in pieces if isinstance(piece.d, Tensor)]
        factors[name] = Factors(shared[source], torch.cat(sides))
    return factors


def _footprint(subject: Subject, sequence: Tensor, matrices: Sequence[str]) -> tuple[int, int]:
    """Bytes of one sequence's factors, and of what autograd keeps to find them."""
    kept: dict[int, int] = {}
    weights = {_place(weight) for weight in (*subject.matrices.values(), subject.head)}

    def pack(tensor: Tensor) -> Tensor:
        if _place(tensor) not in weights:
            kept[_place(tensor)] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        factors = subject.gradient_factors(sequence, matrices)
    own: dict[int, int] = {}
    for found in factors.values():
        for side in (found.a, found.d):
            assert isinstance(side, Tensor)  # one-hot rows are those of embeddings alone
            own[_place(side)] = side.untyped_storage().nbytes()
    return sum(own.values()), sum(kept.values())


def _place(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
