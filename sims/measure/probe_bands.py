"""Fourier concentration of the final states on probe bands of a toy task."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from sims.measure.band_states import Band, BandStates
from sims.measure.concentration import concentration, frequency_sets, varies
from sims.measure.measurement import Found, Gatherer, Job, Measurement
from sims.measure.rows import MeasurementRows
from sims.system.errors import MeasureError
from spectra import Estimate, h_s_debiased
from spectra.batched import effective_dimensions
from spectra.fourier import ClassMeans
from toymodel.tasks.modular_walk_probes import ProbeSplit


class ProbeBands(Gatherer):
    """Add the loss, H_S (also debiased), H_peak, Gini and component frequencies of each band."""

    def __init__(self, job: Job) -> None:
        self.top_k = job.data.config.top_k
        for probe in job.data.probes:
            _check_states(probe.split)

    def found_of_band(self, band: BandStates) -> Mapping[str, Tensor]:
        """Return loss, class means, their scatter, and the effective dimension of the states."""
        classes = band.probe.classes
        return {
            "loss": band.losses.mean(dim=1),
            "means": band.means,
            "within": band.within,
            "counts": torch.from_numpy(classes.counts).expand(len(band.states), -1),
            "dimension": effective_dimensions(band.states, classes.repeats),
        }

    def band_rows(self, sheet: MeasurementRows, band: Band, found: Found) -> None:
        """Add the rows of one band, at the last position of the final state."""
        sheet.row("loss", "probe", "final", float(found["loss"]), **band.columns)
        means = found["means"].numpy()
        if not varies(means):
            same = Estimate.not_fitted("the states of the band all have the same representation")
            sheet.row("h_peak", "probe", "final", same, **band.columns)
            return
        dimension = float(found["dimension"])
        concentration(sheet, "probe", "final", means, dimension, band.columns, self.top_k)
        classes = ClassMeans(means, found["counts"].numpy(), found["within"].numpy())
        for label, chosen, null in frequency_sets(means, dimension, self.top_k):
            sheet.row(
                "h_s_debiased",
                "probe",
                "final",
                h_s_debiased(classes, chosen),
                # Of class means without structure and without sampling noise.
                null=null.mean,
                **band.columns,
                set=label,
            )


def _check_states(split: ProbeSplit) -> None:
    """Refuse a band of which a state has, by the chance of the draw, fewer than two sequences at the last position."""
    counts = np.bincount(split.states[:, -1], minlength=split.modulus)
    if counts.min() < 2:
        raise MeasureError(
            f"state {int(counts.argmin())} of band {split.modulus}:{split.offset} has {int(counts.min())} of the "
            f"{len(split.tokens)} probe sequences at the last position, and its mean needs two; raise "
            "measure.probe_sequences"
        )


PROBE_BANDS = Measurement(
    "probe_bands",
    version=2,
    meaning="concentration of the final states on probe bands",
    needs=frozenset({"bands"}),
    begin=ProbeBands,
    null=True,
)
