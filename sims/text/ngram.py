"""Estimate the law of the next token from counts of a text: bigrams and trigrams, interpolated."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# Tokens of a history and the next one.
ORDERS = {"bigram": 2, "trigram": 3}


@dataclass(frozen=True, eq=False)
class _Level:
    """Counts of what follows every history of one length.

    Attributes:
        histories: (m,) codes of the histories, ascending.
        starts: (m + 1,) where the next tokens of each begin.
        following: next tokens, those of one history behind each other.
        counts: how often each follows.
        totals: (m,) sums of the counts of each history.
    """

    histories: np.ndarray
    starts: np.ndarray
    following: np.ndarray
    counts: np.ndarray
    totals: np.ndarray


@dataclass(frozen=True, eq=False)
class NgramLaw:
    """Hold counts of n-grams. Create it with `NgramLaw.of`.

    The law is that of Witten and Bell (1991): p(w | c) = (n(c, w) + t(c)·p(w | shorter c))/(n(c) + t(c)), where t(c) is
    the number of different tokens seen after c. It starts from p(w) = (n(w) + t/V)/(n + t), so that no token has chance
    0, and goes to the true law of a chain of this order as the text grows.

    Attributes:
        vocabulary: V.
        unigram: (V,) law of a token without a history.
        levels: counts by the length of the history: 1, 2, …
    """

    vocabulary: int
    unigram: np.ndarray
    levels: tuple[_Level, ...]

    @classmethod
    def of(cls, rows: np.ndarray, vocabulary: int, order: int) -> NgramLaw:
        """Count n-grams within rows of tokens.

        Args:
            rows: (n, L) tokens, L ≥ 2.
            vocabulary: V.
            order: length of the n-grams, 2 or 3.

        >>> law = NgramLaw.of(np.array([[0, 1, 0, 1, 0]]), vocabulary=2, order=2)
        >>> law.next_tokens(np.array([[0], [1]])).round(3).tolist()
        [[0.167, 0.833], [0.833, 0.167]]
        """
        rows = np.asarray(rows, np.int64)
        singles = np.bincount(rows[:, 1:].ravel(), minlength=vocabulary)
        seen = np.count_nonzero(singles)
        unigram = (singles + seen / vocabulary) / (singles.sum() + seen)
        levels = tuple(_level(rows, length, vocabulary) for length in range(1, min(order, rows.shape[1])))
        return cls(vocabulary, unigram, levels)

    def next_tokens(self, contexts: np.ndarray) -> np.ndarray:
        """Return the laws (N, V) of the token after contexts.

        Args:
            contexts: (N, k) their last tokens, k ≥ 1; of a context with fewer the first are −1.
        """
        found = np.tile(self.unigram, (len(contexts), 1))
        for length, level in enumerate(self.levels[: contexts.shape[1]], start=1):
            own = np.asarray(contexts[:, -length:], np.int64)
            at = np.searchsorted(level.histories, codes(own, self.vocabulary))
            at = np.minimum(at, len(level.histories) - 1)
            known = (level.histories[at] == codes(own, self.vocabulary)) & (own[:, 0] >= 0)
            for row in np.flatnonzero(known):
                part = slice(level.starts[at[row]], level.starts[at[row] + 1])
                total, different = level.totals[at[row]], part.stop - part.start
                found[row] *= different / (total + different)
                found[row, level.following[part]] += level.counts[part] / (total + different)
        return found


def codes(histories: np.ndarray, vocabulary: int) -> np.ndarray:
    """Return one number (N,) for each history (N, k): its tokens as digits.

    >>> codes(np.array([[1, 2]]), vocabulary=10).tolist()
    [12]
    """
    found = np.zeros(len(histories), np.int64)
    for column in histories.T:
        found = found * vocabulary + column
    return found


def _level(rows: np.ndarray, length: int, vocabulary: int) -> _Level:
    """Count what follows the histories of a length."""
    windows = np.lib.stride_tricks.sliding_window_view(rows, length + 1, axis=1).reshape(-1, length + 1)
    before, after = codes(windows[:, :-1], vocabulary), windows[:, -1]
    order = np.lexsort((after, before))
    before, after = before[order], after[order]
    new = np.ones(len(before), bool)
    new[1:] = (before[1:] != before[:-1]) | (after[1:] != after[:-1])
    places = np.flatnonzero(new)
    counts = np.diff(places, append=len(before))
    histories, starts = np.unique(before[places], return_index=True)
    totals = np.add.reduceat(counts, starts)
    return _Level(histories, np.append(starts, len(places)), after[places], counts, totals)
