"""Measure a watched model with the registered measurements, each on its own, so that one failure leaves the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from torch import Tensor

from sims.measure.activations import ACTIVATIONS
from sims.measure.band_states import Probe as BandProbe
from sims.measure.engine import measure
from sims.measure.gradients import GRADIENTS
from sims.measure.loss import mean_loss
from sims.measure.measurement import Batch, Found, Gatherer, Job, Measurement, Need
from sims.measure.rows import MeasurementRows
from sims.measure.token_families import Family
from sims.measure.weights import WEIGHTS
from sims.models.subject import Subject
from sims.models.undisturbed import undisturbed
from sims.models.watched import LOSS, WatchedSubject
from sims.models.weights import faulty_weights
from sims.runs.lm_measure_config import LmMeasureConfig
from sims.runs.rank_windows import Window
from sims.runs.watched_config import WatchedConfig
from sims.system.errors import MeasureError
from sims.system.plain import some
from sims.system.process_group import SINGLE, ProcessGroup
from spectra import Moments
from theory.ranges import REAL


class ProbeLoss(Gatherer):
    """Add the mean loss over the samples of the probe, with the interval of its standard error."""

    sites = (LOSS,)

    def __init__(self, job: Job) -> None:
        self.moments = Moments()

    def batch(self, batch: Batch) -> None:
        """Add the losses (b, 1) of a batch."""
        losses = batch.states[LOSS][0, :, 0].double()
        if not bool(losses.isfinite().all()):
            raise MeasureError("a sample of the probe has a loss that is not finite")
        self.moments.update(losses)

    def merge(self) -> None:
        """Merge the moments of all ranks."""
        self.moments = self.moments.copy().all_reduce()

    def rows(self, sheet: MeasurementRows, found: Found) -> None:
        """Add the loss."""
        sheet.row("val_loss", "loss", "validation", mean_loss(self.moments, REAL))


PROBE_LOSS = Measurement(
    "probe_loss",
    version=1,
    meaning="mean loss of the probe",
    needs=frozenset({"losses"}),
    begin=ProbeLoss,
)


@dataclass(frozen=True, eq=False)
class WatchedData:
    """The probe of a watched model as inputs of the engine (a `sims.measure.measurement.Data`).

    Args:
        config: what is measured.
        subject: a watched model with its probe; the models that are measured have the same.
    """

    config: WatchedConfig
    subject: WatchedSubject
    device: str = "cpu"
    probes: tuple[BandProbe, ...] = ()
    families: tuple[Family, ...] = ()
    last_apart: bool = False

    @property
    def offers(self) -> frozenset[Need]:
        """What the probe allows."""
        offered: set[Need] = {"matrices"}
        if self.subject.probe is not None:
            offered.add("activations")
            if self.subject.with_gradients:
                offered |= {"losses", "gradients"}
        return frozenset(offered)

    @property
    def memory(self) -> float:
        """Memory in GB for per-sample gradients."""
        return self.config.memory

    def batches(self, last: bool) -> Sequence[slice]:
        """Return the samples of each pass."""
        assert self.subject.probe is not None
        size = self.config.at_once
        return [slice(start, start + size) for start in range(0, self.subject.probe.samples, size)]

    def tokens(self, batch: slice) -> Tensor:
        """Return the indices (b, 1) of the samples of a batch."""
        return self.subject.samples()[batch]

    def gradient_sequences(self) -> Tensor:
        """Return the indices (M, 1) of the samples behind the per-sample gradients."""
        return self.subject.samples()[: self.config.gradient_sequences]

    def check(self, subject: Subject) -> None:
        """Accept the model: what it cannot give was found when it was first seen."""

    def sites(self, subject: Subject) -> tuple[str, ...]:
        """Return all sites."""
        return self.subject.sites

    def windows(self, subject: Subject, width: int) -> tuple[Window, ...]:
        """Return the rank windows that fit the width."""
        return self.config.exponent_windows(width)

    def gradient_matrices(self, subject: Subject) -> list[str]:
        """Return those that language models are measured at, or all, where the model has none of them."""
        names = self.subject.with_gradients
        usual = [name for name in names if name.endswith(LmMeasureConfig.gradient_matrices)]
        return usual or list(names)

    def groups(self) -> tuple[tuple[Measurement, ...], ...]:
        """Return the measurements that this configuration asks for; those of one group share their passes."""
        offers, config = self.offers, self.config
        passes = tuple(m for m in (PROBE_LOSS, ACTIVATIONS) if m.needs <= offers)
        gradients = (GRADIENTS,) if GRADIENTS.needs <= offers and config.gradient_sequences else ()
        return tuple(group for group in (passes, gradients, (WEIGHTS,)) if group)


def measure_watched(
    subject: WatchedSubject, config: WatchedConfig, ranks: ProcessGroup = SINGLE, weights: bool = True
) -> tuple[MeasurementRows, Mapping[str, str]]:
    """Measure a model as it is now, and leave no trace in it.

    Args:
        subject: the model.
        config: what is measured.
        ranks: this process among those that share the work; each calls this.
        weights: whether the weights are measured too.

    Returns:
        Rows and spectra (none on ranks other than the first), and the measurements that failed, with the reason.
    """
    sheet, failed = MeasurementRows(subject.step, subject.tokens), {}
    # These measurements need of a subject only what a watched model has.
    measurable = cast(Subject, subject)
    if fault := faulty_weights(measurable):
        sheet.diverged(fault)
        return sheet, {}
    data = WatchedData(config, subject)
    with undisturbed(subject.model):
        for group in data.groups():
            if group == (WEIGHTS,) and not weights:
                continue
            try:
                found, left_out = _measured(subject, config, group, ranks)
            except Exception as error:
                # Whatever a foreign model raises must not end its training.
                names = ", ".join(m.name for m in group)
                failed[names] = f"{type(error).__name__}: {error}"
                continue
            failed |= left_out
            sheet.rows += found.rows
            sheet.spectra += found.spectra
    return sheet, failed


def _measured(
    subject: WatchedSubject, config: WatchedConfig, group: Sequence[Measurement], ranks: ProcessGroup
) -> tuple[MeasurementRows, dict[str, str]]:
    """Measure a group; where that fails, once more without what not every sample passes, and say what was left out."""

    def once(own: WatchedSubject) -> MeasurementRows:
        data = WatchedData(config, own)
        return measure(cast(Subject, own), data, measurements=group, ranks=ranks, agree=True)

    try:
        return once(subject), {}
    except Exception:
        if subject.probe is None or group == (WEIGHTS,):
            raise
        # Every process sees all samples, and leaves out the same.
        rest, why = subject.on_every_sample()
        gradients = group == (GRADIENTS,)
        wanted = {name: why[name] for name in why if name.startswith("gradients of ") == gradients}
        if not wanted or (gradients and not rest.with_gradients):
            raise
        found = once(rest)
    return found, {some(list(wanted), 8): next(iter(wanted.values()))}


def loss_of(sheet: MeasurementRows) -> float | None:
    """Return the loss of the probe among the rows; None where it was not measured."""
    return next((row["value"] for row in sheet.rows if row["quantity"] == "val_loss"), None)
