"""Measure H_S and H_peak on many bands of stored checkpoints: are the two published bands typical?

`measure_bands` measures; `sims.studies.bands.tables` makes the tables from it (`by_band`, `summary`, `along_sequence`,
`over_training`, `decomposition`, `planning`); `sims.studies.bands.figures` draws (`training_figure`, `position_figure`,
`band_figure`, `planning_figure`). `band_report` does all of it and returns tables and figures by name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import track
from torch import Tensor

from sims.analysis.cells import in_chain_order
from sims.measure.cache import CheckpointMeasurement, Tables, measured
from sims.models.subject import Subject
from sims.models.transformer import TransformerSubject
from sims.runs.store import RunFolder
from sims.studies.bands import figures, tables
from sims.studies.stored import chosen_runs, require_one_end, require_one_task
from sims.system.errors import MeasureError
from spectra import class_means, covariance_spectrum, h_peak, h_s, task_band
from spectra.fourier import band_energies
from spectra.nulls import effective_dimension, h_peak_null
from toymodel import TaskConfig
from toymodel.config import RunConfig
from toymodel.data import Dataset, dataset
from toymodel.limits import check_numbers, plain_numbers
from toymodel.tasks.modular_walk_probes import PUBLISHED_BANDS, ProbeSplit, Regime, probe_split
from toymodel.tasks.modular_walks import modular_walks

FINAL = "final"
Record = dict[str, Any]

# The task band is every frequency up to 15 and most of them a little above: 23 leaves a third of them outside.
LEAST_MODULUS = 23
# The noise of a class mean needs two samples.
LEAST_SAMPLES = 2
ATTEMPTS = 1_000
# Of what `band_records` measures; raise it when the numbers change.
VERSION = 1
NULL_LEVEL = 0.975


class Band(NamedTuple):
    """Name a band by modulus and offset; `known` counts the training sequences in exactly this band."""

    c: int
    o: int
    known: int

    @property
    def name(self) -> str:
        """ "31:20"."""
        return f"{self.c}:{self.o}"


@dataclass(frozen=True)
class BandPlan:
    """Set what is measured, and how finely.

    Args:
        bands: number of bands, half of them in training where the named ones leave room.
        named: bands that are always measured, whether or not training has them.
        samples: independent probe samples of each band and seed, at least two (to tell their spread apart).
        per_state: sequences for each state of a band in one clean sample.
        mixed_per_state: the same for the mixed sample, whose class means are noisier.
        fractions: parts of training whose nearest checkpoints are measured.
        positions: 0-based positions in the sequence; the last one is always measured.
        batch_size: the runs of this batch size; None takes the smallest.
        mixed: laws of the nuisance components of the mixed probe, for runs whose own task has none.
    """

    bands: int = 20
    named: tuple[tuple[int, int], ...] = ()
    samples: int = 2
    per_state: int = 8
    mixed_per_state: int = 24
    fractions: tuple[float, ...] = (0.25, 0.5, 1.0)
    positions: tuple[int, ...] = (0, 1, 3, 7, 15)
    batch_size: int | None = None
    mixed: tuple[int, int, float] = (1, 3, 1.5)

    def __post_init__(self) -> None:
        plain_numbers(self, MeasureError)
        check_numbers(self, MeasureError)
        for name, least in (("bands", 2), ("samples", 2), ("per_state", 3), ("mixed_per_state", 3)):
            if getattr(self, name) < least:
                raise MeasureError(f"{name} is {getattr(self, name)}; it must be at least {least}")
        for name, most in (("samples", 1_000), ("per_state", 100_000), ("mixed_per_state", 100_000)):
            if getattr(self, name) > most:
                raise MeasureError(f"{name} is {getattr(self, name)}; it must be at most {most:,}")
        if bad := [(c, o) for c, o in self.named if c < 3 or o < 0]:
            raise MeasureError(
                f"named has band {bad[0][0]}:{bad[0][1]}; a modulus is at least 3, an offset at least 0"
            )
        if not self.fractions or not all(0 <= f <= 1 for f in self.fractions):
            raise MeasureError(f"fractions are {self.fractions}; give parts of training from 0 to 1")


@dataclass(frozen=True, eq=False)
class BandProbe:
    """Hold one probe sample: band, regime ("clean" or "mixed"), number of the sample, and sequences."""

    band: Band
    regime: str
    sample: int
    split: ProbeSplit


@dataclass(frozen=True, eq=False)
class BandReport:
    """Hold the measured records, and tables and figures by name."""

    measured: pd.DataFrame
    tables: dict[str, pd.DataFrame]
    figures: dict[str, Figure]


def band_report(out: Path, plan: BandPlan, console: Console) -> BandReport:
    """Measure a folder of complete runs and make every table and figure.

    Raises:
        MeasureError: no runs that fit the plan; the message says what is missing.
    """
    seeds = {config.seed for _, config in _runs(out, plan)}
    if len(seeds) < 2:
        raise MeasureError(
            f"the runs have {len(seeds)} seed; a spread over seeds needs at least 2: train more"
        )
    found = measure_bands(out, plan, console)
    made = {
        "bands": tables.by_band(found),
        "summary": tables.summary(found),
        "position": tables.along_sequence(found),
        "training": tables.over_training(found),
        "components": tables.decomposition(found),
    }
    made["planning"] = tables.planning(made["components"])
    drawn = {
        "training": figures.training_figure(made["summary"]),
        "position": figures.position_figure(tables.at_end(made["summary"])),
        "bands": figures.band_figure(made["bands"]),
    }
    # One stage has no differences to plan for.
    if len(made["planning"]):
        curves = tables.seed_curves(made["components"])
        drawn["planning"] = figures.planning_figure(made["components"], curves)
    return BandReport(found, made, drawn)


def measure_bands(out: Path, plan: BandPlan, console: Console) -> pd.DataFrame:
    """Measure the chosen checkpoints of every complete run of one batch size directly below a folder.

    Clean data is measured at every chosen checkpoint, with `plan.samples` samples; mixed data at the last one, with a
    single larger sample.

    Returns:
        One row a run, step, band, regime, sample and position: stage, batch_size, seed, step, fraction, band, c,
        known, kind ("inside" or "outside" training), regime, sample, position, and what `band_records` gives.

    Raises:
        MeasureError: no complete run, none with checkpoints, runs of several tasks or rates, runs of one stage that
            ended at different steps, or too few bands.
    """
    runs = _runs(out, plan)
    task = modular_walks(runs[0][1].task)
    bands = choose_bands(dataset(task), plan.named, plan.bands)
    records: list[Record] = []
    # By seed, so that the probes of one seed are drawn once for all its stages.
    order = in_chain_order(config.stage for _, config in runs)
    runs.sort(key=lambda run: (run[1].seed, order.index(run[1].stage)))
    measurements = {
        (seed, last): _measurement(task, bands, plan, seed, last)
        for seed in {config.seed for _, config in runs}
        for last in (False, True)
    }
    for folder, config in track(
        runs, description="measuring", console=console, disable=not console.is_terminal
    ):
        label = {"stage": config.stage, "batch_size": config.batch_size, "seed": config.seed}
        files = _checkpoints(folder, config, plan.fractions)
        for step, file in files.items():
            common = {**label, "step": step, "fraction": step / config.steps}
            own = measurements[config.seed, step == max(files)]
            tables = measured(folder, file, config, own)
            records += [{**common, **r} for r in tables["bands"]] if tables else []
    if not records:
        raise MeasureError(f"no checkpoint of {out} has finite weights; lower the learning rates of its runs")
    return pd.DataFrame(records)


def _runs(out: Path, plan: BandPlan) -> list[tuple[RunFolder, RunConfig]]:
    """Return the runs that are measured, of one task and one length."""
    runs = chosen_runs(out, plan.batch_size)
    require_one_task(runs)
    require_one_end(runs)
    return runs


def _measurement(
    task: TaskConfig, bands: Sequence[Band], plan: BandPlan, seed: int, last: bool
) -> CheckpointMeasurement:
    """Return the measurement of the checkpoints of one seed; that of last ones includes mixed data."""
    places = _places(plan.positions, task.length)

    def measure(subject: TransformerSubject) -> Tables:
        clean, mixed = _probes(task, tuple(bands), plan, seed)
        return {"bands": band_records(subject, clean + mixed if last else clean, places)}

    # What the probes depend on; which checkpoints are measured is no part of it.
    drawn = {"samples": plan.samples, "per_state": plan.per_state, "seed": seed}
    mixed = {"mixed_per_state": plan.mixed_per_state, "mixed": plan.mixed} if last else {}
    return CheckpointMeasurement(
        "bands", VERSION, {"bands": bands, "positions": places, **drawn, **mixed}, measure
    )


@lru_cache(maxsize=1)
def _probes(
    task: TaskConfig, bands: tuple[Band, ...], plan: BandPlan, seed: int
) -> tuple[list[BandProbe], list[BandProbe]]:
    """Draw the clean and the mixed probes of a seed, where some checkpoint is to be measured."""
    return clean_probes(task, bands, plan, seed), mixed_probes(task, bands, plan, seed)


def choose_bands(data: Dataset, named: Sequence[tuple[int, int]], count: int) -> tuple[Band, ...]:
    """Return the named bands and others of prime modulus, half inside the training set and half outside it.

    Inside: the most frequent band of each modulus in turn. Outside: for the same moduli, the lowest
    offsets that no training sequence has, so that the two kinds differ in neither modulus nor, as far as possible, in
    how common their tokens are. Steps of composite moduli have structure of their own (T11): only primes are taken,
    and only up to three quarters of the vocabulary, so that there are offsets to choose from.

    Raises:
        MeasureError: not enough of them; the message says how many there are.
    """
    vocab, latents = data.config.vocab, data.train.latents
    counts = np.zeros((vocab + 1, vocab + 1), dtype=int)
    alive = latents.weights > 0
    np.add.at(counts, (latents.modulus[alive], latents.offset[alive]), 1)
    chosen = [Band(c, o, int(counts[c, o])) for c, o in dict.fromkeys(named)]
    primes = [
        c for c in range(LEAST_MODULUS, vocab * 3 // 4 + 1) if all(c % k for k in range(2, int(c**0.5) + 1))
    ]
    for inside in (True, False):
        wanted = count // 2 if inside else count
        queues = [_candidates(counts[c], c, vocab, inside, chosen) for c in primes]
        # One of each modulus before a second of any.
        turns = [queue[turn] for turn in range(vocab) for queue in queues if turn < len(queue)]
        have = sum((b.known > 0) for b in chosen) if inside else len(chosen)
        chosen += turns[: max(0, wanted - have)]
    if len(chosen) < count:
        raise MeasureError(
            f"{count} bands are wanted but only {len(chosen)} of prime modulus from {LEAST_MODULUS} fit a vocabulary "
            f"of {vocab}; lower --bands"
        )
    return tuple(chosen[:count])


def clean_probes(task: TaskConfig, bands: Sequence[Band], plan: BandPlan, seed: int) -> list[BandProbe]:
    """Draw `plan.samples` samples of every band, the same for all stages of a seed, different ones for each seed.

    Raises:
        MeasureError: a band's states cannot all be seen often enough.
    """
    return [
        BandProbe(b, "clean", k, _drawn(task, b, plan.per_state, plan, "clean", seed * plan.samples + k))
        for b in bands
        for k in range(plan.samples)
    ]


def mixed_probes(task: TaskConfig, bands: Sequence[Band], plan: BandPlan, seed: int) -> list[BandProbe]:
    """Draw one sample of every band with nuisance components, by the laws of the task or else of `plan.mixed`."""
    low, high, pareto = plan.mixed
    if task.components_max == 1:
        task = replace(task, components_min=low, components_max=high, pareto=pareto)
    return [
        BandProbe(b, "mixed", 0, _drawn(task, b, plan.mixed_per_state, plan, "matched", seed)) for b in bands
    ]


def band_records(subject: Subject, probes: Sequence[BandProbe], positions: Sequence[int]) -> list[Record]:
    """Measure the concentration of the class means by state, at each position, for each probe.

    Returns:
        One record a probe and position: band, c, known, kind, regime, sample, position, loss (nats, there), and unless
        all states look the same
        h_s, h_peak: as published, plug-in (task band; one side of the largest pair),
        h_s_debiased, h_peak_debiased: with the noise ν of the class means taken from every energy (T4); not clipped,
        h_s_null, h_peak_null, h_peak_high: |S|/(c−1); mean and 97.5 % level of noise of the same effective dimension,
        h_s_excess: (debiased − null)/(1 − null), h_peak_excess: debiased − null, both 0 without structure,
        signal, noise_share: energy left above the noise, and the noise's part of the measured one.
    """
    tokens = torch.cat([torch.tensor(p.split.tokens) for p in probes])
    ends = np.cumsum([len(p.split) for p in probes])
    parts = [batch[FINAL][:, list(positions)] for batch in subject.activations(tokens, (FINAL,))]
    states = torch.cat(parts)
    records = []
    for probe, end in zip(probes, ends, strict=True):
        rows = slice(end - len(probe.split), end)
        label = {
            "band": probe.band.name,
            "c": probe.band.c,
            "known": probe.band.known,
            "kind": "inside" if probe.band.known else "outside",
            "regime": probe.regime,
            "sample": probe.sample,
        }
        for i, place in enumerate(positions):
            h, targets = states[rows, i], tokens[rows, place + 1].long()
            loss = float(subject.head_losses(h, targets).mean())
            seen = probe.split.states[:, place]
            records.append(
                {**label, "position": place, "loss": loss, **_concentration(h, seen, probe.band.c)}
            )
    return records


def _concentration(h: Tensor, seen: np.ndarray, c: int) -> Record:
    means = class_means(h, seen, c)
    if np.ptp(means.means, axis=0).max() <= 1e-12 * np.abs(means.means).max():
        return {}
    chosen = list(task_band(c))
    size = len(chosen) / (c - 1)
    null, high = _peak_null(c, max(1, round(effective_dimension(covariance_spectrum(h)))))
    energies, noise = band_energies(means.means), means.noise
    signal = float(energies.sum()) - (c - 1) * noise
    debiased = (float(energies[chosen].sum()) - len(chosen) * noise) / signal
    peak = (float(energies.max()) - noise) / signal
    return {
        "h_s": h_s(means.means, chosen),
        "h_s_debiased": debiased,
        "h_s_null": size,
        "h_s_excess": (debiased - size) / (1 - size),
        "h_peak": h_peak(means.means),
        "h_peak_debiased": peak,
        "h_peak_null": null,
        "h_peak_high": high,
        "h_peak_excess": peak - null,
        "signal": signal,
        "noise_share": (c - 1) * noise / float(energies.sum()),
    }


@cache
def _peak_null(c: int, d: int) -> tuple[float, float]:
    """Return mean and upper level of the null; d is whole, so that few laws are simulated."""
    null = h_peak_null(c, d)
    return null.mean, float(null.quantile(NULL_LEVEL))


def _candidates(counts: np.ndarray, c: int, vocab: int, inside: bool, taken: Sequence[Band]) -> list[Band]:
    """Return unused bands of one modulus: inside by falling frequency, outside by rising offset (commonest tokens)."""
    used = {(b.c, b.o) for b in taken}
    offsets = [o for o in range(vocab - c + 1) if (c, o) not in used and (counts[o] > 0) == inside]
    if inside:
        offsets.sort(key=lambda o: -counts[o])
    return [Band(c, o, int(counts[o])) for o in offsets]


def _drawn(
    task: TaskConfig, band: Band, per_state: int, plan: BandPlan, regime: Regime, stream: int
) -> ProbeSplit:
    """Return the first draw that has every state at least twice at every position, so that its noise is known."""
    places = _places(plan.positions, task.length)
    for attempt in range(ATTEMPTS):
        split = probe_split(task, band.c, band.o, per_state * band.c, regime, stream * ATTEMPTS + attempt)
        seen = split.states[:, list(places)] + band.c * np.arange(len(places))
        if np.bincount(seen.ravel(), minlength=band.c * len(places)).min() >= LEAST_SAMPLES:
            return split
    raise MeasureError(
        f"{ATTEMPTS} draws of {per_state * band.c} sequences never showed every state of band {band.name} twice at "
        "every position; raise the sequences per state"
    )


def _places(positions: Sequence[int], length: int) -> tuple[int, ...]:
    return tuple(sorted({p for p in positions if 0 <= p < length} | {length - 1}))


def _checkpoints(folder: RunFolder, config: RunConfig, fractions: Sequence[float]) -> dict[int, Path]:
    """Return the checkpoints nearest to the fractions of the run's planned steps, by step, in order."""
    files = folder.checkpoints()
    steps = np.array([int(f.stem.removeprefix("step-")) for f in files])
    nearest = sorted({int(np.abs(steps - f * config.steps).argmin()) for f in fractions})
    return {int(steps[i]): files[i] for i in nearest}


def default_named(vocab: int) -> tuple[tuple[int, int], ...]:
    """Return the two published bands if they fit in the vocabulary, else the demo's two unseen ones, else none."""
    for pair in (PUBLISHED_BANDS, ((31, 20), (47, 10))):
        if all(c + o <= vocab for c, o in pair):
            return pair
    return ()
