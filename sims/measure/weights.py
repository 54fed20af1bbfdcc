"""Singular values of the weight matrices, and on request their exponents and the products of attention heads."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from sims.measure.measurement import Found, Gatherer, Job, Measurement
from sims.measure.rows import MeasurementRows
from sims.measure.summarise import singular_windows, summarise
from sims.measure.weight_tails import (
    farms_value,
    heads_unknown,
    product_rows,
    products_of,
    tail_rows,
    tile_of,
)
from sims.models.heads import Heads, heads_of
from sims.models.subject import Subject
from spectra import Estimate, Spectrum, weight_spectra
from spectra.arrays import stored_precisions

# Numbers of the matrices of one shape that are decomposed together (128 MB in float64).
ENTRIES = 2**24


def begin(job: Job) -> Gatherer:
    """Return the gatherer that takes all matrices to the host at once, or one after the other for large models."""
    return Weights(job) if job.data.memory is None else WeightsInTurn(job)


@dataclass(frozen=True, eq=False)
class WeightSpectra:
    """Hold the spectra of the weights of one model, as they are found; None of a matrix or product that is still zero.

    Attributes:
        matrices: of every matrix, by name.
        farms: its FARMS exponent; empty where exponents are not wanted.
        products: of the products of every attention head by site; None where the number of heads is not known.
    """

    matrices: Mapping[str, Spectrum | None]
    farms: Mapping[str, Estimate]
    products: Mapping[str, Spectrum | None] | None

    @classmethod
    def of(cls, matrices: Mapping[str, Tensor], tails: bool, heads: Heads | None) -> WeightSpectra:
        """Compute them, those of all matrices of one shape together.

        Args:
            matrices: (rows, cols) by name.
            tails: whether exponents and products are wanted.
            heads: numbers of attention heads; None where they are not known.
        """
        tile = tile_of(matrices) if tails else 0
        spectra: dict[str, Spectrum | None] = dict.fromkeys(matrices)
        farms: dict[str, Estimate] = {}
        for names, stack in _stacked(matrices):
            # Checkpoints in bfloat16 are measured in float32, and their rounding stays.
            precisions = stored_precisions(stack)
            for name, matrix, spectrum, own in zip(
                names, stack, weight_spectra(stack, precision=precisions), precisions, strict=True
            ):
                spectra[name] = spectrum
                if tails:
                    farms[name] = farms_value(matrix, tile, own, spectrum)
        return cls(spectra, farms, products_of(matrices, heads) if tails and heads is not None else None)

    def report(self, sheet: MeasurementRows, tails: bool) -> None:
        """Add the rows and spectra of the model."""
        for name, spectrum in self.matrices.items():
            if spectrum is None:
                sheet.row("rankme", "weight", name, Estimate.not_fitted("the matrix is still zero"))
                continue
            summarise(sheet, "weight", name, spectrum, singular_windows(spectrum))
            if tails:
                tail_rows(sheet, name, spectrum, self.farms[name])
        if tails and self.products is None:
            heads_unknown(sheet)
        for site, spectrum in (self.products or {}).items():
            product_rows(sheet, site, spectrum)


def weight_sheet(subject: Subject) -> MeasurementRows:
    """Return spectra, exponents and products of heads of the weights of a model; its states are not needed."""
    sheet = MeasurementRows(subject.step, subject.tokens)
    WeightSpectra.of(subject.matrices, True, heads_of(subject)).report(sheet, True)
    return sheet


def _stacked(matrices: Mapping[str, Tensor]) -> Iterator[tuple[list[str], Tensor]]:
    """Yield the matrices of each shape that are not zero, by name and as one tensor (K, rows, columns).

    Large ones come in several parts, each of at most `ENTRIES` numbers or one matrix.
    """
    alike: dict[tuple[torch.Size, torch.dtype, torch.device], list[str]] = {}
    for name, matrix in matrices.items():
        alike.setdefault((matrix.shape, matrix.dtype, matrix.device), []).append(name)
    for (shape, *_), names in alike.items():
        step = max(1, ENTRIES // math.prod(shape))
        for start in range(0, len(names), step):
            part = names[start : start + step]
            stack = matrices[part[0]][None] if len(part) == 1 else torch.stack([matrices[n] for n in part])
            moved = stack.flatten(1).any(dim=1).tolist()
            if any(moved):
                kept = [name for name, nonzero in zip(part, moved, strict=True) if nonzero]
                yield kept, stack if all(moved) else stack[moved]


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
        WeightSpectra.of(found, self.tails, self.heads).report(sheet, self.tails)


class WeightsInTurn(Weights):
    """Add the same of a model whose matrices are not copied: only their singular values leave the device."""

    def found(self) -> Mapping[str, Tensor]:
        """Compute the spectra where the matrices are."""
        self.spectra = WeightSpectra.of(self.job.subject.matrices, self.tails, self.heads)
        return {}

    def rows(self, sheet: MeasurementRows, found: Found) -> None:
        """Add them in the order of the model."""
        self.spectra.report(sheet, self.tails)


WEIGHTS = Measurement(
    "weights",
    version=3,
    meaning="singular values of every weight matrix",
    needs=frozenset({"matrices"}),
    begin=begin,
    writes=("rows", "spectra"),
    null=True,
)
