"""Stage 9: every block mixes its values with a learned vector a token, in place of the first block's values.

    v_l ← (1 − λ_l)·v_l + λ_l·E_l[token]       λ_l = 1/2 at the start, E_l (V, d) from N(0, 1), one table a block

The tables are updated as the token embedding is, by AdamW at the base learning rate; so are the λ. Not
normalised, as in the language model's code, which is the only source of this stage: the published toy does not
have it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from toymodel.parameter_spec import ParameterSpec, scalars
from toymodel.sizes import Sizes
from toymodel.stages.base import Params
from toymodel.stages.flex_window import FLEX_WINDOW
from toymodel.stages.value_mix import convex

if TYPE_CHECKING:
    from torch import Tensor


def table(index: int, sizes: Sizes) -> ParameterSpec:
    """Describe a (V, d) table with a vector for each token."""
    return ParameterSpec(f"value_embed.{index}", (sizes.vocab, sizes.d), "embedding", "normal")


@dataclass(frozen=True)
class TokenValues:
    """Take (1 − λ)v + λE[token]."""

    def specs(self, sizes: Sizes) -> tuple[ParameterSpec, ...]:
        """Return a table and λ for each block."""
        blocks = range(sizes.layers)
        tables = tuple(table(layer, sizes) for layer in blocks)
        return tables + tuple(scalars(f"blocks.{layer}.attn.value_mix", 0.5) for layer in blocks)

    def mix(self, sizes: Sizes, params: Params, tokens: Tensor, values: Sequence[Tensor]) -> Tensor:
        """Return the values of the block, mixed with those of its table."""
        from toymodel.elementwise import blend
        from toymodel.lookup import look_up

        layer = len(values) - 1
        looked_up = look_up(params[f"value_embed.{layer}"], tokens)
        return blend(convex(params[f"blocks.{layer}.attn.value_mix"]), values[-1], looked_up)


VALUE_EMBED = FLEX_WINDOW.then(
    "value_embed",
    "values mixed with a learned vector a token and block, not with the first block's",
    values=TokenValues(),
)
