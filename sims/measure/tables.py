"""Fourier concentration of the rows of the embedding and the head, on probe bands of a toy task."""

from __future__ import annotations

from torch import Tensor

from sims.measure.band_states import BandStates
from sims.measure.concentration import concentration, varies
from sims.measure.measurement import Gatherer, Job, Measurement
from sims.measure.rows import MeasurementRows
from sims.models.subject import Subject
from spectra import covariance_spectrum
from spectra.nulls.concentration import effective_dimension


def token_tables(subject: Subject) -> dict[str, Tensor]:
    """Return the (V, width) embedding and, where it is untied, the head."""
    tables = {"embed": subject.matrices["embed"]}
    if "head" in subject.matrices:
        tables["head"] = subject.head
    return tables


class Tables(Gatherer):
    """Add H_S, H_peak and the other summaries of concentration for each band's rows of the tables."""

    def __init__(self, job: Job) -> None:
        self.tables, self.top_k = token_tables(job.subject), job.data.config.top_k

    def band(self, sheet: MeasurementRows, band: BandStates) -> None:
        """Add the rows of one band."""
        # Tables do not depend on the regime of the sequences: one regime suffices.
        if band.probe.split.regime != "clean":
            return
        for site, table in self.tables.items():
            rows = band.table(table)
            if varies(rows):
                dimensions = effective_dimension(covariance_spectrum(table))
                concentration(sheet, "table", site, rows, dimensions, band.probe.columns, self.top_k)


TABLES = Measurement(
    "tables",
    version=1,
    meaning="concentration of a band’s rows of embedding and head",
    needs=frozenset({"bands", "matrices"}),
    begin=Tables,
    null=True,
)
