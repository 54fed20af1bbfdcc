"""States of a model on the sequences of one probe band, computed once for all measurements of the band."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from torch import Tensor

from sims.measure.concentration import varies
from sims.models.subject import Subject
from sims.runs.columns import band_name
from spectra import class_means
from spectra.fourier import ClassMeans
from toymodel.tasks.modular_walk_probes import ProbeSplit


@dataclass(frozen=True, eq=False)
class Probe:
    """Sequences of one band.

    Args:
        split: sequences anchored in the band.
        known: share of the training sequences in this band; 0 for a band that tests generalisation.
        tokens: (n, T+1) the sequences on the device of the subject.
    """

    split: ProbeSplit
    known: float
    tokens: Tensor

    @property
    def columns(self) -> dict[str, Any]:
        """Columns of rows that name the band: band, regime and seen."""
        band = f"{self.split.modulus}:{self.split.offset}"
        return {"band": band, "regime": self.split.regime, "seen": self.known > 0}

    @property
    def name(self) -> str:
        """Full name: "31:20 clean seen", "97:200 matched unseen"."""
        return band_name(**self.columns)

    def states(self, subject: Subject) -> Tensor:
        """Return (n, width) final states of the last position, in the order of the sequences."""
        distinct, place = self._distinct
        return subject.last_states(distinct)[place]

    @cached_property
    def _distinct(self) -> tuple[Tensor, Tensor]:
        # Without noise a band has c² sequences; a small band repeats most of them.
        return self.tokens.unique(dim=0, return_inverse=True)


@dataclass(frozen=True, eq=False)
class BandStates:
    """One model on one probe band."""

    subject: Subject
    probe: Probe

    @cached_property
    def states(self) -> Tensor:
        """(n, width) final states of the last position."""
        return self.probe.states(self.subject)

    @cached_property
    def means(self) -> ClassMeans:
        """(c, width) means of the states by the state of the band at the last position."""
        return class_means(self.states, self.probe.split.states[:, -1], self.probe.split.modulus)

    @cached_property
    def varies(self) -> bool:
        """Whether the states of the band differ in their representation."""
        return varies(self.means.means)

    def table(self, table: Tensor) -> np.ndarray:
        """Return the (c, width) rows of the band in a (V, width) embedding or head."""
        start = self.probe.split.offset
        return table[start : start + self.probe.split.modulus].detach().cpu().double().numpy()
