"""Fourier concentration of cyclic families of tokens in the embedding and the head of a language model."""

from __future__ import annotations

import numpy as np

from sims.measure.concentration import concentration
from sims.measure.measurement import Gatherer, Job, Measurement
from sims.measure.rows import MeasurementRows
from sims.measure.tables import token_tables
from spectra import covariance_spectrum
from spectra.nulls.concentration import effective_dimension


class Families(Gatherer):
    """Add H_S, H_peak and the other summaries of concentration for each family's rows of the tables.

    The null is that of rows without structure, in the effective dimension of the whole table.
    """

    def __init__(self, job: Job) -> None:
        self.tables = token_tables(job.subject)
        self.families, self.top_k = job.data.families, job.data.config.top_k

    def rows(self, sheet: MeasurementRows) -> None:
        """Add the families of each table in turn."""
        for site, table in self.tables.items():
            if not bool(table.any()):
                continue
            dimensions = effective_dimension(covariance_spectrum(table))
            for family in self.families:
                rows: np.ndarray = table[list(family.tokens)].detach().cpu().double().numpy()
                if np.ptp(rows, axis=0).any():
                    concentration(sheet, "table", site, rows, dimensions, {"detail": family.name}, self.top_k)


FAMILIES = Measurement(
    "families",
    version=1,
    meaning="concentration of families of tokens in embedding and head",
    needs=frozenset({"families", "matrices"}),
    begin=Families,
    null=True,
)
