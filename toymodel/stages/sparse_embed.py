"""Stage 10: few tables of token values, shared between the first and the last blocks, with free weights.

    v_l ← a_l·v_l + b_l·E_k[token]     in the first n blocks (k = l) and the last n (k = l − (L − n))
    v_l ← a_l·v_l                      in the blocks between

with n = max(1, ⌊L/4⌋) tables E_k (V, d) from N(0, 1) and a_l = b_l = 1/2 at the start: 3 tables for the 12
layers of the language model, which is the only source. In two layers no block lies between, and what is left of
the stage is one table for both blocks and weights that need not sum to 1. The language model also drops the
attention of block ⌊L/2⌋ + 1 here; two layers have no such block, and with one attention of two gone it would be
another experiment: both stay.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from toymodel.parameter_spec import ParameterSpec, scalars
from toymodel.sizes import Sizes
from toymodel.stages.base import Params
from toymodel.stages.value_embed import VALUE_EMBED, table

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class SparseTokenValues:
    """Take av + bE[token] in the outer blocks, av in the inner ones."""

    def specs(self, sizes: Sizes) -> tuple[ParameterSpec, ...]:
        """Return the tables, then (a, b) of every outer block and a of every inner one."""
        places = table_of_block(sizes.layers)
        tables = tuple(table(k, sizes) for k in range(max(k for k in places if k is not None) + 1))
        weights = (
            scalars(_name(layer), *([0.5] if k is None else [0.5, 0.5])) for layer, k in enumerate(places)
        )
        return tables + tuple(weights)

    def mix(self, sizes: Sizes, params: Params, tokens: Tensor, values: Sequence[Tensor]) -> Tensor:
        """Return the values of the block, mixed with those of its table if it has one."""
        from toymodel.elementwise import blend
        from toymodel.lookup import look_up

        layer = len(values) - 1
        k, weights = table_of_block(sizes.layers)[layer], params[_name(layer)]
        if k is None:
            return values[-1] * weights.view(-1, 1, 1, 1)
        return blend(weights, values[-1], look_up(params[f"value_embed.{k}"], tokens))


def table_of_block(layers: int) -> list[int | None]:
    """Return the table that each block reads, None for none.

    >>> table_of_block(4)
    [0, None, None, 0]
    """
    n = max(1, layers // 4)
    return [
        layer if layer < n else layer - (layers - n) if layer >= layers - n else None
        for layer in range(layers)
    ]


def _name(layer: int) -> str:
    return f"blocks.{layer}.attn.value_weights"


SPARSE_EMBED = VALUE_EMBED.then(
    "sparse_embed",
    "one table of token values for the first and the last block; free weights",
    values=SparseTokenValues(),
)
