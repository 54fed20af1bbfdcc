"""Singular values of the weight matrices, and on request their exponents and the products of attention heads."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from sims.measure.measurement import Found, Gatherer, Job, Measurement
from sims.measure.rows import MeasurementRows
from sims.measure.summarise import singular_windows, summarise
from sims.measure.weight_tails import farms_of, heads_unknown, product_rows, products_of, tail_rows, tile_of
from sims.models.heads import heads_of
from spectra import Estimate, Spectrum, weight_spectrum
from spectra.arrays import stored_precision


def begin(job: Job) -> Gatherer:
    """Return the gatherer that takes all matrices to the host at once, or one after the other for large models."""
    return Weights(job) if job.data.memory is None else WeightsInTurn(job)


class Weights(Gatherer):
    """Add the spectrum of every weight matrix (rows, cols) and its summaries."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.tails: bool = job.data.config.tails
        self.heads = heads_of(job.subject) if self.tails else None

    def found(self) -> Mapping[str, Tensor]:
        """Return the matrices: those of a toy are no larger than their Gram matrices."""
        return self.job.models.matrices

    def rows(self, sheet: MeasurementRows, found: Found) -> None:
        """Add them in the order of the model."""
        self.report(sheet, *self.computed(found))

    def computed(
        self, matrices: Mapping[str, Tensor]
    ) -> tuple[dict[str, Spectrum | None], dict[str, Estimate], dict[str, Spectrum | None]]:
        """Return spectra and FARMS exponents by matrix, and spectra of products by site; None of what is still zero."""
        tile = tile_of(matrices) if self.tails else 0
        spectra: dict[str, Spectrum | None] = {}
        tails: dict[str, Estimate] = {}
        for name, matrix in matrices.items():
            if not bool(matrix.any()):
                spectra[name] = None
                continue
            # Checkpoints in bfloat16 are measured in float32, and their rounding stays.
            spectra[name] = weight_spectrum(matrix, precision=stored_precision(matrix))
            if self.tails:
                tails[name] = farms_of(matrix, tile)
        return spectra, tails, {} if self.heads is None else products_of(matrices, self.heads)

    def report(
        self,
        sheet: MeasurementRows,
        spectra: Mapping[str, Spectrum | None],
        tails: Mapping[str, Estimate],
        products: Mapping[str, Spectrum | None],
    ) -> None:
        """Add the rows of what `computed` returned."""
        for name, spectrum in spectra.items():
            if spectrum is None:
                sheet.row("rankme", "weight", name, Estimate.not_fitted("the matrix is still zero"))
                continue
            summarise(sheet, "weight", name, spectrum, singular_windows(spectrum))
            if self.tails:
                tail_rows(sheet, name, spectrum, tails[name])
        for site, spectrum in products.items():
            product_rows(sheet, site, spectrum)
        if self.tails and self.heads is None:
            heads_unknown(sheet)


class WeightsInTurn(Weights):
    """Add the same of a model whose matrices are not copied: only the Gram matrix of each leaves the device."""

    def found(self) -> Mapping[str, Tensor]:
        """Compute the spectra one after the other."""
        self.done = self.computed(self.job.subject.matrices)
        return {}

    def rows(self, sheet: MeasurementRows, found: Found) -> None:
        """Add them in the order of the model."""
        self.report(sheet, *self.done)


WEIGHTS = Measurement(
    "weights",
    version=2,
    meaning="singular values of every weight matrix",
    needs=frozenset({"matrices"}),
    begin=begin,
    writes=("rows", "spectra"),
    null=True,
)
