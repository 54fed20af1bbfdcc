"""Test whether the loss needs the key frequency of a band: keep only it, or remove it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from sims.measure.band_states import Band, BandStates
from sims.measure.concentration import varies
from sims.measure.measurement import Found, Gatherer, Job, Measurement
from sims.measure.rows import MeasurementRows
from sims.measure.transfer import to_device
from spectra import drop_frequencies, frequency_subspace, keep_frequencies, peak_band
from spectra.errors import InputError
from spectra.subspaces import control_subspaces

CONTROLS = 4


class Edits(NamedTuple):
    """What is edited in one model for one band.

    Args:
        bases: (1 + CONTROLS, width, 2) the key subspace and its controls, padded by zeros.
        rows: (4, c, width) the band's rows of the embedding: key kept, key removed, another frequency kept, removed.
        controlled: whether there are control subspaces, and another frequency.
    """

    bases: np.ndarray
    rows: np.ndarray
    controlled: tuple[bool, bool]


class Causal(Gatherer):
    """Add the change of the loss in nats at the last position when the key pair is kept or removed.

    It is changed in the final state and in the band's rows of the embedding. The null is the mean over random subspaces
    of equal dimension (final state), or the same change of another frequency (embedding).
    """

    def __init__(self, job: Job) -> None:
        self.job, self.sequences = job, job.data.config.causal_sequences

    def found_of_band(self, band: BandStates) -> Mapping[str, Tensor]:
        """Return class means, the band's rows of the embedding, and the loss without changes."""
        return {
            "means": band.means,
            "embedding": self.job.models.matrices["embed"][:, band.probe.band.tokens],
            "base": band.losses[:, : self.sequences].mean(dim=1),
        }

    def tested(self, band: BandStates, found: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Return the losses after each change."""
        c, o, step = band.probe.split.modulus, band.probe.split.offset, self.job.subject.step
        pairs = zip(found["means"], found["embedding"], strict=True)
        # The same draws for every model, whoever is measured beside it.
        edits = [
            _edits(means.numpy(), rows.double().numpy(), np.random.default_rng([c, o, step]))
            for means, rows in pairs
        ]
        return {
            "final": self._final_losses(band, np.stack([own.bases for own in edits])),
            "embed": self._embed_losses(band, np.stack([own.rows for own in edits])),
            "controlled": torch.tensor([own.controlled for own in edits]),
        }

    def _final_losses(self, band: BandStates, bases: np.ndarray) -> Tensor:
        """Return losses (K, 1 + CONTROLS, 2) with each subspace kept and removed in the final state."""
        place = band.probe.place[: self.sequences]
        states = band.states[:, place]  # (K, m, width)
        q = to_device(bases, states)
        centre = states.mean(dim=1, keepdim=True)
        part = (states - centre)[:, None] @ q @ q.mT  # (K, 1 + CONTROLS, m, width)
        edited = torch.stack([centre[:, None] + part, states[:, None] - part], dim=2)
        targets = band.probe.distinct[place, -1].long()
        shape = edited.shape[:4]
        losses = self.job.models.head_losses(edited.flatten(1, 3), targets.repeat(shape[1] * shape[2]))
        return losses.view(shape).mean(dim=3)

    def _embed_losses(self, band: BandStates, rows: np.ndarray) -> Tensor:
        """Return losses (K, 4) with the band's rows of the embedding replaced by each of (K, 4, c, width)."""
        table = self.job.models.matrices["embed"].detach()
        tables = table[:, None].repeat(1, rows.shape[1], 1, 1)
        tables[:, :, band.probe.band.tokens] = to_device(rows, table)
        models = self.job.models.edited("embed", tables)
        which, place = band.probe.first(self.sequences)
        sequences = band.probe.distinct[which]
        losses = models.head_losses(models.last_states(sequences), sequences[:, -1].long())
        return losses[:, place].mean(dim=1).view(rows.shape[:2])

    def band_rows(self, sheet: MeasurementRows, band: Band, found: Found) -> None:
        """Add the rows of one band; none where its states have the same representation."""
        if not varies(found["means"].numpy()):
            return
        subspaces, others = found["controlled"].tolist()
        base = found["base"]
        for kept, quantity in enumerate(("causal_keep", "causal_drop")):
            key, *controls = (found["final"][:, kept] - base).tolist()
            null = float(np.mean(controls)) if subspaces else math.nan
            sheet.row(quantity, "probe", "final", key, null=null, **band.columns)
        for kept, quantity in enumerate(("causal_keep", "causal_drop")):
            key, control = (float(found["embed"][kept + shift]) - float(base) for shift in (0, 2))
            sheet.row(quantity, "probe", "embed", key, null=control if others else math.nan, **band.columns)


def _edits(means: np.ndarray, rows: np.ndarray, generator: np.random.Generator) -> Edits:
    """Return the changes of one model; none where its (c, width) means are the same."""
    bases = np.zeros((1 + CONTROLS, means.shape[1], 2))
    if not varies(means):
        return Edits(bases, np.stack([rows] * 4), (False, False))
    c, key = len(means), peak_band(means)
    subspace = frequency_subspace(means, key)
    try:
        controls = control_subspaces(means, key, generator, CONTROLS)
    except InputError:
        controls = []
    for place, basis in enumerate([subspace, *controls]):
        bases[place, :, : basis.shape[1]] = basis
    others = [r for r in range(1, c // 2 + 1) if r not in key]
    sets = [key]
    if others:
        control = int(generator.choice(others))
        sets.append(tuple(sorted({control, c - control})))
    edited = [change(rows, chosen) for chosen in sets for change in (keep_frequencies, drop_frequencies)]
    return Edits(bases, np.stack((edited * 2)[:4]), (bool(controls), bool(others)))


CAUSAL = Measurement(
    "causal",
    version=2,
    meaning="change of the loss when the key frequency is kept or removed",
    needs=frozenset({"bands", "matrices"}),
    begin=Causal,
    wanted=lambda config: config.causal_sequences > 0,
    null=True,
)
