"""Stage 3: hidden matrices by Muon, everything else by AdamW with weight decay 0.01."""

from __future__ import annotations

from toymodel.stages.base import Routing
from toymodel.stages.rope import ROPE

MUON = ROPE.then(
    "muon",
    "hidden matrices by Muon (50 × base lr); the rest AdamW with weight decay 0.01",
    routing=Routing(muon=("hidden",), weight_decay=0.01),
)
