"""Choose documents of one kind: those furthest along the direction in which the tokens of documents differ most."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sims.system.errors import StoreError

# Documents, evenly spread over a text, that give the direction; and frequent tokens that they are told apart by.
DOCUMENTS, TOKENS = 8_192, 4_096


@dataclass(frozen=True, eq=False)
class Document:
    """Hold where a document lies in a text: from its first token up to that of the next one."""

    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start


def documents(tokens: np.ndarray, end: int | None) -> list[Document]:
    """Return the documents of a text (n,), each of which begins with the token `end`.

    >>> [len(own) for own in documents(np.array([9, 1, 2, 9, 3]), end=9)]
    [3, 2]
    """
    if end is None:
        return []
    starts = np.flatnonzero(tokens == end)
    return [Document(int(a), int(b)) for a, b in zip(starts, np.append(starts[1:], len(tokens)), strict=True)]


@dataclass(frozen=True, eq=False)
class Axis:
    """Hold the direction along which documents differ most, and which side of it is the kind.

    A document is the square roots of the shares of its tokens; the direction is the first principal one of the
    documents, each with the weight of its tokens.

    Attributes:
        tokens: (m,) the frequent tokens; all others are one more.
        mean: (m + 1,) of the documents.
        direction: (m + 1,) of length 1; documents of the kind have the largest products with it.
    """

    tokens: np.ndarray
    mean: np.ndarray
    direction: np.ndarray

    @classmethod
    def of(cls, text: np.ndarray, every: list[Document], share: float) -> Axis:
        """Find the direction of documents of a text, of at most `DOCUMENTS` evenly spread over it.

        Of its two sides the kind is the one whose outermost documents, that hold a share of the tokens, lie further
        from the mean.

        Args:
            text: (n,) tokens.
            every: its documents.
            share: of its tokens.

        Raises:
            StoreError: fewer than three documents.
        """
        every = _spread(_with_tokens(every))
        if len(every) < 3:
            raise StoreError(f"the text has {len(every)} documents; to choose those of one kind it needs 3")
        counts = np.bincount(np.concatenate([text[d.start + 1 : d.stop] for d in every]))
        # Of equally frequent tokens the smaller.
        frequent = np.sort(np.argsort(-counts, kind="stable")[:TOKENS])
        weights = np.array([len(d) for d in every], float)
        rows = np.array([_roots(text, d, frequent) for d in every])
        mean = weights @ rows / weights.sum()
        direction = _leading((rows - mean) * np.sqrt(weights / weights.sum())[:, None])
        scores = (rows - mean) @ direction
        means = [
            float(np.average(side * scores[chosen], weights=weights[chosen]))
            for side in (1, -1)
            for chosen in [_furthest(side * scores, weights, share)]
        ]
        return cls(frequent, mean, direction if means[0] >= means[1] else -direction)

    def furthest(self, text: np.ndarray, every: list[Document], share: float) -> list[Document]:
        """Return the documents of a text furthest on the side of the kind, of all of them, in the order of the text.

        Args:
            text: (n,) tokens, also of another text than that of the direction.
            every: its documents.
            share: of their tokens, which they hold at least.
        """
        every = _with_tokens(every)
        scores = np.array([(_roots(text, d, self.tokens) - self.mean) @ self.direction for d in every])
        chosen = _furthest(scores, np.array([len(d) for d in every], float), share)
        return [every[i] for i in np.sort(chosen)]


def _with_tokens(every: list[Document]) -> list[Document]:
    """Return the documents with tokens of their own."""
    return [d for d in every if len(d) > 1]


def _spread(every: list[Document]) -> list[Document]:
    """Return at most `DOCUMENTS` of documents, evenly spread."""
    if len(every) <= DOCUMENTS:
        return every
    return [every[i] for i in np.linspace(0, len(every) - 1, DOCUMENTS).round().astype(int)]


def _roots(text: np.ndarray, document: Document, frequent: np.ndarray) -> np.ndarray:
    """Return the square roots (m + 1,) of the shares of frequent tokens, and of all others."""
    own = np.asarray(text[document.start + 1 : document.stop])
    counts = np.bincount(own, minlength=int(frequent[-1]) + 1)[frequent]
    return np.sqrt(np.append(counts, len(own) - counts.sum()) / len(own))


def _leading(rows: np.ndarray) -> np.ndarray:
    """Return the first right singular vector (m,) of rows (n, m)."""
    from scipy.linalg import eigh

    n, m = rows.shape
    gram = rows @ rows.T if n < m else rows.T @ rows
    (vector,) = eigh(gram, subset_by_index=[len(gram) - 1, len(gram) - 1])[1].T
    vector = vector @ rows if n < m else vector
    return vector / np.linalg.norm(vector)


def _furthest(scores: np.ndarray, weights: np.ndarray, share: float) -> np.ndarray:
    """Return the places of the largest scores (n,) that hold a share of the weights (n,)."""
    order = np.argsort(-scores, kind="stable")
    held = np.cumsum(weights[order])
    return order[: int(np.searchsorted(held, share * held[-1])) + 1]
