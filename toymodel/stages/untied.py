"""Stage 4: a separate head, zero at the start, and RMSNorm right after the embedding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from toymodel.parameter_spec import ParameterSpec
from toymodel.sizes import Sizes
from toymodel.stages.base import Params
from toymodel.stages.muon import MUON

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class UntiedHead:
    """Learn a separate (V, d) head that starts at zero: the loss starts at exactly ln V."""

    def specs(self, sizes: Sizes) -> tuple[ParameterSpec, ...]:
        """Return the head."""
        return (ParameterSpec("head", (sizes.vocab, sizes.d), "head", "zeros"),)

    def weight(self, params: Params) -> Tensor:
        """Return the head."""
        return params["head"]


UNTIED = MUON.then(
    "untied",
    "a separate zero-initialised head; RMSNorm after the embedding",
    head=UntiedHead(),
    embedding_norm=True,
)
