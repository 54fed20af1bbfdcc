"""The cumulative stages. A new stage is one file and one entry in `_CHAIN`.

`STAGES` are the four of the paper's toy evidence, which a demo, a report or an analysis takes by default. `CHAIN` has
all of them, in order; `BESIDE` has networks that are no part of it. `stage` finds every one.
"""

from __future__ import annotations

from toymodel.errors import ConfigError
from toymodel.stages.attn_scale import ATTN_SCALE
from toymodel.stages.base import Stage
from toymodel.stages.baseline import BASELINE
from toymodel.stages.fixed_window import FIXED_WINDOW
from toymodel.stages.flex_window import FLEX_WINDOW
from toymodel.stages.long_short import LONG_SHORT
from toymodel.stages.mlp import MLP
from toymodel.stages.muon import MUON
from toymodel.stages.rope import ROPE
from toymodel.stages.softcap import SOFTCAP
from toymodel.stages.sparse_embed import SPARSE_EMBED
from toymodel.stages.truncated_rope import TRUNCATED_ROPE
from toymodel.stages.unet import UNET
from toymodel.stages.untied import UNTIED
from toymodel.stages.value_embed import VALUE_EMBED
from toymodel.stages.value_mix import VALUE_MIX

_CORE = (BASELINE, ROPE, MUON, UNTIED)
_CHAIN = (
    *_CORE,
    VALUE_MIX,
    UNET,
    FIXED_WINDOW,
    FLEX_WINDOW,
    VALUE_EMBED,
    SPARSE_EMBED,
    TRUNCATED_ROPE,
    SOFTCAP,
    LONG_SHORT,
    ATTN_SCALE,
)

STAGES: dict[str, Stage] = {s.name: s for s in _CORE}
CHAIN: dict[str, Stage] = {s.name: s for s in _CHAIN}
BESIDE: dict[str, Stage] = {MLP.name: MLP}


def stage(name: str) -> Stage:
    """Return the stage of that name; ConfigError names the known ones.

    >>> stage("rope").parent
    'baseline'
    """
    if name in BESIDE:
        return BESIDE[name]
    if name not in CHAIN:
        raise ConfigError(f"unknown stage {name!r}; the stages are {', '.join([*CHAIN, *BESIDE])}")
    return CHAIN[name]


__all__ = ["BESIDE", "CHAIN", "STAGES", "Stage", "stage"]
