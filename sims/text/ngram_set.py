"""Hold which n-grams occur in a text, and say of other texts whether theirs do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sims.system.errors import StoreError

# Windows that are encoded at once.
_CHUNK = 2**22


@dataclass(frozen=True, eq=False)
class NgramSet:
    """Hold the n-grams of a text as sorted numbers. Create it with `NgramSet.of`.

    Documents are kept apart by the token that begins each of them: of an n-gram with that token among its first n − 1,
    only what begins there counts, as in `sims.text.continuations`.

    Attributes:
        order: n, tokens of an n-gram.
        vocabulary: V.
        end: token that begins every document; None where documents are not kept apart.
        known: (m,) codes of the different n-grams, ascending.
    """

    order: int
    vocabulary: int
    end: int | None
    known: np.ndarray

    @classmethod
    def of(cls, texts: Sequence[np.ndarray], vocabulary: int, order: int, end: int | None = None) -> NgramSet:
        """Collect the n-grams of texts that are one text in their order.

        Args:
            texts: (n,) integers from 0 each.
            vocabulary: V; every token is below it.
            order: n ≥ 2.
            end: token that begins every document.

        Raises:
            StoreError: an order below 2, or so high that an n-gram is no 64-bit number.

        >>> found = NgramSet.of([np.array([0, 1, 2, 1, 2, 3])], vocabulary=4, order=2)
        >>> found.has(np.array([[2, 1], [3, 2]])).tolist()
        [True, False]
        """
        if order < 2 or vocabulary**order >= 2**63:
            most = max(n for n in range(63) if max(vocabulary, 2) ** n < 2**63)
            raise StoreError(
                f"the order of n-grams is {order}; of {vocabulary:,} tokens it is 2 to {most}, which fits into 64 bits"
            )
        whole = np.concatenate([np.asarray(text) for text in texts])
        parts = [] if end is None else [_codes(_short(whole, order, end), vocabulary, end)]
        parts += [
            _different(_codes(_columns(whole[None, at : at + _CHUNK + order - 1], order), vocabulary, end))
            for at in range(0, max(len(whole) - order + 1, 1), _CHUNK)
        ]
        return cls(order, vocabulary, end, _different(np.concatenate(parts)))

    def has(self, windows: np.ndarray) -> np.ndarray:
        """Return (N,) whether n-grams (N, n) occur."""
        return self._has(list(windows.T))

    def occur(self, rows: np.ndarray, given: int) -> np.ndarray:
        """Return (N,) whether all n-grams of rows (N, L) that end after their first `given` ≥ n − 1 tokens occur."""
        known = self._has(_columns(rows[:, given - self.order + 1 :], self.order))
        return np.asarray(known.reshape(len(rows), -1).all(axis=1))

    def follow(self, rows: np.ndarray, others: np.ndarray) -> np.ndarray:
        """Return (N, L) whether other tokens (N, L) ever follow the n − 1 tokens before them in rows (N, L+1).

        Where fewer are read before them, they count as tokens that do.
        """
        found = np.ones(others.shape, bool)
        first = self.order - 2
        if others.shape[1] > first:
            columns = [*_columns(rows[:, :-1], self.order - 1), others[:, first:].reshape(-1)]
            found[:, first:] = self._has(columns).reshape(len(rows), -1)
        return found

    def _has(self, columns: list[np.ndarray]) -> np.ndarray:
        wanted = _codes(columns, self.vocabulary, self.end)
        if not len(self.known):
            return np.zeros(len(wanted), bool)
        places = np.minimum(np.searchsorted(self.known, wanted), len(self.known) - 1)
        return self.known[places] == wanted


def _codes(columns: list[np.ndarray], vocabulary: int, end: int | None) -> np.ndarray:
    """Return one number (N,) for each n-gram of columns n × (N,), what lies before its document left out."""
    columns = [np.asarray(column, np.int64) for column in columns]
    if end is not None:
        for place in range(1, len(columns) - 1):
            begins = columns[place] == end
            if begins.any():
                columns[:place] = [np.where(begins, end, column) for column in columns[:place]]
    found = columns[0]
    for column in columns[1:]:
        found = found * vocabulary + column
    return found


def _short(text: np.ndarray, order: int, end: int) -> list[np.ndarray]:
    """Return n × (m,): n-grams of documents that begin so early in a text that fewer than n tokens are read."""
    padded = [
        np.append(np.full(missing, end), text[: order - missing])
        for missing in range(1, order - 1)
        if len(text) >= order - missing and (text[: order - missing - 1] == end).any()
    ]
    return list(np.array(padded, np.int64).reshape(-1, order).T)


def _different(values: np.ndarray) -> np.ndarray:
    """Return the different ones of values (m,), ascending."""
    values = np.sort(values)
    return values[np.append(True, values[1:] != values[:-1])] if len(values) else values


def _columns(rows: np.ndarray, size: int) -> list[np.ndarray]:
    """Return the windows of rows (N, L) as size × (N · (L − size + 1),), those of a row behind each other."""
    count = max(rows.shape[1] - size + 1, 0)
    return [rows[:, at : at + count].reshape(-1) for at in range(size)]
