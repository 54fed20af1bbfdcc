"""Fourier concentration of the final states on probe bands of a toy task."""

from __future__ import annotations

from sims.measure.band_states import BandStates
from sims.measure.concentration import concentration, frequency_sets
from sims.measure.measurement import Gatherer, Job, Measurement
from sims.measure.rows import MeasurementRows
from spectra import Estimate, covariance_spectrum, h_s_debiased
from spectra.nulls.concentration import effective_dimension


class ProbeBands(Gatherer):
    """Add the loss, H_S (also debiased), H_peak, Gini and component frequencies of each band."""

    def __init__(self, job: Job) -> None:
        self.subject, self.top_k = job.subject, job.data.config.top_k

    def band(self, sheet: MeasurementRows, band: BandStates) -> None:
        """Add the rows of one band, at the last position of the final state."""
        probe, states = band.probe, band.states
        loss = self.subject.head_losses(states, probe.tokens[:, -1].long()).mean()
        sheet.row("loss", "probe", "final", float(loss), **probe.columns)
        if not band.varies:
            same = Estimate.not_fitted("the states of the band all have the same representation")
            sheet.row("h_peak", "probe", "final", same, **probe.columns)
            return
        means = band.means
        dimensions = effective_dimension(covariance_spectrum(states))
        concentration(sheet, "probe", "final", means.means, dimensions, probe.columns, self.top_k)
        for label, chosen, _ in frequency_sets(means.means, 1, self.top_k):
            sheet.row(
                "h_s_debiased",
                "probe",
                "final",
                h_s_debiased(means, chosen),
                null=len(chosen) / (probe.split.modulus - 1),
                **probe.columns,
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
