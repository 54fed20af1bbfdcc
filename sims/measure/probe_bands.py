"""Fourier concentration of the final states on probe bands of a toy task."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from sims.measure.band_states import Band, BandStates
from sims.measure.concentration import concentration, frequency_sets, varies
from sims.measure.measurement import Found, Gatherer, Job, Measurement
from sims.measure.rows import MeasurementRows
from spectra import Estimate, h_s_debiased
from spectra.batched import effective_dimensions
from spectra.fourier import ClassMeans


class ProbeBands(Gatherer):
    """Add the loss, H_S (also debiased), H_peak, Gini and component frequencies of each band."""

    def __init__(self, job: Job) -> None:
        self.top_k = job.data.config.top_k

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
        concentration(sheet, "probe", "final", means, float(found["dimension"]), band.columns, self.top_k)
        classes = ClassMeans(means, found["counts"].numpy(), found["within"].numpy())
        for label, chosen, _ in frequency_sets(means, 1, self.top_k):
            sheet.row(
                "h_s_debiased",
                "probe",
                "final",
                h_s_debiased(classes, chosen),
                null=len(chosen) / (band.c - 1),
                **band.columns,
                set=label,
            )


PROBE_BANDS = Measurement(
    "probe_bands",
    version=1,
    meaning="concentration of the final states on probe bands",
    needs=frozenset({"bands"}),
    begin=ProbeBands,
    null=True,
)
