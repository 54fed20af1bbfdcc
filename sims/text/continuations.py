"""Count what followed each context of a text, however long the context is."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass

import numpy as np

from sims.text.suffix_array import suffix_array

# Laws of n-grams by their tokens, the next one included; 0 for the longest ending of a context that occurs.
INFINITE = 0
ORDERS: dict[int, str] = {1: "1-gram", 2: "2-gram", 3: "3-gram", 5: "5-gram", INFINITE: "∞-gram"}
# Tokens of shards have 16 bits; in this order of bytes texts compare as their tokens do.
_BYTES, _DTYPE = 2, ">u2"


@dataclass(frozen=True, eq=False)
class Counts:
    """What followed a context.

    Attributes:
        tokens: (m,) different next tokens, ascending.
        counts: (m,) how often each followed, c(context·token).
    """

    tokens: np.ndarray
    counts: np.ndarray

    @property
    def total(self) -> int:
        """Return c(context): how often something followed it."""
        return int(self.counts.sum())

    def of(self, token: int) -> int:
        """Return how often a token followed."""
        place = int(np.searchsorted(self.tokens, token))
        found = place < len(self.tokens) and self.tokens[place] == token
        return int(self.counts[place]) if found else 0

    @property
    def likeliest(self) -> int:
        """Return the token that followed most often, the least of several; −1 where none did."""
        return int(self.tokens[np.argmax(self.counts)]) if len(self.tokens) else -1


@dataclass(frozen=True, eq=False)
class Continuations:
    """Hold a text so that what followed a context is found in O(log n). Create it with `Continuations.of`.

    The places of all tokens but the last are sorted by what they end: contexts of one ending are neighbours, and the
    shorter the ending, the more of them. 12 bytes a token, about 60 while it is made.

    Documents are kept apart by the token that begins each of them: a context reaches back to the last of these at most
    (`within_document`), which may be its first token. The end of a document, that token, is counted as a next token.

    Attributes:
        backwards: the text backwards, two bytes a token.
        ends: (n − 1,) where in it the contexts begin, in their order.
        following: (n − 1,) the token after each of them.
        end: token that begins every document; None where documents are not kept apart.
        size: tokens n of the text.
    """

    backwards: bytes
    ends: np.ndarray
    following: np.ndarray
    end: int | None
    size: int

    @classmethod
    def of(cls, tokens: np.ndarray, end: int | None = None) -> Continuations:
        """Sort a text.

        Args:
            tokens: (n,) integers from 0 to 65,535, n ≥ 1.
            end: token that begins every document.

        >>> text = Continuations.of(np.array([0, 1, 2, 1, 2, 3]))
        >>> found = text.after([2])
        >>> found.tokens.tolist(), found.counts.tolist(), text.longest([9, 1, 2])
        ([1, 3], [1, 1], 2)
        """
        tokens = np.asarray(tokens)
        n = len(tokens)
        reverse = np.ascontiguousarray(tokens[::-1])
        ends = suffix_array(reverse)
        # Nothing follows the last token.
        ends = ends[ends > 0]
        following = reverse[ends - 1].astype(np.uint16)
        return cls(reverse.astype(_DTYPE).tobytes(), ends, following, end, n)

    def within_document(self, context: np.ndarray) -> np.ndarray:
        """Return the part of a context (k,) in its document: from the last token that begins one on."""
        if self.end is None:
            return context
        begins = np.flatnonzero(context == self.end)
        return context[begins[-1] :] if len(begins) else context

    def after(self, context: np.ndarray | list[int]) -> Counts:
        """Return what followed a context (k,), k ≥ 0; of an empty one, how often each token occurs in the text."""
        low, high = self._range(np.asarray(context))
        found = self.following[low:high]
        if not len(context):
            # The first token of the text follows nothing.
            found = np.append(found, np.frombuffer(self.backwards[-_BYTES:], _DTYPE).astype(np.uint16))
        counts = np.bincount(found)
        tokens = np.flatnonzero(counts)
        return Counts(tokens, counts[tokens])

    def longest(self, context: np.ndarray | list[int]) -> int:
        """Return the length of the longest ending of a context (k,) after which something followed in the text."""
        wanted = _backwards(np.asarray(context))
        place = self._place(wanted)
        near = (k for k in (place - 1, place) if 0 <= k < len(self.ends))
        return max((self._shared(int(self.ends[k]), wanted) for k in near), default=0)

    def _range(self, context: np.ndarray) -> tuple[int, int]:
        wanted = _backwards(context)
        low = self._place(wanted)
        high = bisect_right(self.ends, wanted, lo=low, key=lambda at: self._from(at, len(wanted)))
        return low, high

    def _place(self, wanted: bytes) -> int:
        return bisect_left(self.ends, wanted, key=lambda at: self._from(at, len(wanted)))

    def _from(self, at: int, size: int) -> bytes:
        begin = _BYTES * int(at)
        return self.backwards[begin : begin + size]

    def _shared(self, at: int, wanted: bytes) -> int:
        """Return how many tokens of a context the text has before and at a place."""
        here = np.frombuffer(self._from(at, len(wanted)), _DTYPE)
        other = np.frombuffer(wanted, _DTYPE)[: len(here)]
        differ = np.flatnonzero(here != other)
        return int(differ[0]) if len(differ) else len(here)


def _backwards(context: np.ndarray) -> bytes:
    return context[::-1].astype(_DTYPE).tobytes()
