"""Cut the products W_qᵀW_k and W_oW_v of single attention heads out of the matrices of a model."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from sims.models.cuts import Family

# Product → the two matrices that it is made of; the site of head 3 of block 0 is blocks.0.attn.qk.3.
QK, OV = "qk", "ov"
_PARTS = {QK: ("q", "k"), OV: ("o", "v")}


@dataclass(frozen=True)
class Heads:
    """Number the attention heads of a model.

    Args:
        queries: heads of q, and of o.
        keys: heads of k and v, each of which queries/keys heads share.

    >>> Heads(8, 2).shared
    4
    """

    queries: int
    keys: int

    @property
    def shared(self) -> int:
        """Return how many heads have one k and v."""
        return self.queries // self.keys


@dataclass(frozen=True, eq=False)
class HeadProduct:
    """A product of two matrices of one head, as (n, r) times (r, d) with r the width of the head.

    Args:
        site: blocks.L.attn.qk.H or blocks.L.attn.ov.H.
        left: W_qᵀ, or columns of W_o.
        right: W_k, or W_v.
    """

    site: str
    left: Tensor
    right: Tensor


def heads_of(subject: Any) -> Heads | None:
    """Return the numbers of attention heads of a subject; None where neither its code nor its record says them.

    Args:
        subject: a `Subject`, or a watched model.
    """
    family = Family.of(getattr(getattr(subject, "model", None), "config", None))
    queries, keys = family.heads, family.kv_heads
    if queries is None:
        known = subject.about.get("heads")
        queries = keys = known if isinstance(known, int) and not isinstance(known, bool) else None
    if queries is None or keys is None or keys < 1 or queries % keys:
        return None
    return Heads(queries, keys)


def head_products(matrices: Mapping[str, Tensor], heads: Heads) -> Iterator[HeadProduct]:
    """Yield the products of every head whose matrices are all there and can be cut into heads.

    With rotary positions W_qᵀW_k is what a head computes between equal positions. Biases are left out, and so are norms
    of q and k, with which a head does not compute this product: q and k are then fixed but for rotations and a scale.

    Args:
        matrices: (out, in) by name; those of attention are named blocks.L.attn.q, k, v and o.
        heads: their number.
    """
    for name in list(matrices):
        found = re.fullmatch(r"(.*\.attn\.)q", name)
        if not found:
            continue
        for product, parts in _PARTS.items():
            names = [found[1] + part for part in parts]
            if all(own in matrices for own in names):
                first, second = (matrices[own] for own in names)
                yield from _products(f"{found[1]}{product}", first, second, heads)


def _products(stem: str, first: Tensor, second: Tensor, heads: Heads) -> Iterator[HeadProduct]:
    """Yield the products of q or o with k or v."""
    own = first if stem.endswith(QK) else first.T  # (heads·r, d)
    if own.shape[0] % heads.queries or second.shape[0] % heads.keys:
        return
    cut, others = own.chunk(heads.queries), second.chunk(heads.keys)
    if cut[0].shape[0] != others[0].shape[0]:
        return
    for head, part in enumerate(cut):
        yield HeadProduct(f"{stem}.{head}", part.T, others[head // heads.shared])
