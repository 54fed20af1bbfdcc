"""Test whether the loss needs the key frequency of a band: keep only it, or remove it."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from sims.measure.band_states import BandStates
from sims.measure.measurement import Gatherer, Job, Measurement
from sims.measure.rows import MeasurementRows
from spectra import control_subspace, drop_frequencies, frequency_subspace, keep_frequencies, peak_band
from spectra.errors import InputError

CONTROLS = 4


class Causal(Gatherer):
    """Add the change of the loss in nats at the last position when the key pair is kept or removed.

    It is changed in the final state and in the band's rows of the embedding. The null is the mean over random subspaces
    of equal dimension (final state), or the same change of another frequency (embedding).
    """

    def __init__(self, job: Job) -> None:
        self.subject, self.sequences = job.subject, job.data.config.causal_sequences

    def band(self, sheet: MeasurementRows, band: BandStates) -> None:
        """Add the rows of one band; none where its states have the same representation."""
        if not band.varies:
            return
        split = band.probe.split
        generator = np.random.default_rng([split.modulus, split.offset, self.subject.step])
        tokens, final = band.probe.tokens[: self.sequences], band.states[: self.sequences]
        base = self.subject.head_losses(final, tokens[:, -1].long()).mean()
        self._final_state(sheet, band, tokens, final, base, generator)
        self._embedding(sheet, band, tokens, float(base), generator)

    def _final_state(
        self,
        sheet: MeasurementRows,
        band: BandStates,
        tokens: Tensor,
        final: Tensor,
        base: Tensor,
        generator: np.random.Generator,
    ) -> None:
        means = band.means.means
        targets, centre, key = tokens[:, -1].long(), final.mean(dim=0), peak_band(means)

        def edited(basis: np.ndarray, keep: bool) -> float:
            # basis (width, k) orthonormal; states (n, width)
            q = torch.as_tensor(basis, dtype=final.dtype, device=final.device)
            part = (final - centre) @ q @ q.T
            state = centre + part if keep else final - part
            return float(self.subject.head_losses(state, targets).mean() - base)

        subspace = frequency_subspace(means, key)
        try:
            controls = [control_subspace(means, key, generator) for _ in range(CONTROLS)]
        except InputError:
            controls = []
        for keep in (True, False):
            null = float(np.mean([edited(basis, keep) for basis in controls])) if controls else math.nan
            _row(sheet, band, "final", keep, edited(subspace, keep), null)

    def _embedding(
        self,
        sheet: MeasurementRows,
        band: BandStates,
        tokens: Tensor,
        base: float,
        generator: np.random.Generator,
    ) -> None:
        c, o = band.probe.split.modulus, band.probe.split.offset
        table, key = self.subject.matrices["embed"], peak_band(band.means.means)
        rows, targets = band.table(table), tokens[:, -1].long()
        others = [r for r in range(1, c // 2 + 1) if r not in key]

        def edited(chosen: tuple[int, ...], keep: bool) -> float:
            new = keep_frequencies(rows, chosen) if keep else drop_frequencies(rows, chosen)
            copy = table.detach().clone()
            copy[o : o + c] = torch.as_tensor(new, dtype=copy.dtype, device=copy.device)
            model = self.subject.with_matrix("embed", copy)
            return float(model.head_losses(model.last_states(tokens), targets).mean()) - base

        control = int(generator.choice(others)) if others else None
        for keep in (True, False):
            null = math.nan if control is None else edited(tuple(sorted({control, c - control})), keep)
            _row(sheet, band, "embed", keep, edited(key, keep), null)


def _row(sheet: MeasurementRows, band: BandStates, site: str, keep: bool, value: float, null: float) -> None:
    quantity = "causal_keep" if keep else "causal_drop"
    sheet.row(quantity, "probe", site, value, null=null, **band.probe.columns)


CAUSAL = Measurement(
    "causal",
    version=1,
    meaning="change of the loss when the key frequency is kept or removed",
    needs=frozenset({"bands", "matrices"}),
    begin=Causal,
    wanted=lambda config: config.causal_sequences > 0,
    null=True,
)
