"""Fourier features of a cyclic band: what the model's states, its embedding and its head make of Z_c."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sims.measure.rows import MeasurementRows
from sims.models.subject import Subject
from sims.runs.layout import band_name
from sims.runs.measure_config import MeasureConfig
from spectra import (
    Estimate,
    class_means,
    component_frequencies,
    control_subspace,
    covariance_spectrum,
    drop_frequencies,
    frequency_subspace,
    gini,
    h_peak,
    h_s,
    h_s_debiased,
    keep_frequencies,
    peak_band,
    task_band,
    top_k_band,
)
from spectra.errors import InputError
from spectra.fourier import band_energies, dominant_frequency
from spectra.nulls import BetaNull, SampledNull, effective_dimension, h_peak_null, h_s_null, h_top_k_null
from toymodel.tasks.modular_walk_probes import ProbeSplit

COMPONENTS = 3
CONTROLS = 4
# Null values above this quantile are the "null_high" of a row.
TEST_LEVEL = 0.975


@dataclass(frozen=True, eq=False)
class Probe:
    """One band and the sequences it is probed with.

    Args:
        split: sequences anchored in the band.
        known: share of training sequences in this band; 0 for a band that tests generalisation.
        tokens: the sequences on the device of the subject.
    """

    split: ProbeSplit
    known: float
    tokens: Tensor

    @property
    def columns(self) -> dict[str, Any]:
        """The columns of rows that name the band: band, regime and seen."""
        band = f"{self.split.modulus}:{self.split.offset}"
        return {"band": band, "regime": self.split.regime, "seen": self.known > 0}

    @property
    def name(self) -> str:
        """The full name: "31:20 clean seen", "97:200 matched unseen"."""
        return band_name(**self.columns)

    def states(self, subject: Subject) -> Tensor:
        """(n, width) final states of the last position, in the order of the sequences."""
        distinct, place = self._distinct
        return subject.last_states(distinct)[place]

    @cached_property
    def _distinct(self) -> tuple[Tensor, Tensor]:
        # Without noise a band has c² sequences, of which a small one repeats most.
        return self.tokens.unique(dim=0, return_inverse=True)


def probe_states(sheet: MeasurementRows, subject: Subject, probe: Probe, config: MeasureConfig) -> None:
    """H_S, H_peak, Gini and component frequencies of the class means of the last position's final state."""
    states = probe.states(subject)
    c = probe.split.modulus
    means = class_means(states, probe.split.states[:, -1], c)
    loss = subject.head_losses(states, probe.tokens[:, -1].long()).mean()
    sheet.row("loss", "probe", "final", float(loss), **probe.columns)
    if not _varies(means.means):
        same = Estimate.not_fitted("the states of the band all have the same representation")
        sheet.row("h_peak", "probe", "final", same, **probe.columns)
        return
    dimensions = effective_dimension(covariance_spectrum(states))
    concentration(sheet, "probe", "final", means.means, dimensions, probe.columns, config.top_k)
    for label, chosen, _ in _sets(means.means, 1, config.top_k):
        debiased = h_s_debiased(means, chosen)
        sheet.row(
            "h_s_debiased",
            "probe",
            "final",
            debiased,
            null=len(chosen) / (c - 1),
            **probe.columns,
            set=label,
        )
    if config.causal_sequences:
        causal(sheet, subject, probe, means.means, states, config)


def probe_tables(sheet: MeasurementRows, subject: Subject, probe: Probe, config: MeasureConfig) -> None:
    """The same concentration on the band's rows of the token embedding and of the head."""
    rows = slice(probe.split.offset, probe.split.offset + probe.split.modulus)
    tables = {"embed": subject.matrices["embed"]}
    if "head" in subject.matrices:
        tables["head"] = subject.head
    for site, table in tables.items():
        band = table[rows].detach().cpu().double().numpy()
        if _varies(band):
            dimensions = effective_dimension(covariance_spectrum(table))
            concentration(sheet, "table", site, band, dimensions, probe.columns, config.top_k)


def concentration(
    sheet: MeasurementRows,
    object_: str,
    site: str,
    means: np.ndarray,
    dimensions: float,
    columns: Mapping[str, Any],
    top_k: int,
) -> None:
    """Concentration of the energies of (c, d) class means over frequencies, each figure beside its null.

    Args:
        dimensions: effective dimension of the population whose averages the class means are. The null is what
            shuffled states would give: averages without structure in that many dimensions.
        columns: of the rows: band, regime and seen of a probe, or detail, the name of a token family.
    """
    c = len(means)
    # Whole numbers, so that simulated null laws are shared between measurements.
    d = max(1, round(dimensions))
    for label, chosen, null in _sets(means, d, top_k):
        levels = {"null": null.mean, "null_high": float(null.quantile(TEST_LEVEL))}
        sheet.row("h_s", object_, site, h_s(means, chosen), **levels, **columns, set=label)
    null = h_peak_null(c, d)
    levels = {"null": null.mean, "null_high": float(null.quantile(TEST_LEVEL))}
    sheet.row("h_peak", object_, site, h_peak(means), **levels, **columns)
    sheet.row("dominant_frequency", object_, site, dominant_frequency(means), **columns)
    sheet.row("gini", object_, site, gini(band_energies(means)[1:]), **columns)
    components = component_frequencies(means, min(COMPONENTS, _rank(means)))
    for j, (mass, frequency, share) in enumerate(
        zip(components.peak_mass, components.frequency, components.share, strict=True), start=1
    ):
        own = {**columns, "detail": f"{columns.get('detail', '')} pc{j}".strip()}
        sheet.row("component_peak_mass", object_, site, mass, **own)
        sheet.row("component_frequency", object_, site, frequency, **own)
        sheet.row("component_share", object_, site, share, **own)


def _sets(
    means: np.ndarray, d: int, top_k: int
) -> Iterator[tuple[str, tuple[int, ...], BetaNull | SampledNull]]:
    """The sets that H_S is taken over, with their nulls; a set of all frequencies, where H_S is 1, is left out."""
    c = len(means)
    if len(task_band(c)) < c - 1:
        yield "task", task_band(c), h_s_null(c, d, task_band(c))
    # Sets chosen from the data they are measured on have a null of their own.
    yield "peak", peak_band(means), h_top_k_null(c, d, 1)
    if top_k < c // 2:
        yield f"top{top_k}", top_k_band(means, top_k), h_top_k_null(c, d, top_k)


def causal(
    sheet: MeasurementRows,
    subject: Subject,
    probe: Probe,
    means: np.ndarray,
    states: Tensor,
    config: MeasureConfig,
) -> None:
    """Does the loss need the key frequency? Keep it alone, or drop it, in the final state and in the embedding.

    Losses are changes in nats at the last position against the untouched model; each stands beside the mean over
    random controls of equal dimension (final state) or over other frequencies (embedding).
    """
    n = config.causal_sequences
    key = peak_band(means)
    tokens, final = probe.tokens[:n], states[:n]
    targets = tokens[:, -1].long()
    generator = np.random.default_rng([probe.split.modulus, probe.split.offset, subject.step])
    base = subject.head_losses(final, targets).mean()
    centre = final.mean(dim=0)

    def edited(basis: np.ndarray, keep: bool) -> float:
        q = torch.as_tensor(basis, dtype=final.dtype, device=final.device)
        part = (final - centre) @ q @ q.T
        state = centre + part if keep else final - part
        return float(subject.head_losses(state, targets).mean() - base)

    subspace = frequency_subspace(means, key)
    try:
        controls = [control_subspace(means, key, generator) for _ in range(CONTROLS)]
    except InputError:
        controls = []
    for keep in (True, False):
        null = float(np.mean([edited(basis, keep) for basis in controls])) if controls else float("nan")
        sheet.row(
            f"causal_{'keep' if keep else 'drop'}",
            "probe",
            "final",
            edited(subspace, keep),
            null=null,
            **probe.columns,
        )
    _causal_embedding(sheet, subject, probe, tokens, float(base), key, generator)


def _causal_embedding(
    sheet: MeasurementRows,
    subject: Subject,
    probe: Probe,
    tokens: Tensor,
    base: float,
    key: tuple[int, ...],
    generator: np.random.Generator,
) -> None:
    c, o = probe.split.modulus, probe.split.offset
    table = subject.matrices["embed"]
    band = table[o : o + c].detach().cpu().double().numpy()
    others = [r for r in range(1, c // 2 + 1) if r not in key]

    def edited(chosen: tuple[int, ...], keep: bool) -> float:
        new = keep_frequencies(band, chosen) if keep else drop_frequencies(band, chosen)
        copy = table.detach().clone()
        copy[o : o + c] = torch.as_tensor(new, dtype=copy.dtype, device=copy.device)
        model = subject.with_matrix("embed", copy)
        return float(model.head_losses(model.last_states(tokens), tokens[:, -1].long()).mean()) - base

    control = int(generator.choice(others)) if others else None
    for keep in (True, False):
        null = float("nan") if control is None else edited(tuple(sorted({control, c - control})), keep)
        sheet.row(
            f"causal_{'keep' if keep else 'drop'}",
            "probe",
            "embed",
            edited(key, keep),
            null=null,
            **probe.columns,
        )


def _varies(means: np.ndarray) -> bool:
    return bool(np.ptp(means, axis=0).max() > 1e-12 * max(np.abs(means).max(), 1e-300))


def _rank(means: np.ndarray) -> int:
    return int(np.linalg.matrix_rank(means - means.mean(axis=0)))
