"""Sort all suffixes of a text of tokens."""

from __future__ import annotations

import numpy as np


def suffix_array(tokens: np.ndarray) -> np.ndarray:
    """Return the places (n,) of all suffixes of a text in their order; one that begins another comes before it.

    Prefix doubling: suffixes are sorted by their first tokens, then by twice as many, and so on, but only those that
    are not yet told apart. It takes O(n log n) for each doubling up to the length of the longest repetition.

    Args:
        tokens: (n,) integers from 0, at most 2**31 of them.

    >>> suffix_array(np.array([1, 0, 1, 0, 2])).tolist()
    [1, 3, 0, 2, 4]
    """
    tokens = np.asarray(tokens, np.int64)
    n = len(tokens)
    if n < 2:
        return np.arange(n)
    key, width = _packed(tokens)
    order = np.argsort(key)
    new = _changes(key[order])
    del key
    # The rank of a suffix is the first slot of those that begin alike; it is final once there is one such slot.
    slots = np.arange(n)
    first = np.maximum.accumulate(np.where(new, slots, 0))
    rank = np.empty(n, np.int64)
    rank[order] = first
    open_ = slots[_repeated(new)]
    while len(open_):
        places = order[open_]
        after = places + width
        # A suffix that ends before is the smallest of its group.
        key = rank[places] * (n + 1) + np.where(after < n, rank[np.minimum(after, n - 1)] + 1, 0)
        by = np.argsort(key)
        places, new = places[by], _changes(key[by])
        order[open_] = places
        rank[places] = np.maximum.accumulate(np.where(new, open_, 0))
        open_ = open_[_repeated(new)]
        width *= 2
    return order


def _packed(tokens: np.ndarray) -> tuple[np.ndarray, int]:
    """Return one number (n,) for the first tokens of each suffix, and how many tokens these are."""
    base = int(tokens.max()) + 2
    width = 1
    while base ** (width + 1) < 2**63:
        width += 1
    # Fewer are enough where the text is short; what follows its end is 0, and tokens count from 1.
    width = min(width, len(tokens))
    key = np.zeros(len(tokens), np.int64)
    for shift in range(width):
        key *= base
        key[: len(tokens) - shift] += tokens[shift:] + 1
    return key, width


def _changes(values: np.ndarray) -> np.ndarray:
    """Return where sorted values (m,) differ from the ones before them."""
    new = np.ones(len(values), bool)
    new[1:] = values[1:] != values[:-1]
    return new


def _repeated(new: np.ndarray) -> np.ndarray:
    """Return which of sorted values are there more than once, from where they change."""
    return ~(new & np.append(new[1:], True))
