"""Draw contexts of the toy's task with the exact laws of their next tokens."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sims.analysis.task_floor import exact_law
from sims.system.errors import MeasureError
from spectra.alignment import predictive_embedding
from toymodel.data import Dataset, sequence_keys
from toymodel.task import Task
from toymodel.tasks.modular_walks import draw_split, modular_walks

# Spawn key of the random stream; the splits have 0 to 2, probes of bands 3.
_CONTEXTS = 4
# Sequences that are drawn for one that is kept, which is new and not in training.
_DRAWN = 8
# Numbers of tokens read; the last position is measured too.
POSITIONS = (1, 2, 3, 4, 8)
EIGENFUNCTIONS = 16
# Eigenvalues below this are rounding: each √p has norm 1.
_RANK = 1e-12


@dataclass(frozen=True, eq=False)
class PositionLaws:
    """Hold the laws of the next token after k tokens of every sequence, and the kernel of those that differ.

    Attributes:
        tokens: k, number of tokens read.
        laws: (N, V) p of the next token.
        distinct: (n,) places of the first sequence of every distinct context, in the order of the draw.
        last: (n,) last token of the distinct contexts.
        before: (n,) the token before it; −1 where there is none.
        order: (n,) a permutation of the distinct contexts, for the null.
        roots: (n, V) √p of the distinct contexts.
        eigenvalues: (r,) leading μ of the centred Bhattacharyya kernel over n, descending; r ≤ 16.
        eigenfunctions: (n, r) of it, of variance 1.
    """

    tokens: int
    laws: np.ndarray
    distinct: np.ndarray
    last: np.ndarray
    before: np.ndarray
    order: np.ndarray
    roots: np.ndarray
    eigenvalues: np.ndarray
    eigenfunctions: np.ndarray


@dataclass(frozen=True, eq=False)
class Contexts:
    """Hold sequences (N, T+1) of the task that do not occur in training, all distinct, with laws at some positions."""

    sequences: np.ndarray
    positions: tuple[PositionLaws, ...]


def draw_contexts(task: Task, data: Dataset, count: int) -> Contexts:
    """Draw contexts; the draw depends on the laws of the task and on what training contains.

    Raises:
        MeasureError: the law is not known exactly, or the task has too few sequences outside training.
    """
    law, walks = exact_law(task), modular_walks(task)
    rng = np.random.default_rng(np.random.SeedSequence(0, spawn_key=(_CONTEXTS,)))
    drawn = draw_split(walks, rng, _DRAWN * count).tokens
    taken, kept = set(sequence_keys(data.train.tokens)), []
    for place, key in enumerate(sequence_keys(drawn)):
        if key not in taken and len(kept) < count:
            taken.add(key)
            kept.append(place)
    if len(kept) < count:
        raise MeasureError(
            f"measure.predictive is {count}, but {_DRAWN * count} draws gave only {len(kept)} distinct sequences that "
            "do not occur in training; lower it, or raise task.vocab or task.length"
        )
    sequences = np.ascontiguousarray(drawn[kept])
    lengths = sorted({k for k in POSITIONS if k < walks.length} | {walks.length})
    found = tuple(
        _position(k, sequences[:, :k], law.next_tokens(sequences[:, :k]), rng.spawn(1)[0]) for k in lengths
    )
    return Contexts(sequences, found)


def _position(tokens: int, prefixes: np.ndarray, laws: np.ndarray, rng: np.random.Generator) -> PositionLaws:
    distinct = np.sort(np.unique(prefixes, axis=0, return_index=True)[1])
    roots = predictive_embedding(laws[distinct])
    u, s, _ = np.linalg.svd(roots - roots.mean(axis=0), full_matrices=False)
    values = s**2 / len(roots)
    # Laws that do not vary have no eigenfunction.
    rank = min(int((values > _RANK).sum()), EIGENFUNCTIONS)
    order = rng.permutation(len(distinct))
    functions = u[:, :rank] * np.sqrt(len(u))
    last = prefixes[distinct, -1].astype(int)
    before = prefixes[distinct, -2].astype(int) if tokens > 1 else np.full(len(last), -1)
    return PositionLaws(tokens, laws, distinct, last, before, order, roots, values[:rank], functions)
