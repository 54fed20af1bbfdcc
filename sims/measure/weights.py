"""Singular values of the weight matrices."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from sims.measure.measurement import Found, Gatherer, Job, Measurement
from sims.measure.rows import MeasurementRows
from sims.measure.summarise import singular_windows, summarise
from spectra import Estimate, Spectrum, weight_spectrum
from spectra.arrays import stored_precision


def begin(job: Job) -> Gatherer:
    """Return the gatherer that takes all matrices to the host at once, or one after the other for large models."""
    return Weights(job) if job.data.memory is None else WeightsInTurn(job)


class Weights(Gatherer):
    """Add the spectrum of every weight matrix (rows, cols) and its summaries."""

    def __init__(self, job: Job) -> None:
        self.job = job

    def found(self) -> Mapping[str, Tensor]:
        """Return the matrices: those of a toy are no larger than their Gram matrices."""
        return self.job.models.matrices

    def rows(self, sheet: MeasurementRows, found: Found) -> None:
        """Add them in the order of the model."""
        for name, matrix in found.items():
            _add(sheet, name, _spectrum(matrix))


class WeightsInTurn(Gatherer):
    """Add the same of a model whose matrices are not copied: only the Gram matrix of each leaves the device."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.spectra: dict[str, Spectrum | None] = {}

    def found(self) -> Mapping[str, Tensor]:
        """Compute the spectra one after the other."""
        self.spectra = {name: _spectrum(matrix) for name, matrix in self.job.subject.matrices.items()}
        return {}

    def rows(self, sheet: MeasurementRows, found: Found) -> None:
        """Add them in the order of the model."""
        for name, spectrum in self.spectra.items():
            _add(sheet, name, spectrum)


def _spectrum(matrix: Tensor) -> Spectrum | None:
    # Checkpoints in bfloat16 are measured in float32, and their rounding stays.
    return weight_spectrum(matrix, precision=stored_precision(matrix)) if bool(matrix.any()) else None


def _add(sheet: MeasurementRows, name: str, spectrum: Spectrum | None) -> None:
    if spectrum is None:
        sheet.row("rankme", "weight", name, Estimate.not_fitted("the matrix is still zero"))
        return
    summarise(sheet, "weight", name, spectrum, singular_windows(spectrum))


WEIGHTS = Measurement(
    "weights",
    version=2,
    meaning="singular values of every weight matrix",
    needs=frozenset({"matrices"}),
    begin=begin,
    writes=("rows", "spectra"),
    null=True,
)
