"""Fourier concentration of the rows of the embedding and the head, on probe bands of a toy task."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from sims.measure.band_states import Band
from sims.measure.concentration import concentration, varies
from sims.measure.measurement import Found, Gatherer, Job, Measurement
from sims.measure.rows import MeasurementRows
from sims.models.stack import Stack
from spectra.batched import effective_dimensions

# Names of the (V, width) tables of tokens; a tied head is no table of its own.
TABLES_OF_TOKENS = ("embed", "head")


def token_tables(models: Stack) -> dict[str, Tensor]:
    """Return the (K, V, width) embedding and, where it is untied, the head."""
    return {name: models.matrices[name] for name in TABLES_OF_TOKENS if name in models.matrices}


class Tables(Gatherer):
    """Add H_S, H_peak and the other summaries of concentration for each band's rows of the tables."""

    def __init__(self, job: Job) -> None:
        self.job, self.top_k = job, job.data.config.top_k

    def found(self) -> Mapping[str, Tensor]:
        """Return the tables and their effective dimensions."""
        tables = token_tables(self.job.models)
        return {**tables, **{f"{site} dimension": effective_dimensions(t) for site, t in tables.items()}}

    def band_rows(self, sheet: MeasurementRows, band: Band, found: Found) -> None:
        """Add the rows of one band."""
        # Tables do not depend on the regime of the sequences: one regime suffices.
        if band.regime != "clean":
            return
        for site in TABLES_OF_TOKENS:
            if site not in found:
                continue
            rows = found[site][band.tokens].double().numpy()
            if varies(rows):
                dimension = float(found[f"{site} dimension"])
                concentration(sheet, "table", site, rows, dimension, band.columns, self.top_k)


TABLES = Measurement(
    "tables",
    version=1,
    meaning="concentration of a band’s rows of embedding and head",
    needs=frozenset({"bands", "matrices"}),
    begin=Tables,
    null=True,
)
