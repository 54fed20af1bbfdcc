"""Spectra of the M×P matrices of per-sample gradients, uncentred, one for each weight matrix."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from sims.measure.gradient_blocks import gradient_grams, plan_blocks
from sims.measure.measurement import Gatherer, Job, Measurement
from sims.measure.rows import MeasurementRows
from sims.measure.summarise import singular_windows, summarise
from spectra import Estimate, Spectrum, gram_spectrum, stacked_gradient_spectrum
from spectra.arrays import machine_epsilon


def begin(job: Job) -> Gatherer:
    """Return the gatherer for all sequences at once, or for blocks of them within the memory that there is."""
    if job.data.memory is None:
        return WholeGradients(job)
    return BlockedGradients(job, job.data.memory)


class WholeGradients(Gatherer):
    """Capture the gradients of all sequences in one backward pass."""

    def __init__(self, job: Job) -> None:
        self.job = job

    def rows(self, sheet: MeasurementRows) -> None:
        """Add the matrices in the order of the model."""
        names = self.job.data.gradient_matrices(self.job.subject)
        factors = self.job.subject.gradient_factors(self.job.data.gradient_sequences(), names)
        for name, own in factors.items():
            moved = isinstance(own.d, Tensor) and bool(own.d.any())
            _add(sheet, name, stacked_gradient_spectrum(own) if moved else None)


class BlockedGradients(Gatherer):
    """Fill in the (M, M) Gram matrix of each weight's gradients, pair of blocks by pair."""

    def __init__(self, job: Job, memory: float) -> None:
        self.job = job
        self.names = job.data.gradient_matrices(job.subject)
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

    def rows(self, sheet: MeasurementRows) -> None:
        """Add the matrices in the order of the model."""
        for name, gram in self.grams.items():
            matrix = self.job.subject.matrices[name]
            spectrum = None
            if bool(gram.any()):
                spectrum = gram_spectrum(gram, matrix.numel(), precision=machine_epsilon(matrix))
            _add(sheet, name, spectrum)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the pairs done, the sequences of a block, and the Gram matrices."""
        state = {"pairs": torch.tensor(self.pairs), "held": torch.tensor(self.blocks.held)}
        return state | ({f"gram.{n}": gram for n, gram in self.grams.items()} if self.pairs else {})

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore them, unless they are of blocks of another size: pairs of those cannot be continued."""
        if int(state["held"]) == self.blocks.held and int(state["pairs"]):
            self.pairs = int(state["pairs"])
            self.grams = {name: state[f"gram.{name}"] for name in self.names}


def _add(sheet: MeasurementRows, name: str, spectrum: Spectrum | None) -> None:
    if spectrum is None:
        zero = Estimate.not_fitted("every per-sample gradient of it is zero here")
        sheet.row("rankme", "gradient", name, zero)
        return
    summarise(sheet, "gradient", name, spectrum, singular_windows(spectrum))


GRADIENTS = Measurement(
    "gradients",
    version=1,
    meaning="spectra of per-sample gradients of W_O, MLP out, Q and V",
    needs=frozenset({"gradients"}),
    begin=begin,
    wanted=lambda config: config.gradient_sequences > 0,
    writes=("rows", "spectra"),
    null=True,
)
