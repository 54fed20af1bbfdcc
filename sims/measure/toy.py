"""Prepare what a toy run is measured with: sequences and probe bands, the same for all its checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from sims.analysis.task_floor import check_law, exact_law
from sims.measure.band_states import Probe
from sims.measure.contexts import Contexts, draw_contexts
from sims.measure.measurement import Need
from sims.measure.registry import TOY_OFFERS
from sims.measure.token_families import Family
from sims.models.subject import Subject
from sims.runs.measure_config import MeasureConfig
from sims.runs.rank_windows import Window
from sims.system.errors import MeasureError
from theory.formulas.law import WalkLaw
from toymodel.config import RunConfig
from toymodel.data import Dataset, dataset
from toymodel.errors import ConfigError
from toymodel.task import Task
from toymodel.tasks import DEFAULT_KIND
from toymodel.tasks.modular_walk_probes import probe_split, training_bands
from toymodel.tasks.modular_walks import modular_walks

# Sequences at once where only the last position is needed.
BATCH = 256


@dataclass(frozen=True, eq=False)
class MeasurementData:
    """Fixed inputs of one toy run (a `sims.measure.measurement.Data`).

    Args:
        config: what is measured.
        sequences: (n, T+1) validation sequences of the activation spectra; the first ones also serve gradients.
        probes: probe bands, seen in training and unseen.
        law: of the next token, where the loss is set against it.
        contexts: with their exact laws, where the states are compared with them.
    """

    config: MeasureConfig
    sequences: Tensor
    probes: tuple[Probe, ...]
    law: WalkLaw | None = None
    contexts: Contexts | None = None

    offers: frozenset[Need] = TOY_OFFERS
    families: tuple[Family, ...] = ()
    # Few enough for one backward pass.
    memory: float | None = None
    last_apart: bool = True

    @cached_property
    def entropies(self) -> Tensor:
        """Return the exact entropies (n, T) in nats of the token after each position of the sequences."""
        assert self.law is not None
        return torch.tensor(self.law.entropies(self.sequences[:, :-1].cpu().numpy()), device=self.device)

    @property
    def device(self) -> str:
        """Where the sequences are."""
        return str(self.sequences.device)

    def batches(self, last: bool) -> Sequence[slice]:
        """Return one batch of all sequences, which the model divides; smaller ones for only the last position."""
        count = min(self.config.sequences, len(self.sequences))
        if not last:
            return [slice(0, count)]
        return [slice(start, min(start + BATCH, count)) for start in range(0, count, BATCH)]

    def tokens(self, batch: slice) -> Tensor:
        """Return the (b, T+1) tokens of a batch."""
        return self.sequences[batch]

    def gradient_sequences(self) -> Tensor:
        """Return the (M, T+1) tokens behind the per-sample gradients."""
        return self.sequences[: self.config.gradient_sequences]

    def check(self, subject: Subject) -> None:
        """Accept the model: the run's configuration was checked when the inputs were prepared."""

    def sites(self, subject: Subject) -> tuple[str, ...]:
        """Return the sites of the configuration."""
        return self.config.sites

    def windows(self, subject: Subject, width: int) -> tuple[Window, ...]:
        """Return the rank windows that fit this width."""
        return self.config.exponent_windows(width)

    def gradient_matrices(self, subject: Subject) -> list[str]:
        """Return the matrices with one of the endings of the configuration."""
        return [name for name in subject.matrices if name.endswith(self.config.gradient_matrices)]


def prepare(config: MeasureConfig, run: RunConfig, data: Dataset, device: str = "cpu") -> MeasurementData:
    """Return the sequences and probes for runs of one configuration.

    A band counts as seen if the training sequences contain it, also where the configuration names it.

    Raises:
        MeasureError: the settings do not fit the run, or its task.
    """
    config.check(run)
    _check_losses(config, run.task, data)
    count = max(config.sequences, config.gradient_sequences, config.directions)
    sequences = torch.tensor(data.val.tokens[:count], device=device)
    law = exact_law(run.task) if config.positions else None
    contexts = draw_contexts(run.task, data, config.predictive) if config.predictive else None
    return MeasurementData(config, sequences, _probes(config, run, data, device), law, contexts)


def _check_losses(config: MeasureConfig, task: Task, data: Dataset) -> None:
    if data.val.mask is None and data.val.labels is None:
        return
    for name, what in (
        ("gradient_sequences", "per-sample gradients"),
        ("directions", "principal directions"),
    ):
        if getattr(config, name):
            raise MeasureError(
                f"the loss of the task {task.kind} does not count every target, or counts others than the next "
                f"tokens, and {what} of such a loss are not measured; set measure.{name} to 0"
            )


def check_task(config: MeasureConfig, task: Task) -> None:
    """Refuse what the task does not allow, or more training bands than its training split contains.

    The data of tasks other than modular walks are drawn: only then is it known whether there are enough.

    Raises:
        MeasureError: a measurement that needs another task, or how many bands it contains.
        ConfigError: the settings of the task leave too few sequences.
    """
    if config.positions or config.predictive:
        check_law(task)
    if task.kind != DEFAULT_KIND:
        _check_losses(config, task, dataset(task))
    if not config.training_bands:
        return
    try:
        training_bands(dataset(task), config.training_bands, config.training_band_min, odd=True)
    except ConfigError as error:
        raise MeasureError(f"measure.training_bands and measure.training_band_min: {error}") from error


def _probes(config: MeasureConfig, run: RunConfig, data: Dataset, device: str) -> tuple[Probe, ...]:
    """Draw the sequences of each probe band; without bands none, for tasks that have none."""
    k = config.training_bands
    frequent = [(b.c, b.o) for b in training_bands(data, k, config.training_band_min, odd=True)] if k else []
    bands = dict.fromkeys([*config.bands, *frequent])
    if not bands:
        return ()
    task = modular_walks(run.task)
    single = task.components_max == 1 and task.noise == 0
    probes = []
    for c, o in bands:
        # A clean single component is what training has: matched sequences would be the same.
        for regime in ("clean",) if single else ("clean", "matched"):
            split = probe_split(task, c, o, config.probe_sequences, regime)
            probes.append(Probe(split, _frequency(data, c, o), torch.tensor(split.tokens, device=device)))
    return tuple(probes)


def _frequency(data: Dataset, c: int, o: int) -> float:
    """Return the share of training sequences with a component in this band."""
    latents = data.train.latents
    here = ((latents.modulus == c) & (latents.offset == o) & (latents.weights > 0)).any(axis=1)
    return float(here.mean())
