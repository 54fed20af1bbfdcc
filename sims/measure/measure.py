"""One measurement of one subject: activations, gradients, weights and probes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sims.measure.probes import Probe, probe_states, probe_tables
from sims.measure.rows import MeasurementRows
from sims.measure.summarise import summarise
from sims.models.subject import Subject
from sims.runs.measure_config import MeasureConfig
from spectra import Estimate, Moments, Spectrum, stacked_gradient_spectrum, weight_spectrum
from toymodel.config import RunConfig
from toymodel.data import Dataset
from toymodel.tasks.modular_walk_probes import probe_split, training_bands
from toymodel.tasks.modular_walks import modular_walks

Measurement = MeasurementRows
FINAL = "final"
BATCH = 256


@dataclass(frozen=True, eq=False)
class MeasurementData:
    """The fixed data that one run is measured with, prepared once.

    Args:
        config: what is measured.
        sequences: (n, T+1) validation sequences of the activation spectra; the first ones also serve gradients.
        probes: probe bands, seen in training and unseen.
    """

    config: MeasureConfig
    sequences: Tensor
    probes: tuple[Probe, ...]


def prepare(config: MeasureConfig, run: RunConfig, data: Dataset, device: str = "cpu") -> MeasurementData:
    """The sequences and probes for runs of this configuration.

    The two kinds of band are told apart by what training really contains: a band of the configuration that
    occurs there counts as seen.
    """
    config.check(run)
    k = config.training_bands
    frequent = [(b.c, b.o) for b in training_bands(data, k, config.training_band_min, odd=True)] if k else []
    wanted = dict.fromkeys([*config.bands, *frequent])
    regimes = ("clean",) if _single_clean_band(run) else ("clean", "matched")
    probes = []
    for c, o in wanted:
        for regime in regimes:
            split = probe_split(modular_walks(run.task), c, o, config.probe_sequences, regime)
            tokens = torch.tensor(split.tokens, device=device)
            probes.append(Probe(split, _frequency(data, c, o), tokens))
    sequences = torch.tensor(
        data.val.tokens[: max(config.sequences, config.gradient_sequences)], device=device
    )
    return MeasurementData(config, sequences, tuple(probes))


def measure(subject: Subject, instruments: MeasurementData) -> Measurement:
    """All measurements that the configuration asks for."""
    sheet = MeasurementRows(subject.step, subject.tokens)
    config = instruments.config
    measure_activations(sheet, subject, instruments.sequences[: config.sequences], config)
    if config.gradient_sequences:
        measure_gradients(sheet, subject, instruments.sequences[: config.gradient_sequences], config)
    measure_weights(sheet, subject)
    for probe in instruments.probes:
        probe_states(sheet, subject, probe, config)
        # The embedding and the head do not know the regime: once a band is enough.
        if probe.split.regime == "clean":
            probe_tables(sheet, subject, probe, config)
    return sheet


def measure_activations(
    sheet: MeasurementRows, subject: Subject, sequences: Tensor, config: MeasureConfig
) -> None:
    """Covariance spectra at the sites, from streamed moments."""
    moments = {site: Moments() for site in config.sites}
    if config.pooling == "last" and config.sites == (FINAL,):
        # The commonest case needs no other position of the last block.
        for batch in sequences.split(BATCH):
            moments[FINAL].update(subject.last_states(batch))
    else:
        for batch in subject.activations(sequences, config.sites):
            for site, x in batch.items():
                moments[site].update(pooled(x, config.pooling))
    for site, moment in moments.items():
        spectrum = moment.spectrum()
        summarise(sheet, "activation", site, spectrum, config.exponent_windows(spectrum.d or len(spectrum)))


def pooled(x: Tensor, pooling: str) -> Tensor:
    """Samples (n, width) of activations (b, T, width)."""
    if pooling == "last":
        return x[:, -1]
    return x.mean(dim=1) if pooling == "mean" else x.flatten(0, 1)


def measure_gradients(
    sheet: MeasurementRows, subject: Subject, sequences: Tensor, config: MeasureConfig
) -> None:
    """Spectra of the M×P matrices of per-sample gradients, uncentred, one a matrix."""
    names = [n for n in subject.matrices if n.endswith(config.gradient_matrices)]
    windows = [(lo, hi) for lo, hi in ((1, 10), (10, 40)) if hi <= len(sequences)]
    for name, factors in subject.gradient_factors(sequences, names).items():
        if not isinstance(factors.d, Tensor) or not bool(factors.d.any()):
            zero = Estimate.not_fitted("every per-sample gradient of it is zero here")
            sheet.row("rankme", "gradient", name, zero)
            continue
        summarise(sheet, "gradient", name, stacked_gradient_spectrum(factors), windows)


def measure_weights(sheet: MeasurementRows, subject: Subject) -> None:
    """Singular values of every weight matrix."""
    for name, matrix in subject.matrices.items():
        if not bool(matrix.any()):
            sheet.row("rankme", "weight", name, Estimate.not_fitted("the matrix is still zero"))
            continue
        spectrum: Spectrum = weight_spectrum(matrix)
        windows = [(lo, hi) for lo, hi in ((1, 10), (10, 40)) if hi <= len(spectrum)]
        summarise(sheet, "weight", name, spectrum, windows)


def _frequency(data: Dataset, c: int, o: int) -> float:
    latents = data.train.latents
    here = ((latents.modulus == c) & (latents.offset == o) & (latents.weights > 0)).any(axis=1)
    return float(here.mean())


def _single_clean_band(run: RunConfig) -> bool:
    task = modular_walks(run.task)
    return task.components_max == 1 and task.noise == 0
