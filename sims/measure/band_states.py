"""States of models on the sequences of one probe band, computed once for all measurements of the band."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from sims.models.stack import Stack
from sims.runs.columns import band_name
from spectra.batched import StateClasses
from toymodel.tasks.modular_walk_probes import ProbeSplit


@dataclass(frozen=True)
class Band:
    """Name a probe band.

    Args:
        c, o: modulus and offset.
        regime: "clean" or "matched".
        known: share of the training sequences in this band; 0 for a band that tests generalisation.
    """

    c: int
    o: int
    regime: str
    known: float

    @property
    def columns(self) -> dict[str, Any]:
        """Columns of rows that name the band: band, regime and seen."""
        return {"band": f"{self.c}:{self.o}", "regime": self.regime, "seen": self.known > 0}

    @property
    def name(self) -> str:
        """Full name: "31:20 clean seen", "97:200 matched unseen"."""
        return band_name(**self.columns)

    @property
    def tokens(self) -> slice:
        """The rows of the band in a table of all tokens."""
        return slice(self.o, self.o + self.c)


@dataclass(frozen=True, eq=False)
class Probe:
    """Sequences of one band.

    Args:
        split: sequences anchored in the band.
        known: share of the training sequences in this band; 0 for a band that tests generalisation.
        tokens: (n, T+1) the sequences on the device of the models.
    """

    split: ProbeSplit
    known: float
    tokens: Tensor

    @property
    def band(self) -> Band:
        """The band without its sequences."""
        return Band(self.split.modulus, self.split.offset, self.split.regime, self.known)

    @property
    def name(self) -> str:
        """Full name of the band."""
        return self.band.name

    @cached_property
    def distinct(self) -> Tensor:
        """(u, T+1) the different sequences: without noise a band has c² of them, and a small one repeats most."""
        return self._distinct[0][:, :-1].to(self.tokens.dtype)

    @cached_property
    def place(self) -> Tensor:
        """(n,) index in `distinct` of each sequence."""
        return self._distinct[1]

    @cached_property
    def classes(self) -> StateClasses:
        """The states of the band at the last position of the distinct sequences.

        Raises:
            InputError: a state without sequences.
        """
        rows, _, repeats = self._distinct
        return StateClasses(rows[:, -1], self.split.modulus, repeats)

    def first(self, count: int) -> tuple[Tensor, Tensor]:
        """Return the distinct ones (indices in `distinct`) among the first sequences, and the place of each there."""
        if count not in self._firsts:
            self._firsts[count] = self.place[:count].unique(return_inverse=True)
        return self._firsts[count]

    @cached_property
    def _firsts(self) -> dict[int, tuple[Tensor, Tensor]]:
        return {}

    @cached_property
    def _distinct(self) -> tuple[Tensor, Tensor, Tensor]:
        # With noise the tokens do not show the state: sequences are the same where both are.
        states = torch.tensor(self.split.states[:, -1:], device=self.tokens.device)
        rows = torch.cat([self.tokens.long(), states.long()], dim=1)
        return torch.unique(rows, dim=0, return_inverse=True, return_counts=True)


@dataclass(frozen=True, eq=False)
class BandStates:
    """Models on one probe band.

    Args:
        models: K of them.
        probe: the band.
        states: (K, u, width) final states of the last position of `probe.distinct`.
    """

    models: Stack
    probe: Probe
    states: Tensor

    @cached_property
    def losses(self) -> Tensor:
        """(K, n) losses at the last position of every sequence."""
        return self.models.head_losses(self.states, self.probe.distinct[:, -1].long())[:, self.probe.place]

    @cached_property
    def means(self) -> Tensor:
        """(K, c, width) float64 means of the states by the state of the band at the last position."""
        return self._averages[0]

    @cached_property
    def within(self) -> Tensor:
        """(K, c) traces of the covariance within each state."""
        return self._averages[1]

    @cached_property
    def _averages(self) -> tuple[Tensor, Tensor]:
        return self.probe.classes.means(self.states)
