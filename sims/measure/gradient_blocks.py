"""Per-sample gradient spectra of a language model within a budget of memory.

The M×M Gram matrix of each weight's gradients is put together from blocks of sequences. Of two blocks at a time the
captured factors are held; where they do not all fit, the second one is captured again when its turn comes:

    block rows      every block I, with the blocks J that follow it round the circle, so that each pair comes once and
                    every row has about as many;
    memory          2·b·F + c·(A + F) + Grams + working set, F the bytes of one sequence's factors, A those that its
                    forward and backward pass take, both seen on a first sequence; b sequences a block, c a backward
                    pass;
    time            (K + 1)/2 backward passes over all M sequences, K = M/b.

b is as large as the budget allows; with one block nothing is captured twice. Ranks take block rows in turn, and their
Gram matrices are added up; each entry is computed by exactly one rank.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sims.models.subject import Subject
from sims.system.errors import MeasureError
from sims.system.process_group import ProcessGroup
from spectra import Factors, Inputs, gradient_inner_products
from spectra.gradient_products import WORKING_SET
from toymodel.cross_entropy import tokens_at_once

GB = 1e9
DOUBLE, SINGLE = 8, 4
# What an allocator holds beyond what is asked of it: of everything, and of the many small pieces of a pass.
OVERHEAD, SLACK = 1.15, 1.2


@dataclass(frozen=True)
class Blocks:
    """Describe how the sequences are divided.

    Args:
        samples: M sequences.
        held: sequences a block.
        captured: sequences a backward pass.
        bytes: upper estimate of the memory.
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
        """Return the sequences of a block."""
        return slice(block * self.held, min((block + 1) * self.held, self.samples))

    def pairs(self, ranks: ProcessGroup) -> list[tuple[int, int]]:
        """Return the pairs (I, J) of this rank, row by row; over all ranks each unordered pair comes once."""
        k = self.count
        return [
            (i, (i + offset) % k)
            for i in ranks.share(k)
            for offset in range(k // 2 + 1)
            # Half way round an even circle every pair would come twice.
            if 2 * offset < k or i < k // 2
        ]


def plan_blocks(subject: Subject, sequences: Tensor, matrices: Sequence[str], memory: float) -> Blocks:
    """Return blocks as large as the budget allows, from the memory of a first sequence.

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
    logits = 0
    if vocabulary := len(subject.head):
        chunk = tokens_at_once(1, vocabulary, subject.head.device)
        logits = 3 * SINGLE * min(chunk, positions) * vocabulary
    fixed = len(matrices) * samples**2 * DOUBLE + working + logits
    budget = int(memory * GB)

    def needed(held: int, captured: int) -> int:
        sides = 1 if held == samples else 2
        # A part of a block is there twice, when it has been captured and before it has been put in its place.
        both = sides * held * factors + captured * (graph + factors * (captured < held))
        return math.ceil(OVERHEAD * (fixed + both))

    held = next((h for h in range(samples, 0, -1) if needed(h, 1) <= budget), 0)
    if held < 1:
        raise MeasureError(
            f"per-sample gradients of {len(matrices)} matrices for {samples} sequences of {positions} tokens need "
            f"{needed(1, 1) / GB:.3g} GB even one sequence at a time, and memory is {memory:g}; raise it, measure "
            "fewer matrices (gradient_matrices) or sequences (gradient_sequences), or shorten them (length)"
        )
    held = math.ceil(samples / math.ceil(samples / held))
    captured = next((c for c in range(held, 1, -1) if needed(held, c) <= budget), 1)
    return Blocks(samples, held, captured, needed(held, captured))


def gradient_grams(
    subject: Subject,
    sequences: Tensor,
    matrices: Sequence[str],
    blocks: Blocks,
    ranks: ProcessGroup,
    grams: dict[str, Tensor],
    done: int,
) -> Iterator[tuple[int, int]]:
    """Fill in this rank's part of the Gram matrices, pair of blocks by pair.

    Args:
        subject, sequences, matrices: see `plan_blocks`.
        blocks: the plan.
        ranks: this process among those that share the work.
        grams: matrix → (M, M) float64, zero where nothing is known; filled in place.
        done: pairs of this rank that they already contain.

    Yields:
        pairs done and number of pairs, after each.
    """
    pairs = blocks.pairs(ranks)
    row: tuple[int, Mapping[str, Factors]] | None = None
    for k in range(done, len(pairs)):
        i, j = pairs[k]
        if row is None or row[0] != i:
            # The old row is freed before the new one is captured.
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
    """Return the factors of a block, `captured` sequences in each backward pass."""
    if len(sequences) <= captured:
        return subject.gradient_factors(sequences, matrices)
    # Filled in place: pieces that are put together in the end would leave holes where they were.
    owner: dict[str, str] = {}
    a: dict[str, Tensor] = {}
    d: dict[str, Tensor] = {}
    for start in range(0, len(sequences), captured):
        part = subject.gradient_factors(sequences[start : start + captured], matrices)
        if not d:
            # q, k and v share their inputs, which are held once, under the first of them.
            first: dict[int, str] = {}
            owner = {name: first.setdefault(id(part[name].inputs), name) for name in matrices}
            a = {name: _room(len(sequences), part[name].a) for name in first.values()}
            d = {name: _room(len(sequences), _dense(part[name])) for name in matrices}
        own = slice(start, start + captured)
        for name, rows in a.items():
            rows[own] = part[name].a
        for name, rows in d.items():
            rows[own] = _dense(part[name])
    inputs = {name: Inputs(rows) for name, rows in a.items()}
    return {name: Factors(inputs[owner[name]], d[name]) for name in matrices}


def _room(samples: int, like: Tensor) -> Tensor:
    return like.new_empty(samples, *like.shape[1:])


def _dense(factors: Factors) -> Tensor:
    assert isinstance(factors.d, Tensor)  # only embeddings have one-hot rows
    return factors.d


def _footprint(subject: Subject, sequence: Tensor, matrices: Sequence[str]) -> tuple[int, int]:
    """Return the bytes of one sequence's factors, and of the pass that computes them (saved tensors and gradients)."""
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
        for side in (found.a, _dense(found)):
            own[_place(side)] = side.untyped_storage().nbytes()
    # Gradients of the widest layer come on top of saved tensors; memory freed in pieces cannot all be reused.
    return sum(own.values()), int(SLACK * (sum(kept.values()) + 2 * max(kept.values(), default=0)))


def _place(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
