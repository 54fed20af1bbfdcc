"""Singular values of the weight matrices, and on request their exponents and the products of attention heads."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from sims.measure.initial import distance, initial_distances
from sims.measure.measurement import Found, Gatherer, Job, Measurement
from sims.measure.rows import MeasurementRows
from sims.measure.summarise import singular_windows, summarise
from sims.measure.weight_tails import (
    FOLDED,
    WEIGHT,
    ProductSpectrum,
    farms_value,
    heads_unknown,
    product_rows,
    products_of,
    tail_rows,
    tile_of,
)
from sims.models.gains import norm_gains
from sims.models.heads import Heads, heads_of
from sims.models.subject import Subject
from spectra import Estimate, Spectrum, weight_spectra
from spectra.arrays import stored_precisions

# Numbers of the matrices of one shape that are decomposed together (128 MB in float64).
ENTRIES = 2**24
# Name of the distances among what is found of the matrices.
DISTANCES = "distances from the initial weights"


def begin(job: Job) -> Gatherer:
    """Return the gatherer that takes all matrices to the host at once, or one after the other for large models."""
    return Weights(job) if job.data.memory is None else WeightsInTurn(job)


@dataclass(frozen=True, eq=False)
class MatrixSpectra:
    """Hold the spectra of matrices (None of one that is still zero), their FARMS exponents where wanted, and with which
    precision they are stored.
    """

    spectra: Mapping[str, Spectrum | None]
    farms: Mapping[str, Estimate]
    precisions: Mapping[str, float]

    @classmethod
    def of(
        cls, matrices: Mapping[str, Tensor], tile: int = 0, gains: Mapping[str, Tensor] | None = None
    ) -> MatrixSpectra:
        """Compute them, those of all matrices of one shape together.

        Args:
            matrices: (rows, cols) by name.
            tile: size of the tiles of FARMS exponents; 0 for none.
            gains: (cols,) factors of the columns by name, for matrices that are measured with them.
        """
        spectra: dict[str, Spectrum | None] = dict.fromkeys(matrices)
        farms: dict[str, Estimate] = {}
        stored: dict[str, float] = {}
        for names, stack in _stacked(matrices):
            # Checkpoints in bfloat16 are measured in float32, and their rounding stays.
            precisions = stored_precisions(stack)
            if gains is not None:
                stack = stack.double() * torch.stack([gains[name] for name in names])[:, None]
                kept = [k for k, moved in enumerate(stack.flatten(1).any(dim=1).tolist()) if moved]
                names, precisions = [names[k] for k in kept], [precisions[k] for k in kept]
                stack = stack[kept]
            if not names:
                continue
            found = weight_spectra(stack, precision=precisions)
            for name, matrix, spectrum, own in zip(names, stack, found, precisions, strict=True):
                spectra[name], stored[name] = spectrum, own
                if tile:
                    farms[name] = farms_value(matrix, tile, own, spectrum)
        return cls(spectra, farms, stored)

    def report(self, sheet: MeasurementRows, object_: str) -> None:
        """Add their rows and spectra."""
        for name, spectrum in self.spectra.items():
            if spectrum is None:
                sheet.row("rankme", object_, name, Estimate.not_fitted("the matrix is still zero"))
                continue
            summarise(sheet, object_, name, spectrum, singular_windows(spectrum))
            if name in self.farms:
                tail_rows(sheet, name, spectrum, self.farms[name], object_, self.precisions[name])


@dataclass(frozen=True, eq=False)
class WeightSpectra:
    """Hold what is measured of the weights of one model.

    Attributes:
        matrices: of every matrix.
        folded: of the matrices that read a norm with a gain, with that gain.
        products: of the products of every attention head by site; None where the number of heads is not known.
        tails: whether exponents and products are wanted.
    """

    matrices: MatrixSpectra
    folded: MatrixSpectra
    products: Mapping[str, ProductSpectrum | None] | None
    tails: bool

    @classmethod
    def of(
        cls,
        matrices: Mapping[str, Tensor],
        tails: bool,
        heads: Heads | None = None,
        gains: Mapping[str, Tensor] | None = None,
    ) -> WeightSpectra:
        """Compute them.

        Args:
            matrices: (rows, cols) by name.
            tails: whether exponents, products and matrices with gains are wanted.
            heads: numbers of attention heads; None where they are not known.
            gains: (cols,) gains of the norms that matrices read, by name of the matrix.
        """
        tile = tile_of(matrices) if tails else 0
        folded = {name: matrices[name] for name in (gains or {}) if tails and name in matrices}
        return cls(
            MatrixSpectra.of(matrices, tile),
            MatrixSpectra.of(folded, tile, gains),
            products_of(matrices, heads) if tails and heads is not None else None,
            tails,
        )

    def report(self, sheet: MeasurementRows, distances: Tensor | None = None) -> None:
        """Add the rows and spectra of the model.

        Args:
            sheet: where they are added.
            distances: (matrices,) from `initial_distances`; None where they are not known.
        """
        self.matrices.report(sheet, WEIGHT)
        self.folded.report(sheet, FOLDED)
        if distances is not None:
            for name, value in zip(self.matrices.spectra, distances.tolist(), strict=True):
                sheet.row("initial_distance", WEIGHT, name, distance(value))
        if self.tails and self.products is None:
            heads_unknown(sheet)
        for site, product in (self.products or {}).items():
            product_rows(sheet, site, product)


def weight_sheet(subject: Subject) -> MeasurementRows:
    """Return spectra, exponents and products of heads of the weights of a model; its states are not needed."""
    sheet = MeasurementRows(subject.step, subject.tokens)
    found = WeightSpectra.of(subject.matrices, True, heads_of(subject), norm_gains(subject))
    found.report(sheet, initial_distances(subject))
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
        """Return the matrices: those of a toy are no larger than their Gram matrices. Its norms have no gains."""
        models = self.job.models
        distances = [initial_distances(member) for member in models.members] if self.tails else [None]
        known = [own for own in distances if own is not None]
        moved = {DISTANCES: torch.stack(known)} if len(known) == len(distances) else {}
        return {**models.matrices, **moved}

    def rows(self, sheet: MeasurementRows, found: Found) -> None:
        """Add them in the order of the model."""
        matrices = {name: x for name, x in found.items() if name != DISTANCES}
        WeightSpectra.of(matrices, self.tails, self.heads).report(sheet, found.get(DISTANCES))


class WeightsInTurn(Weights):
    """Add the same of a model whose matrices are not copied: only their singular values leave the device."""

    def found(self) -> Mapping[str, Tensor]:
        """Compute the spectra where the matrices are."""
        subject = self.job.subject
        gains = norm_gains(subject) if self.tails else None
        self.spectra = WeightSpectra.of(subject.matrices, self.tails, self.heads, gains)
        distances = initial_distances(subject) if self.tails else None
        return {} if distances is None else {DISTANCES: distances[None]}

    def rows(self, sheet: MeasurementRows, found: Found) -> None:
        """Add them in the order of the model."""
        self.spectra.report(sheet, found.get(DISTANCES))


WEIGHTS = Measurement(
    "weights",
    version=4,
    meaning="singular values of every weight matrix",
    needs=frozenset({"matrices"}),
    begin=begin,
    null=True,
)
