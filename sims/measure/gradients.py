"""Spectra of the M×P matrices of per-sample gradients, uncentred, one for each weight matrix."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from sims.measure.gradient_blocks import gradient_grams, plan_blocks
from sims.measure.measurement import Found, Gatherer, Job, Measurement
from sims.measure.rows import MeasurementRows
from sims.measure.summarise import singular_windows, summarise
from spectra import Estimate, gram_spectrum
from spectra.arrays import machine_epsilon
from spectra.batched import stacked_gradient_grams


class Gradients(NamedTuple):
    """Describe the gradients of one matrix: P, the entries of one of them, and the machine epsilon of its numbers."""

    size: int
    precision: float

    @classmethod
    def of(cls, matrix: Tensor) -> Gradients:
        """Return what holds of the gradients of a matrix."""
        return cls(matrix.numel(), machine_epsilon(matrix))


def begin(job: Job) -> Gatherer:
    """Return the gatherer for all sequences at once, or for blocks of them within the memory that there is."""
    if job.data.memory is None:
        return WholeGradients(job)
    return BlockedGradients(job, job.data.memory)


class WholeGradients(Gatherer):
    """Capture the gradients of all sequences in one backward pass."""

    def __init__(self, job: Job) -> None:
        self.job = job
        names = job.data.gradient_matrices(job.subject)
        self.gradients = {name: Gradients.of(job.subject.matrices[name]) for name in names}

    def found(self) -> Mapping[str, Tensor]:
        """Return the (K, M, M) inner products of each matrix's gradients."""
        job = self.job
        factors = job.models.gradient_factors(job.data.gradient_sequences(), list(self.gradients))
        return {name: stacked_gradient_grams(*own) for name, own in factors.items()}

    def rows(self, sheet: MeasurementRows, found: Found) -> None:
        """Add the matrices in the order of the model."""
        _add_all(sheet, found, self.gradients)


class BlockedGradients(Gatherer):
    """Fill in the (M, M) Gram matrix of each weight's gradients, pair of blocks by pair."""

    def __init__(self, job: Job, memory: float) -> None:
        self.job = job
        self.names = job.data.gradient_matrices(job.subject)
        self.gradients = {name: Gradients.of(job.subject.matrices[name]) for name in self.names}
        sequences = job.data.gradient_sequences()
        # Refused here, before the pass over the sequences, where even one sequence does not fit.
        self.blocks = plan_blocks(job.subject, sequences, self.names, memory)
        self.pairs = 0
        samples = len(sequences)
        self.grams = {name: torch.zeros(samples, samples, dtype=torch.float64) for name in self.names}

    def pieces(self) -> Iterator[tuple[int, int]]:
        """Compare the remaining pairs of this rank."""
        sequences, job = self.job.data.gradient_sequences(), self.job
        grams = gradient_grams(
            job.subject, sequences, self.names, self.blocks, job.ranks, self.grams, self.pairs
        )
        for done, total in grams:
            self.pairs = done
            yield done, total

    def merge(self) -> None:
        """Add the Gram matrices of all ranks; each entry was computed by one of them."""
        self.grams = {name: self.job.ranks.sum(gram) for name, gram in self.grams.items()}

    def found(self) -> Mapping[str, Tensor]:
        """Return the Gram matrices of the one model."""
        return {name: gram[None] for name, gram in self.grams.items()}

    def rows(self, sheet: MeasurementRows, found: Found) -> None:
        """Add the matrices in the order of the model."""
        _add_all(sheet, found, self.gradients)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the pairs done, the sequences of a block, and the Gram matrices."""
        state = {"pairs": torch.tensor(self.pairs), "held": torch.tensor(self.blocks.held)}
        return state | ({f"gram.{n}": gram for n, gram in self.grams.items()} if self.pairs else {})

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore them, unless they are of blocks of another size: pairs of those cannot be continued."""
        if int(state["held"]) == self.blocks.held and int(state["pairs"]):
            self.pairs = int(state["pairs"])
            self.grams = {name: state[f"gram.{name}"] for name in self.names}


def _add_all(sheet: MeasurementRows, grams: Found, gradients: Mapping[str, Gradients]) -> None:
    for name, gram in grams.items():
        if not bool(gram.any()):
            zero = Estimate.not_fitted("every per-sample gradient of it is zero here")
            sheet.row("rankme", "gradient", name, zero)
            continue
        spectrum = gram_spectrum(gram, gradients[name].size, precision=gradients[name].precision)
        summarise(sheet, "gradient", name, spectrum, singular_windows(spectrum))


GRADIENTS = Measurement(
    "gradients",
    version=3,
    meaning="spectra of per-sample gradients of W_O, MLP out, Q and V",
    needs=frozenset({"gradients"}),
    begin=begin,
    wanted=lambda config: config.gradient_sequences > 0,
    null=True,
)
