"""Compare a language model with approximate laws of the next token of a text: counts of n-grams, or a larger model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from sims.measure.contexts import EIGENFUNCTIONS
from sims.measure.predictive import context_numbers
from sims.models.subject import Subject
from sims.text.ngram import NgramLaw

# Chances that are in float64 at a time, of a law and of a model.
CHANCES = 2**22
# Columns of √p that are in float64 at a time.
COLUMNS = 8192
# Eigenvalues of a kernel below this share of its mean square are rounding.
RANK = 1e-12


class TextLaw(Protocol):
    """An approximate law of the next token of a text."""

    @property
    def name(self) -> str:
        """Name of the law."""
        ...

    def laws(self, sequences: Tensor, size: int) -> Iterator[np.ndarray]:
        """Yield laws (≤ size, V) of the tokens after every prefix of sequences (n, T+1), in their order."""
        ...


@dataclass(frozen=True, eq=False)
class CountedLaw:
    """The law of n-grams that were counted on other text."""

    name: str
    counts: NgramLaw

    def laws(self, sequences: Tensor, size: int) -> Iterator[np.ndarray]:
        """Yield laws (≤ size, V) of the tokens after every prefix."""
        longest = len(self.counts.levels)
        tokens = sequences[:, :-1].cpu().numpy()
        padded = np.pad(tokens, ((0, 0), (longest - 1, 0)), constant_values=-1)
        windows = np.lib.stride_tricks.sliding_window_view(padded, longest, axis=1).reshape(-1, longest)
        for start in range(0, len(windows), size):
            yield self.counts.next_tokens(windows[start : start + size])


@dataclass(frozen=True, eq=False)
class TeacherLaw:
    """The predictions of another model over the first `vocabulary` tokens."""

    name: str
    subject: Subject
    vocabulary: int

    def laws(self, sequences: Tensor, size: int) -> Iterator[np.ndarray]:
        """Yield laws (≤ size, V) of the tokens after every prefix."""
        for log_p in log_predictions(self.subject, sequences, self.vocabulary, size):
            yield np.exp(log_p)


@dataclass(frozen=True, eq=False)
class Comparison:
    """What a model and a law say at every position of n sequences.

    Attributes:
        divergence: KL(law ‖ model), (n, T) nats.
        gap: entropy of the model minus that of the law, (n, T) nats.
        bound: of |gap|, (n, T) nats.
        loss: −ln of the law's chance of the token that came, (n, T) nats.
        roots: √p of the chosen contexts, (N, V) float32.
    """

    divergence: np.ndarray
    gap: np.ndarray
    bound: np.ndarray
    loss: np.ndarray
    roots: np.ndarray


def log_predictions(subject: Subject, sequences: Tensor, vocabulary: int, size: int) -> Iterator[np.ndarray]:
    """Yield logarithms of predictions (≤ size, V) in float64, over the first V tokens, one position after the other."""
    found = subject.log_probs(sequences).flatten(0, 1)
    for rows in found.split(size):
        yield rows[:, :vocabulary].double().log_softmax(dim=-1).cpu().numpy()


def compare_laws(
    subject: Subject,
    law: TextLaw,
    sequences: Tensor,
    vocabulary: int,
    chosen: np.ndarray,
    told: Callable[[int, int], None] = lambda done, total: None,
) -> Comparison:
    """Compare a law with the predictions of a model at every position.

    Args:
        subject: the model.
        law: over the same tokens.
        sequences: (n, T+1) tokens.
        vocabulary: V; predictions of a model with more tokens are those given one of the first V.
        chosen: (N,) numbers of contexts (sequence · T + position) whose laws are kept.
        told: called with sequences done and in all.
    """
    n, length = len(sequences), sequences.shape[1] - 1
    size, together = max(CHANCES // vocabulary, 1), max(CHANCES // (vocabulary * length), 1)
    columns = np.empty((4, n * length))
    roots = np.empty((len(chosen), vocabulary), np.float32)
    place = np.full(n * length, -1)
    place[chosen] = np.arange(len(chosen))
    targets = sequences[:, 1:].cpu().numpy().ravel()
    at = 0
    for done, batch in enumerate(sequences.split(together)):
        told(done * together, n)
        predicted = log_predictions(subject, batch, vocabulary, size)
        for p, log_q in zip(law.laws(batch, size), predicted, strict=True):
            here = slice(at, at + len(p))
            columns[:3, here] = context_numbers(p, log_q)
            # A teacher's chance may be 0 in float64.
            columns[3, here] = -np.log(np.maximum(p[np.arange(len(p)), targets[here]], np.finfo(float).tiny))
            kept = place[here] >= 0
            roots[place[here][kept]] = np.sqrt(p[kept])
            at += len(p)
    told(n, n)
    divergence, gap, bound, loss = columns.reshape(4, n, length)
    return Comparison(divergence, gap, bound, loss, roots)


@dataclass(frozen=True, eq=False)
class Operator:
    """The kernels of some contexts, each as an array whose centred rows have the products of the laws.

    Attributes:
        sequences: (N,) which sequence each context is of.
        last: (N,) last tokens of the contexts.
        roots, linear: (N, r) for ⟨√p, √p'⟩ and ⟨p, p'⟩.
        eigenvalues: leading μ of the first over N, descending; at most 16.
        eigenfunctions: (N, ≤ 16) of it, of variance 1.
        order: (N,) a permutation, for the null.
    """

    sequences: np.ndarray
    last: np.ndarray
    roots: np.ndarray
    linear: np.ndarray
    eigenvalues: np.ndarray
    eigenfunctions: np.ndarray
    order: np.ndarray

    @classmethod
    def of(cls, roots: np.ndarray, sequences: np.ndarray, last: np.ndarray, order: np.ndarray) -> Operator:
        """Return the operator of contexts with √p (N, V); where V is large only (N, N) matrices are made of it."""
        values, functions = _eigen(roots, np.positive)
        squares, others = _eigen(roots, np.square)
        keep = min(len(values), EIGENFUNCTIONS)
        return cls(
            sequences,
            last,
            functions * np.sqrt(values),
            others * np.sqrt(squares),
            values[:keep],
            functions[:, :keep],
            order,
        )


def _eigen(roots: np.ndarray, of: Callable[[np.ndarray], np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return eigenvalues (r,) over N of the centred kernel, descending, and eigenfunctions (N, r) of variance 1."""
    n, width = roots.shape
    if width <= n:
        x = of(roots.astype(float))
        size, x = np.square(x).sum() / n, x - x.mean(axis=0)
        functions, values, _ = np.linalg.svd(x, full_matrices=False)
        values = values**2 / n
    else:
        gram, size = np.zeros((n, n)), 0.0
        for start in range(0, width, COLUMNS):
            x = of(roots[:, start : start + COLUMNS].astype(float))
            size += np.square(x).sum() / n
            x -= x.mean(axis=0)
            gram += x @ x.T
        values, functions = (y[..., ::-1] for y in np.linalg.eigh(gram))
        values = values / n
    kept = values > RANK * size
    return values[kept], functions[:, kept] * np.sqrt(n)


def choose_contexts(sequences: Tensor, count: int, seed: int = 0) -> np.ndarray:
    """Return numbers (N,) of at most `count` different contexts, N even, drawn from all positions.

    Those in even places come from one half of the sequences and those in odd places from the other: what is fitted to
    one half is scored on contexts of other sequences.
    """
    tokens = sequences[:, :-1].cpu().numpy()
    n, length = tokens.shape
    rng = np.random.default_rng(seed)
    halves, seen = [], set()
    for half in np.array_split(rng.permutation(n), 2):
        own: list[int] = []
        for number in rng.permutation((half[:, None] * length + np.arange(length)).ravel()):
            row, position = divmod(int(number), length)
            key = tokens[row, : position + 1].tobytes()
            if len(own) == count // 2:
                break
            if key not in seen:
                seen.add(key)
                own.append(int(number))
        halves.append(own)
    shorter = min(len(own) for own in halves)
    return np.stack([own[:shorter] for own in halves], axis=1).ravel()


@torch.no_grad()
def final_states(subject: Subject, sequences: Tensor, chosen: np.ndarray) -> np.ndarray:
    """Return the final states (N, d) of chosen contexts, float64."""
    length = sequences.shape[1] - 1
    order = np.argsort(chosen)
    found, start = [], 0
    for batch in subject.activations(sequences, ("final",)):
        states = batch["final"].flatten(0, 1)
        own = chosen[order]
        here = own[(own >= start) & (own < start + len(states))] - start
        found.append(states[torch.as_tensor(here, device=states.device)].double().cpu().numpy())
        start += len(states)
    assert start == len(sequences) * length
    states = np.concatenate(found)
    result = np.empty_like(states)
    result[order] = states
    return result


def random_weights(subject: Subject, seed: int = 0) -> Subject:
    """Return a copy whose matrices hold independent Gaussian numbers of the same root mean square."""
    generator = torch.Generator().manual_seed(seed)
    for name in tuple(subject.matrices):
        own = subject.matrices[name]
        drawn = torch.randn(own.shape, generator=generator).to(own)
        subject = subject.with_matrix(name, drawn * own.float().square().mean().sqrt().to(own))
    return subject
