"""Fourier concentration of cyclic families of tokens in the embedding and the head of a language model."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from torch import Tensor

from sims.measure.concentration import concentration, varies
from sims.measure.measurement import Found, Gatherer, Job, Measurement
from sims.measure.rows import MeasurementRows
from sims.measure.tables import TABLES_OF_TOKENS, token_tables
from spectra.batched import effective_dimensions


class Families(Gatherer):
    """Add H_S, H_peak and the other summaries of concentration for each family's rows of the tables.

    The null is that of rows without structure, in the effective dimension of the whole table.
    """

    def __init__(self, job: Job) -> None:
        self.job = job
        self.families, self.top_k = job.data.families, job.data.config.top_k

    def found(self) -> Mapping[str, Tensor]:
        """Return the rows of each family in each table that is not all zero, and the tables' effective dimensions."""
        found = {}
        for site, table in token_tables(self.job.models).items():
            found[f"{site} dimension"] = effective_dimensions(table)
            for family in self.families:
                found[f"{site} {family.name}"] = table[:, list(family.tokens)]
        return found

    def rows(self, sheet: MeasurementRows, found: Found) -> None:
        """Add the families of each table in turn."""
        for site in TABLES_OF_TOKENS:
            for family in self.families:
                if f"{site} {family.name}" not in found:
                    continue
                rows: np.ndarray = found[f"{site} {family.name}"].double().numpy()
                if varies(rows):
                    dimension = float(found[f"{site} dimension"])
                    concentration(sheet, "table", site, rows, dimension, {"detail": family.name}, self.top_k)


FAMILIES = Measurement(
    "families",
    version=1,
    meaning="concentration of families of tokens in embedding and head",
    needs=frozenset({"families", "matrices"}),
    begin=Families,
    null=True,
)
