"""Singular values of the weight matrices."""

from __future__ import annotations

from sims.measure.measurement import Gatherer, Job, Measurement
from sims.measure.rows import MeasurementRows
from sims.measure.summarise import singular_windows, summarise
from spectra import Estimate, weight_spectrum
from spectra.arrays import stored_precision


class Weights(Gatherer):
    """Add the spectrum of every weight matrix (rows, cols) and its summaries."""

    def __init__(self, job: Job) -> None:
        self.matrices = job.subject.matrices

    def rows(self, sheet: MeasurementRows) -> None:
        """Add them in the order of the model."""
        for name, matrix in self.matrices.items():
            if not bool(matrix.any()):
                sheet.row("rankme", "weight", name, Estimate.not_fitted("the matrix is still zero"))
                continue
            # Checkpoints in bfloat16 are measured in float32, and their rounding stays.
            spectrum = weight_spectrum(matrix, precision=stored_precision(matrix))
            summarise(sheet, "weight", name, spectrum, singular_windows(spectrum))


WEIGHTS = Measurement(
    "weights",
    version=1,
    meaning="singular values of every weight matrix",
    needs=frozenset({"matrices"}),
    begin=Weights,
    writes=("rows", "spectra"),
    null=True,
)
