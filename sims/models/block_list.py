"""The numbers of a model's blocks: which ones there are, and which of them a request names."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from numbers import Integral

from sims.system.errors import MeasureError

_BLOCK = re.compile(r"blocks\.(\d+)")


def numbered(sites: Iterable[str]) -> tuple[int, ...]:
    """Return the numbers of the blocks among the sites, in their order.

    >>> numbered(("embed", "blocks.0", "blocks.2", "final"))
    (0, 2)
    """
    return tuple(int(found[1]) for site in sites if (found := _BLOCK.fullmatch(site)))


def within(name: str, blocks: Collection[int]) -> bool:
    """Return whether a site, matrix or parameter belongs to one of the blocks.

    >>> within("blocks.1.attn.q", {1}), within("blocks.11", {1}), within("embed", {1})
    (True, False, False)
    """
    found = _BLOCK.match(name)
    return found is not None and int(found[1]) in blocks


def chosen_blocks(blocks: Collection[int], known: Collection[int]) -> tuple[int, ...]:
    """Return the numbers of chosen blocks in rising order.

    Args:
        blocks: each once, in any order.
        known: the blocks that there are.

    Raises:
        MeasureError: not a collection of whole numbers, one of them twice, or a number that is no block.

    >>> chosen_blocks([2, 0], known=range(4))
    (0, 2)
    """
    if isinstance(blocks, str | bytes) or not isinstance(blocks, Collection):
        raise MeasureError(
            f"blocks are a {type(blocks).__name__} ({blocks!r}); pass a collection of block numbers, such as [2, 3]"
        )
    given = list(blocks)
    if odd := [b for b in given if isinstance(b, bool) or not isinstance(b, Integral)]:
        raise MeasureError(
            f"{odd[0]!r} is a {type(odd[0]).__name__} and no block number; pass whole numbers as in the sites "
            '"blocks.0", "blocks.1", …'
        )
    if unknown := [b for b in given if b not in known]:
        none = 'none: no sites "blocks.0", … name its blocks, or all of them are removed'
        has = ", ".join(map(str, known)) or none
        raise MeasureError(
            f"no block {', '.join(map(str, unknown))} to remove; the blocks of this model are {has}"
        )
    if len(set(given)) < len(given):
        twice = sorted({int(b) for b in given if given.count(b) > 1})
        raise MeasureError(f"block {', '.join(map(str, twice))} is named twice; name each block once")
    return tuple(sorted(int(b) for b in given))
